"""Jobs over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from datetime import UTC, datetime

import pytest

from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.jobs.errors import InvalidInput, StoreUnavailable
from deployments.jobs.model import Artifact, JobError, Progress, Stage
from deployments.jobs.service import ServiceConfig
from deployments.jobs.spec import ComfyOptions, ComfySpec, FaceSwapSpec
from serve_app.api.requests import parse_job_request

CURSOR_OF_40_NINES = base64.urlsafe_b64encode(b"9" * 40).decode()
URL = "https://example.com/a.png"
REQUEST = {"kind": "faceswap", "source": URL, "target": {"url": URL, "media_type": "image/png"}}
COMFY = {"kind": "comfyui", "workflow": "invert", "inputs": {"image": URL}}
PROBLEM = "application/problem+json"
UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def submit(client, **changes):
    response = await client.post("/v1/jobs", json=REQUEST | changes)
    assert response.status_code == 202, response.text
    return response.json()


async def test_create_job_accepts_and_says_where_it_is(client):
    response = await client.post(
        "/v1/jobs", json=REQUEST | {"labels": {"project": "spring"}, "priority": 3, "output": {"resolution": "64x64"}}
    )
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"http://atelier.test/v1/jobs/{job['id']}" == job["links"]["self"]
    assert (job["status"], job["attempt"], job["labels"], job["priority"]) == ("queued", 0, {"project": "spring"}, 3)
    assert job["spec"] == {"kind": "faceswap", "source": {"url": URL}, "target": REQUEST["target"], "output": {"resolution": "64x64"}}
    assert abs(datetime.fromisoformat(job["created_at"]) - datetime.now(UTC)).total_seconds() < 60
    assert not {"owner", "lease_until", "tenant"} & job.keys()


async def test_create_job_of_a_workflow_by_name_or_by_graph(client):
    named = (await client.post("/v1/jobs", json=COMFY | {"priority": 3})).json()
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": URL}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    brought = (await client.post("/v1/jobs", json={"kind": "comfyui", "workflow": graph, "options": {"backend_tags": ["sdxl"]}})).json()
    assert (named["kind"], named["pool"], named["priority"]) == ("comfyui", "comfyui", 3)
    assert named["spec"]["media"]["image"]["reference"] == {"url": URL}
    assert brought["spec"]["media"]["1.image"]["reference"] == {"url": URL}
    assert brought["spec"]["options"]["backend_tags"] == ["sdxl"]


async def test_create_job_says_which_kinds_there_are(client):
    (error,) = (await client.post("/v1/jobs", json=REQUEST | {"kind": "facelift"})).json()["errors"]
    assert error == {"pointer": "/kind", "detail": "there are jobs of kind faceswap, face2face, reference and comfyui, and no other"}


async def test_create_job_names_the_nodes_that_comfyui_would_refuse(client, descriptions):
    number = {"required": {"x": ["INT", {"min": 0, "max": 9}], "mode": [["a", "b"], {}]}}
    descriptions.found = ObjectInfo.of({"Show": {"input": number, "output": [], "name": "Show", "output_node": True}})
    graph = {
        "1": {"class_type": "Show", "inputs": {"x": 10, "mode": "a"}, "_meta": {"title": "Last"}},
        "2": {"class_type": "Gone", "inputs": {}},
    }
    response = await client.post("/v1/jobs", json={"kind": "comfyui", "workflow": graph})
    problem = response.json()
    assert (response.status_code, problem["code"], problem["errors"]) == (422, "workflow_invalid", [])
    assert ("2", "", "missing_node_type") in {(node["comfy_node"], node["input"], node["kind"]) for node in problem["nodes"]}


async def test_create_job_points_at_an_input_that_the_workflow_has_no_place_for(client):
    problem = (await client.post("/v1/jobs", json=COMFY | {"inputs": {"image": URL, "sharpness": 1}})).json()
    assert [error["pointer"] for error in problem["errors"]] == ["/inputs/sharpness"]


@pytest.mark.parametrize("place", ["inputs", "overrides"])
async def test_create_job_refuses_what_no_answer_could_show(client, place):
    for value in ("\ud800", float("inf"), [{"a": "\udfff"}]):
        content = json.dumps(COMFY | {place: {"3.filename_prefix": value}})
        response = await client.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
        assert (response.status_code, [error["pointer"] for error in response.json()["errors"]]) == (422, [f"/{place}"])
    assert (await client.get("/v1/jobs")).status_code == 200


async def test_problem_is_readable_whatever_was_sent(client):
    response = await client.post(
        "/v1/jobs", content='{"kind": "comfyui", "workflow": "\\ud800"}', headers={"Content-Type": "application/json"}
    )
    assert (response.status_code, response.headers["content-type"]) == (422, PROBLEM)


async def test_read_job_of_a_workflow_shows_nodes_facts_and_details(client, store, next_job):
    job = (await client.post("/v1/jobs", json=COMFY)).json()
    await next_job("comfyui")
    await store.heartbeat(job["id"], 1, Progress(Stage.COMPUTING, 0.5, comfy_node="2", comfy_node_title="Invert", step=3, steps=9))
    progress = (await client.get(f"/v1/jobs/{job['id']}")).json()["progress"]
    assert {name: progress[name] for name in ("comfy_node", "comfy_node_title", "step", "steps")} == {
        "comfy_node": "2", "comfy_node_title": "Invert", "step": 3, "steps": 9,
    }  # fmt: skip
    output = Artifact(str(uuid.uuid4()), "r.png", "image/png", "local://artifacts/r.png", 3, "0" * 64, comfy_node="3", temporary=True)
    error = JobError("comfy_node_failed", "node 2 failed", details={"comfy_node": "2"})
    await store.fail(job["id"], 1, error, {}, (output,), {"backend": "gpu1"})
    shown = (await client.get(f"/v1/jobs/{job['id']}")).json()
    assert (shown["status"], shown["error"]["details"]) == ("failed", {"comfy_node": "2"})
    assert (shown["outputs"][0]["comfy_node"], shown["outputs"][0]["temporary"]) == ("3", True)
    assert shown["attempts"][0]["facts"] == {"backend": "gpu1"}


def test_parse_job_request_reads_every_kind():
    swap = parse_job_request({"source": URL, "target": URL, "priority": 2})
    comfy = parse_job_request(COMFY | {"options": {"previews": False}, "timeout_s": 9})
    assert (type(swap.to_spec()), swap.to_options().priority) == (FaceSwapSpec, 2)
    assert comfy.to_spec() == ComfySpec(workflow="invert", inputs={"image": URL}, options=ComfyOptions(previews=False))
    assert comfy.to_options().timeout_s == 9
    assert parse_job_request(comfy) == comfy


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"kind": "facelift"}, "/kind: there are jobs of kind faceswap, face2face, reference and comfyui"),
        ({"source": URL}, "/target: Field required"),
        ({"kind": "comfyui", "workflow": "a", "timeout_s": 0}, "/timeout_s: "),
        ("x", "the request: "),
        (None, "the request: "),
    ],
)
def test_parse_job_request_says_where_it_is_wrong(raw, said):
    with pytest.raises(InvalidInput, match=said):
        parse_job_request(raw)


async def test_create_job_replays_an_idempotency_key(client):
    first = await client.post("/v1/jobs", json=REQUEST, headers={"Idempotency-Key": "k"})
    again = await client.post("/v1/jobs", json=REQUEST, headers={"Idempotency-Key": "k"})
    other = await client.post("/v1/jobs", json=REQUEST | {"priority": 1}, headers={"Idempotency-Key": "k"})
    assert first.json()["id"] == again.json()["id"]
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_create_job_answers_a_taken_id_with_conflict(client):
    job = await submit(client, id=str(uuid.uuid4()))
    response = await client.post("/v1/jobs", json=REQUEST | {"id": job["id"], "priority": 1})
    assert (response.status_code, response.json()["code"]) == (409, "job_exists")


async def test_create_job_waits_as_preferred(client, store, next_job):
    posting = asyncio.create_task(client.post("/v1/jobs", json=REQUEST, headers={"Prefer": "respond-async, wait=5"}))
    job = await next_job()
    output = Artifact(str(uuid.uuid4()), "r.png", "image/png", "local://artifacts/r.png", 3, "0" * 64, 64, 48)
    await store.finish(job.id, 1, (output,), {"computing": 0.5})
    response = await posting
    shown = response.json()
    assert (response.status_code, response.headers["preference-applied"], shown["status"]) == (200, "wait=5", "succeeded")
    assert shown["outputs"][0]["url"] == f"http://atelier.test/v1/files/{output.file_id}"
    assert (shown["outputs"][0]["width"], shown["timings"]) == (64, {"computing": 0.5})
    assert shown["attempts"][0]["outcome"] == "succeeded"


async def test_create_job_answers_202_when_the_preferred_wait_is_over(client):
    response = await client.post("/v1/jobs", json=REQUEST, headers={"Prefer": "wait=0"})
    assert (response.status_code, response.headers["preference-applied"]) == (202, "wait=0")


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=0", "wait=0"),
        ('WAIT = "0"', "wait=0"),
        ("respond-async; wait=1, wait=0", "wait=0"),
        ("handling=lenient; wait=1", None),
        ('note="a, wait=1"', None),
        ("wait=soon", None),
        ("wait=0, wait=9", "wait=0"),
    ],
)
async def test_create_job_reads_preferences_as_the_rfc_says(client, prefer, applied):
    response = await client.post("/v1/jobs", json=REQUEST, headers={"Prefer": prefer})
    assert (response.status_code, response.headers.get("preference-applied")) == (202, applied)


async def test_create_job_says_how_long_it_really_waited(client, service, monkeypatch):
    monkeypatch.setattr(service, "_config", ServiceConfig(max_wait_s=0))
    response = await client.post("/v1/jobs", json=REQUEST, headers=[("Prefer", "respond-async"), ("Prefer", "wait=999999999")])
    assert (response.status_code, response.headers["preference-applied"]) == (202, "wait=0")


@pytest.mark.parametrize("path", ["", "/{ended}/retry"])
async def test_submit_answers_202_when_the_store_goes_away_while_waiting(client, store, feed, monkeypatch, path):
    async def away(*_):
        raise StoreUnavailable("away")

    ended = (await submit(client))["id"]
    await client.post(f"/v1/jobs/{ended}/cancel")
    monkeypatch.setattr(store, "history", away)
    monkeypatch.setattr(feed, "subscribe", lambda *_: (_ for _ in ()).throw(StoreUnavailable("away")))
    body = {} if path else {"json": REQUEST}
    response = await client.post(f"/v1/jobs{path.format(ended=ended)}", headers={"Prefer": "wait=5"}, **body)
    job = response.json()
    assert (response.status_code, job["status"]) == (202, "queued")
    assert response.headers["location"] == f"http://atelier.test/v1/jobs/{job['id']}"


async def test_create_job_refuses_more_than_the_pool_admits(client):
    for _ in range(5):
        await submit(client)
    response = await client.post("/v1/jobs", json=REQUEST)
    assert (response.status_code, response.json()["code"], response.headers["retry-after"]) == (429, "queue_full", "10")
    assert response.json()["retryable"] is True


async def test_create_job_names_one_fault_of_a_media_reference(client):
    for source, pointer in [
        ({"url": "ftp://example.com/a"}, "/source/url"),
        ({"uri": URL}, "/source"),
        (7, "/source"),
        ({"url": URL, "x": 1}, "/source/x"),
    ]:
        response = await client.post("/v1/jobs", json=REQUEST | {"source": source})
        assert [error["pointer"] for error in response.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"source": URL}, "/target"),
        (REQUEST | {"sauce": 1}, "/sauce"),
        (REQUEST | {"output": {"resolution": "9999x1"}}, "/output/resolution"),
        (REQUEST | {"priority": "high"}, "/priority"),
        (REQUEST | {"target": {"url": "ftp://example.com/a"}}, "/target/url"),
        (REQUEST | {"labels": {"a": 3}}, "/labels/a"),
        (REQUEST | {"kind": "facelift"}, "/kind"),
        (REQUEST | {"kind": 7}, "/kind"),
        (REQUEST | {"kind": "comfyui"}, "/source"),
        (REQUEST | {"faceswap": {"source": 1}, "source": 7}, "/source"),
        ({"kind": "comfyui"}, "/workflow"),
        ({"kind": "comfyui", "workflow": ""}, "/workflow"),
        ({"kind": "comfyui", "workflow": 7}, "/workflow"),
        (COMFY | {"options": {"backend_tags": ["Not A Tag"]}}, "/options/backend_tags/0"),
        (COMFY | {"timeout_s": 0}, "/timeout_s"),
        ([], ""),
    ],
)
async def test_create_job_points_at_what_is_wrong(client, body, pointer):
    response = await client.post("/v1/jobs", json=body)
    problem = response.json()
    assert (response.status_code, response.headers["content-type"], problem["code"]) == (422, PROBLEM, "invalid_input")
    assert pointer in [error["pointer"] for error in problem["errors"]]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"source": "http://127.0.0.1/a.png"}, 422, "url_not_allowed"),
        ({"source": UNKNOWN}, 404, "file_not_found"),
        ({"source": {"base64": "aGVsbG8gaGVsbG8=", "media_type": "image/png"}}, 415, "unsupported_media"),
        ({"source": {"base64": "A" * 8000, "media_type": "image/png"}}, 413, "media_too_large"),
        ({"source": {"base64": "A" * 30_000, "media_type": "image/png"}}, 413, "media_too_large"),
    ],
)
async def test_create_job_refuses_media_with_a_code(client, changes, status, code):
    response = await client.post("/v1/jobs", json=REQUEST | changes)
    assert (response.status_code, response.json()["code"], response.headers["content-type"]) == (status, code, PROBLEM)


@pytest.mark.parametrize(
    ("content", "media_type", "status", "code"),
    [
        ("{", "application/json", 400, "malformed_json"),
        ("{}", "text/plain", 415, "unsupported_media_type"),
        ("", "application/json", 422, "invalid_input"),
    ],
)
async def test_create_job_refuses_bodies_that_are_no_json(client, content, media_type, status, code):
    response = await client.post("/v1/jobs", content=content, headers={"Content-Type": media_type})
    assert (response.status_code, response.json()["code"], response.headers["content-type"]) == (status, code, PROBLEM)


async def chunks():
    yield b"{}"
    pytest.fail("a body of undeclared length was read on")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", ""), ("GET", ""), ("DELETE", f"/{UNKNOWN}"), ("POST", f"/{UNKNOWN}/cancel"), ("POST", f"/{UNKNOWN}/retry")],
)
async def test_jobs_refuse_a_body_of_undeclared_length_unread(client, method, path):
    response = await client.request(method, f"/v1/jobs{path}", content=chunks(), headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"], response.headers["content-type"]) == (411, "length_required", PROBLEM)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("HEAD", ""), ("DELETE", f"/{UNKNOWN}"), ("POST", f"/{UNKNOWN}/cancel"), ("POST", f"/{UNKNOWN}/retry")],
)
async def test_jobs_refuse_a_body_where_none_belongs(client, method, path):
    response = await client.request(method, f"/v1/jobs{path}", content=b"{}")
    assert (response.status_code, response.headers["content-type"]) == (413, PROBLEM)


async def test_create_job_refuses_a_length_that_no_body_has(client):
    response = await client.post("/v1/jobs", content=b"{}", headers={"Content-Length": "9" * 5000, "Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (413, "media_too_large")


@pytest.mark.parametrize("name", ["", "source", "output"])
async def test_create_job_answers_very_many_unknown_fields_with_one_error(client, name):
    unknown = {f"key{'x' * 100}{n}": n for n in range(100)}
    body = REQUEST | ({name: unknown | ({"url": URL} if name == "source" else {})} if name else unknown)
    response = await client.post("/v1/jobs", json=body)
    (error,) = response.json()["errors"]
    assert (response.status_code, error["pointer"]) == (422, f"/{name}" if name else "")
    assert error["detail"].count("keyxxx") == 3
    assert len(error["detail"]) < 250


async def test_create_job_counts_labels_before_it_reads_them(client):
    response = await client.post("/v1/jobs", json=REQUEST | {"labels": {f"?{n}": n for n in range(17)}})
    assert response.json()["errors"] == [{"pointer": "/labels", "detail": "a job has at most 16 labels"}]


async def test_create_job_shows_no_more_than_twenty_errors(client):
    response = await client.post(
        "/v1/jobs", json={"labels": {f"?{n}": n for n in range(16)}, "a": 1, "b": 1, "c": 1, "priority": "x", "timeout_s": "x"}
    )
    assert (response.status_code, 15 < len(response.json()["errors"]) <= 20) == (422, True)


async def test_read_job_shows_progress(client, store, next_job):
    job = await submit(client)
    await next_job()
    await store.heartbeat(job["id"], 1, Progress(Stage.COMPUTING, 0.5, 12, 24, 3.0))
    shown = (await client.get(f"/v1/jobs/{job['id']}")).json()
    assert shown["status"] == "running"
    frames = {"stage": "computing", "fraction": 0.5, "frame": 12, "frames": 24, "eta_s": 3.0, "message": None}
    assert shown["progress"] == frames | {"comfy_node": None, "comfy_node_title": None, "step": None, "steps": None}


async def test_read_job_waits_for_the_end(client, store, next_job):
    job = await submit(client)
    reading = asyncio.create_task(client.get(f"/v1/jobs/{job['id']}", params={"wait": 5}))
    await next_job()
    await store.fail(job["id"], 1, JobError("no_face_detected", "no face found in the source"), {})
    shown = (await reading).json()
    assert shown["error"] == {"code": "no_face_detected", "message": "no face found in the source", "retryable": False, "details": None}


@pytest.mark.parametrize("job_id", [UNKNOWN, "nonsense", "%00"])
async def test_read_job_answers_404_as_a_problem(client, job_id):
    response = await client.get(f"/v1/jobs/{job_id}")
    assert (response.status_code, response.json()["code"], response.headers["content-type"]) == (404, "job_not_found", PROBLEM)


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "soon"])
async def test_read_job_refuses_a_wait_that_is_none(client, wait):
    response = await client.get(f"/v1/jobs/{uuid.uuid4()}", params={"wait": wait})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "wait")


async def test_list_jobs_filters_and_pages(client):
    ids = [(await submit(client, labels={"project": "spring"}))["id"] for _ in range(3)]
    await submit(client, labels={"project": "autumn"})
    page = (await client.get("/v1/jobs", params={"label": "project:spring", "limit": 2})).json()
    rest = (await client.get("/v1/jobs", params={"label": "project:spring", "limit": 2, "cursor": page["next_cursor"]})).json()
    assert [job["id"] for job in page["jobs"] + rest["jobs"]] == ids[::-1]
    assert rest["next_cursor"] is None
    assert (await client.get("/v1/jobs", params={"status": "succeeded"})).json()["jobs"] == []
    assert len((await client.get("/v1/jobs", params={"kind": "faceswap", "status": "queued"})).json()["jobs"]) == 4


@pytest.mark.parametrize(
    "query",
    [
        {"cursor": "x"},
        {"cursor": CURSOR_OF_40_NINES},
        {"cursor": "LTE"},
        {"cursor": "ü"},
        {"limit": 0},
        {"status": "lost"},
        {"label": "noseparator"},
    ],
)
async def test_list_jobs_refuses_bad_queries(client, query):
    response = await client.get("/v1/jobs", params=query)
    assert (response.status_code, response.headers["content-type"]) == (422, PROBLEM)


async def test_cancel_job_ends_a_queued_one_at_once(client):
    job = await submit(client)
    response = await client.post(f"/v1/jobs/{job['id']}/cancel")
    assert (response.status_code, response.json()["status"]) == (200, "cancelled")


async def test_cancel_job_asks_a_running_one_to_stop(client, next_job):
    job = await submit(client)
    await next_job()
    response = await client.post(f"/v1/jobs/{job['id']}/cancel")
    assert (response.status_code, response.json()["status"], response.json()["cancel_requested"]) == (202, "running", True)


async def test_retry_job_makes_another(client):
    job = await submit(client)
    early = await client.post(f"/v1/jobs/{job['id']}/retry")
    await client.post(f"/v1/jobs/{job['id']}/cancel")
    response = await client.post(f"/v1/jobs/{job['id']}/retry")
    assert (early.status_code, early.json()["code"]) == (409, "job_not_terminal")
    assert (response.status_code, response.json()["retry_of"]) == (202, job["id"])
    assert response.headers["location"].endswith(response.json()["id"])


async def test_retry_job_replays_an_idempotency_key_although_the_old_job_is_gone(client):
    job = await submit(client)
    await client.post(f"/v1/jobs/{job['id']}/cancel")
    first = await client.post(f"/v1/jobs/{job['id']}/retry", headers={"Idempotency-Key": "k"})
    await client.delete(f"/v1/jobs/{job['id']}")
    again = await client.post(f"/v1/jobs/{job['id']}/retry", headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["id"], again.headers["idempotency-replayed"]) == (202, first.json()["id"], "true")
    assert "idempotency-replayed" not in first.headers


async def test_delete_job_removes_an_ended_one(client):
    job = await submit(client)
    early = await client.delete(f"/v1/jobs/{job['id']}")
    await client.post(f"/v1/jobs/{job['id']}/cancel")
    response = await client.delete(f"/v1/jobs/{job['id']}")
    assert (early.status_code, response.status_code, response.content) == (409, 204, b"")
    assert (await client.get(f"/v1/jobs/{job['id']}")).status_code == 404


async def test_a_job_chooses_among_the_stores_that_are_offered(app, client, next_job):
    body = {"source": "https://example.com/a", "target": "https://example.com/b", "storage": "gcs"}
    refused = await client.post("/v1/jobs", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
    assert "cannot be kept in gcs here" in refused.json()["detail"]
    app.state.service._config = ServiceConfig(storages=frozenset({"gcs"}))
    assert (await client.post("/v1/jobs", json=body)).status_code == 202
    assert (await next_job()).spec["storage"] == "gcs"
    assert (await client.post("/v1/jobs", json=body | {"storage": "floppy"})).status_code == 422
