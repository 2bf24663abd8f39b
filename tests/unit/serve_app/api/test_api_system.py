"""Probes, figures, pages, and the way errors look."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from deployments.jobs import errors
from deployments.jobs.errors import ServiceError, StoreUnavailable
from deployments.jobs.model import ScalingDecision
from deployments.jobs.store_watch import ObjectStoreWatch
from serve_app.api.app import create_api
from serve_app.api.config import ApiConfig
from serve_app.api.errors import status_of
from serve_app.snapshot import SHIPPED_WORKFLOWS, SNAPSHOT, build_snapshot, to_text

ROOT = Path(__file__).parents[4]
PROBLEM = "application/problem+json"


async def away(*args, **kwargs):
    raise StoreUnavailable("the job store is away")


async def test_health_never_asks_the_store(client, store, monkeypatch):
    for name in ("get", "stats", "depth", "list_jobs", "scaling"):
        monkeypatch.setattr(store, name, away)
    response = await client.get("/health")
    assert (response.status_code, response.json()["status"]) == (200, "healthy")


async def test_ready_follows_the_store(client, feed, store, monkeypatch):
    async with asyncio.timeout(5):
        while not feed.connected:
            await asyncio.sleep(0.01)
        assert (await client.get("/ready")).json() == {"ready": True, "object_store": None}
        monkeypatch.setattr(store, "events", away)
        while feed.connected:
            await asyncio.sleep(0.01)
    response = await client.get("/ready")
    assert (response.status_code, response.json()["code"], response.headers["retry-after"]) == (503, "store_unavailable", "2")


async def test_ready_says_what_is_wrong_with_the_object_store(app, client, feed):
    watch = app.state.object_watch = ObjectStoreWatch("s3", away)
    watch.checked_at = 1_800_000_000.0
    async with asyncio.timeout(5):
        while not feed.connected:
            await asyncio.sleep(0.01)
    shown = {"provider": "s3", "problem": None, "checked_at": "2027-01-15T08:00:00Z"}
    assert (await client.get("/ready")).json() == {"ready": True, "object_store": shown}
    watch.problem = "there is no such bucket: create it"
    answer = await client.get("/ready")
    assert (answer.status_code, answer.json()["object_store"]["problem"]) == (200, watch.problem)


async def test_stats_counts_jobs(client):
    await client.post("/v1/jobs", json={"source": "https://example.com/a", "target": "https://example.com/b"})
    stats = (await client.get("/v1/stats")).json()
    assert (stats["by_status"]["queued"], stats["by_kind"], stats["pools"]["faceswap"]["queued"]) == (1, {"faceswap": {"queued": 1}}, 1)


async def test_scaling_shows_reasons(client, store):
    await store.record_scaling(ScalingDecision("faceswap", 1_800_000_000.0, 0, 1, "1 job waits", 1, 0))
    assert (await client.get("/v1/admin/scaling")).json() == {
        "decisions": [
            {
                "pool": "faceswap",
                "at": "2027-01-15T08:00:00Z",
                "current": 0,
                "desired": 1,
                "reason": "1 job waits",
                "queued": 1,
                "running": 0,
            }
        ]
    }


async def test_capabilities_lists_engines_and_licences(client):
    shown = (await client.get("/v1/capabilities")).json()
    assert shown["engines"][0]["models"][0]["licence"] == "MIT"
    assert shown["limits"]["upload_bytes"] == 100_000


@pytest.mark.parametrize(
    ("method", "path", "status", "code"), [("GET", "/nowhere", 404, "not_found"), ("PUT", "/v1/jobs", 405, "method_not_allowed")]
)
async def test_unknown_paths_and_methods_are_problems(client, method, path, status, code):
    response = await client.request(method, path)
    assert (response.status_code, response.json()["code"], response.headers["content-type"]) == (status, code, PROBLEM)
    assert response.headers.get("allow") == ("GET, POST" if status == 405 else None)


async def test_fault_is_a_problem_without_a_traceback(client, store, monkeypatch):
    async def broken(*args):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(store, "stats", broken)
    response = await client.get("/v1/stats")
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "secret" not in response.text


async def test_store_that_is_away_is_a_problem_worth_another_try(client, store, monkeypatch):
    monkeypatch.setattr(store, "stats", away)
    response = await client.get("/v1/stats")
    assert (response.status_code, response.json()["retryable"], response.headers["retry-after"]) == (503, True, "2")


def test_status_of_knows_every_error():
    every = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, ServiceError)]
    statuses = {cls.code: status_of(cls.__new__(cls)) for cls in every}
    assert statuses["no_face_detected"] == 422
    assert statuses["job_exists"] == 409
    assert statuses["store_superseded"] == 503
    assert statuses["worker_lost"] == 500


async def test_links_follow_the_public_address(service):
    import httpx

    app = create_api(service, ApiConfig(public_base_url="https://atelier.example/x/", allowed_hosts=frozenset({"inside"})))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://inside:8000") as client:
        response = await client.post("/v1/jobs", json={"source": "https://example.com/a", "target": "https://example.com/b"})
    assert response.headers["location"] == f"https://atelier.example/x/v1/jobs/{response.json()['id']}"


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc"])
async def test_pages_load_everything_from_here(client, path):
    page = await client.get(path)
    assert page.status_code == 200
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|https?://", page.text)
    for address in re.findall(r'(?:src|href)="(static/[^"]+)"', page.text):
        asset = await client.get(f"/{address}")
        assert (asset.status_code, len(asset.content) > 100) == (200, True), address


def test_openapi_snapshot_is_true():
    document = to_text(build_snapshot(ROOT / SHIPPED_WORKFLOWS))
    assert (ROOT / SNAPSHOT).read_text(encoding="utf-8") == document, "refresh it: python -m serve_app.snapshot"


def test_openapi_documents_what_is_refused_before_a_route():
    paths = json.loads((ROOT / SNAPSHOT).read_text(encoding="utf-8"))["paths"]
    assert {"403", "411", "413", "421"} <= paths["/v1/jobs"]["post"]["responses"].keys()
    assert {"411", "413"} <= paths["/v1/jobs/{job_id}/cancel"]["post"]["responses"].keys()
    assert "411" not in paths["/v1/files"]["post"]["responses"]
    assert "421" not in paths["/health"]["get"]["responses"]
    assert list(paths["/v1/files/{file_id}"]["head"]["responses"]) == ["200", "304", "403", "404", "421", "422", "503"]


def test_openapi_documents_problems_of_every_operation():
    document = json.loads((ROOT / SNAPSHOT).read_text(encoding="utf-8"))
    own = {"/api/generate_video": "application/json"}  # a service whose clients read nothing else
    failures = [
        (method, own.get(path, PROBLEM), r)
        for path, operations in document["paths"].items()
        for method, op in operations.items()
        for code, r in op["responses"].items()
        if code >= "400"
    ]
    assert failures
    assert all(list(response.get("content", {})) == ([] if method == "head" else [said]) for method, said, response in failures)
    assert "HTTPValidationError" not in document["components"]["schemas"]
