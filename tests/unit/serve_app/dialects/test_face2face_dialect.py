"""Dialect E against an in-memory service: one request, one answer, and `success` in each."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from deployments.jobs.errors import DiskFull
from deployments.jobs.model import JobError, JobStatus

PATH = "/api/generate_video"
BODY = {"audio_url": "https://example.com/a.wav", "video_url": "https://example.com/v.mp4"}


def is_refusal(answer):
    body = answer.json()
    return set(body) == {"success", "error"} and body["success"] is False and bool(body["error"])


async def test_the_answer_is_the_video(client, next_job, store, finish):
    asking = asyncio.ensure_future(client.post(PATH, json=BODY))
    job = await next_job("face2face")
    assert (job.kind, job.spec["audio"], job.spec["video"]) == ("face2face", {"url": BODY["audio_url"]}, {"url": BODY["video_url"]})
    artifact = await finish(job, None)
    answer = await asking
    body = answer.json()
    assert (answer.status_code, body["success"], body["format"], body["size"]) == (200, True, "mp4", artifact.size_bytes)
    assert len(base64.b64decode(body["video_data"], validate=True)) == artifact.size_bytes
    assert int(answer.headers["content-length"]) == len(answer.content)


@pytest.mark.parametrize(
    ("code", "status"),
    [("no_face_detected", 422), ("media_too_large", 422), ("fetch_failed", 422), ("engine_failed", 500), ("job_timed_out", 504)],
)
async def test_a_failure_says_why(client, next_job, store, code, status):
    asking = asyncio.ensure_future(client.post(PATH, json=BODY))
    job = await next_job("face2face")
    await store.fail(job.id, job.attempt, JobError(code, "it did not work"), {})
    answer = await asking
    assert (answer.status_code, answer.json()) == (status, {"success": False, "error": "it did not work"})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"audio_url": "https://example.com/a.wav"}, 422),
        (BODY | {"video_url": "file:///etc/passwd"}, 422),
        (BODY | {"audio_url": "http://127.0.0.1/a.wav"}, 422),
        ([1], 422),
        ("x" * 30_000, 413),
    ],
)
async def test_what_cannot_be_asked_for_is_json_too(client, body, status):
    answer = await client.post(PATH, json=body)
    assert (answer.status_code, is_refusal(answer)) == (status, True), answer.text


async def test_broken_json_and_another_method_are_json_too(client):
    for answer in (await client.post(PATH, content=b"{"), await client.get(PATH)):
        assert is_refusal(answer), answer.text


async def test_inline_media_are_taken(client, next_job, store):
    wav = base64.b64encode(b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(24)).decode()
    asking = asyncio.ensure_future(client.post(PATH, json=BODY | {"audio_url": f"data:audio/wav;base64,{wav}"}))
    job = await next_job("face2face")
    assert set(job.spec["audio"]) == {"file_id"}
    await store.fail(job.id, job.attempt, JobError("engine_failed", "no"), {})
    assert is_refusal(await asking)


async def test_a_client_that_hangs_up_cancels_the_job(app, service, next_job):
    messages = [{"type": "http.request", "body": json.dumps(BODY).encode(), "more_body": False}]
    gone = asyncio.Event()

    async def receive():
        if messages:
            return messages.pop(0)
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(_message):
        pass

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http", "path": PATH}
    scope |= {"raw_path": PATH.encode(), "query_string": b"", "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}
    asking = asyncio.ensure_future(app({**scope, "root_path": ""}, receive, send))
    job = await next_job("face2face")
    gone.set()
    await asking
    async with asyncio.timeout(10):
        while not (await service.get(job.id)).cancel_requested:
            await asyncio.sleep(0.01)


async def test_a_request_that_waits_too_long_is_told_and_its_job_cancelled(app, client, service, store, next_job, monkeypatch):
    async def never():
        """The job may take as long as the request: on a busy machine the janitor could end it first, which is another way to a 504."""

    monkeypatch.setattr(store, "sweep", never)
    monkeypatch.setitem(app.state._state, "face2face_timeout_s", 1.0)
    asking = asyncio.ensure_future(client.post(PATH, json=BODY))
    job = await next_job("face2face")
    answer = await asking
    assert (answer.status_code, is_refusal(answer)) == (504, True)
    async with asyncio.timeout(10):
        while not (await service.get(job.id)).cancel_requested:
            await asyncio.sleep(0.01)
    assert (await service.get(job.id)).status is JobStatus.RUNNING  # until its worker hears of it


async def test_a_disk_that_is_full_takes_no_job_and_no_upload(client, service, monkeypatch):
    def full():
        raise DiskFull(100, 1024)

    monkeypatch.setattr(service, "_check_room", full)
    told = await client.post(PATH, json=BODY)
    assert (told.status_code, is_refusal(told)) == (507, True)
    native = await client.post("/v1/jobs", json={"kind": "face2face", "audio": BODY["audio_url"], "video": BODY["video_url"]})
    upload = await client.post("/v1/files", files={"file": ("a.png", b"\x89PNG\r\n\x1a\n")})
    assert [(answer.status_code, answer.json()["code"]) for answer in (native, upload)] == [(507, "disk_full")] * 2
    assert "1024 MiB are kept" in native.json()["detail"]
