"""Dialect D over HTTP and its WebSocket, with a worker played by the test."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import uuid

import httpx
import pytest
from PIL import Image, ImageDraw

from deployments.jobs.errors import StoreUnavailable
from deployments.jobs.model import Artifact, JobError, Preview, Progress, Stage

TENANT = "default"
STYLE = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "sketch.png"}, "_meta": {"title": "Sketch"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "ink"}},
}
PICTURE = b"\x89PNG\r\n\x1a\n the picture"


def sketch(*, stroke=0, side=64, form="PNG", mode="RGB"):
    image = Image.new(mode, (side, side), "white" if mode == "RGB" else (0, 0, 0, 0))
    ImageDraw.Draw(image).line([(0, stroke), (side, stroke)], fill="black", width=4)
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def data_url(data):
    return "data:image/png;base64," + base64.b64encode(data).decode()


def framed(data, **header):
    head = json.dumps(header).encode()
    return len(head).to_bytes(4, "big") + head + data


def unframed(frame):
    size = int.from_bytes(frame[:4], "big")
    return json.loads(frame[4 : 4 + size]), frame[4 + size :]


def files_of_drawing(folder):
    return [path for path in (folder / "objects").rglob("*") if path.is_file() and {"sketches", "artifacts"} & set(path.parts)]


class Peer:
    """A client of the page or of the older service."""

    def __init__(self, peer):
        self._peer = peer

    async def opened(self):
        assert (await self._peer.receive())["type"] == "websocket.accept"
        return self

    def say(self, **message):
        self._peer.to_app.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    def say_text(self, text):
        self._peer.to_app.put_nowait({"type": "websocket.receive", "text": text})

    def say_bytes(self, frame):
        self._peer.to_app.put_nowait({"type": "websocket.receive", "bytes": frame})

    async def hear(self, *kinds):
        """Return the next message of some kinds; the others may come in between."""
        while True:
            message = await self._peer.receive()
            if message["type"] == "websocket.close":
                return message
            header, picture = unframed(message["bytes"]) if message.get("bytes") else (json.loads(message["text"]), b"")
            if not kinds or header["status"] in kinds:
                return header | ({"picture": picture} if picture else {})

    async def leave(self):
        await self._peer.disconnect()


@pytest.fixture
async def opened(app, websocket_peer):
    """Open a socket; all of them are left at the end."""
    peers = []

    async def go(session_id="a-session-of-mine", hello=None):
        peer = await Peer(websocket_peer(app, f"/api/ws/{session_id}", [], {"host": "atelier.test"})).opened()
        peers.append(peer)
        if hello is not None:
            peer.say(type="hello", **hello)
            peer.greeting = await peer.hear("connected")
        return peer

    yield go
    for peer in peers:
        await peer.leave()


@pytest.fixture
def work(store, objects, next_job):
    """Play the worker: claim a sketch and end it."""

    async def once(*, error=None, previews=(), picture=PICTURE, name="result.png"):
        job = await next_job("comfyui")
        for n, data in enumerate(previews):
            await store.heartbeat(job.id, job.attempt, Progress(Stage.COMPUTING, (n + 1) / (len(previews) + 1)))
            async with asyncio.timeout(5):
                while not await store.put_preview(Preview(job.id, job.attempt, 0, "image/jpeg", data)):
                    await asyncio.sleep(0.01)  # until somebody looks
        if error is not None:
            await store.fail(job.id, job.attempt, error, {})
            return job
        key = f"artifacts/{job.id}"
        await objects.put(key, "image/png", picture, hashlib.sha256(picture).hexdigest())
        stored = Artifact(str(uuid.uuid4()), name, "image/png", f"local://{key}", len(picture), "0" * 64)
        await store.finish(job.id, job.attempt, [stored], {})
        return job

    return once


async def send(client, data, **fields):
    return await client.post("/api/sketch", files={"file": ("sketch.png", data)}, data=fields)


# Over HTTP.


async def test_one_request_alone_leads_to_a_picture(client, work):
    answer = await send(client, sketch())
    accepted = answer.json()
    assert answer.status_code == httpx.codes.OK, answer.text
    assert accepted["status"] == "uploaded"
    assert accepted["message"] == "Sketch uploaded successfully"
    assert accepted["websocket_url"] == f"/api/ws/{accepted['session_id']}"
    waiting = await client.get(f"/api/result/{accepted['session_id']}")
    assert (waiting.status_code, waiting.json()["code"]) == (404, "no_result_yet")
    job = await work()
    assert job.kind == "sketch"
    assert job.spec["graph"]["2"]["inputs"]["denoise"] == 0.5
    result = await client.get(f"/api/result/{accepted['session_id']}")
    assert (result.status_code, result.content) == (200, PICTURE)
    assert result.headers["cache-control"] == "no-store"


async def test_settings_and_the_session_go_along(client, work):
    first = (await send(client, sketch(), session_id="my-own-session", settings='{"strength": 0.9, "seed": 3}')).json()
    again = (await send(client, sketch(stroke=20), session_id="my-own-session", style="ink")).json()
    assert (first["session_id"], first["seq"], again["seq"]) == ("my-own-session", 1, 2)
    assert again["job_id"] == first["job_id"], "it took the place of the one that waited"
    job = await work()
    assert job.spec["graph"]["2"]["inputs"]["denoise"] == 0.5


async def test_what_a_new_sketch_replaced_is_removed(client, objects, tmp_path):
    for stroke in (0, 20, 40):
        await send(client, sketch(stroke=stroke), session_id="my-own-session")
    async with asyncio.timeout(5):
        while len([path for path in (tmp_path / "objects").rglob("sketches/**/*") if path.is_file()]) != 1:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("data", "fields", "status", "code", "says"),
    [
        (b"no picture", {}, 415, "unsupported_media", "PNG, JPEG or WebP"),
        (sketch()[:60], {}, 415, "unsupported_media", "whole"),
        (sketch(side=601), {}, 413, "media_too_large", "600"),
        (b"x" * 60_001, {}, 413, "media_too_large", "MiB"),
        (sketch(), {"style": "cubism"}, 404, "style_not_found", "there is ink"),
        (sketch(), {"session_id": "short"}, 422, "invalid_input", "8 to 128"),
        (sketch(), {"session_id": "../../../etc/passwd"}, 422, "invalid_input", "8 to 128"),
        (sketch(), {"settings": "[1]"}, 422, "invalid_input", "JSON object"),
        (sketch(), {"settings": '{"strength": 3}'}, 422, "workflow_invalid", "strength"),
        (sketch(), {"settings": '{"sketch": "a.png"}'}, 422, "invalid_input", "as a picture"),
    ],
)
async def test_bad_sketches_are_refused_with_what_to_do(client, data, fields, status, code, says):
    answer = await send(client, data, **fields)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert says in answer.json()["detail"]


async def test_an_unknown_session_has_no_result(client):
    answer = await client.get("/api/result/nobody-has-drawn-here")
    assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")


async def test_a_session_whose_sketch_failed_says_so(client, work):
    session_id = (await send(client, sketch())).json()["session_id"]
    await work(error=JobError("comfy_node_failed", "the sampler broke", retryable=False))
    answer = await client.get(f"/api/result/{session_id}")
    assert (answer.json()["code"], "the sampler broke" in answer.json()["detail"]) == ("no_result_yet", True)


async def test_a_picture_that_a_setting_refers_to_is_checked_as_everywhere(client, workflows, work, intake, monkeypatch):
    monkeypatch.setattr("deployments.comfyui_bridge.workflow_folder.LOOK_S", 0.0)
    mask = {"class_type": "LoadImage", "inputs": {"image": "mask.png"}, "_meta": {"title": "Mask"}}
    (workflows / "styles" / "masked.json").write_text(json.dumps(STYLE | {"9": mask}))
    (workflows / "styles" / "masked.yaml").write_text("parameters: {mask: {type: image, bind: Mask.image}}")

    async def ask(reference):
        return await send(client, sketch(), style="masked", settings=json.dumps({"mask": reference}))

    for reference in ({"file_id": str(uuid.uuid4()), "key": "artifacts/a", "sha256": "0" * 64}, {"url": "http://127.0.0.1/x"}):
        assert (await ask(reference)).status_code in {403, 422}, reference
    uploaded = (await client.post("/v1/files", files={"file": ("m.png", sketch(stroke=9))})).json()["file_id"]
    assert (await ask({"file_id": uploaded})).status_code == 200
    media = (await work()).spec["media"]
    assert media["mask"]["reference"] == {"file_id": uploaded}
    assert {"key", "sha256"} < set(media["sketch"]["reference"])


async def test_styles_come_and_go_with_their_files(client, workflows, monkeypatch):
    monkeypatch.setattr("deployments.comfyui_bridge.workflow_folder.LOOK_S", 0.0)
    listed = (await client.get("/api/styles")).json()
    assert (listed["styles"], listed["problems"]) == (["ink"], [])
    assert listed["details"][0]["parameters"]["strength"] == {"type": "number", "default": 0.5, "minimum": 0, "maximum": 1}
    assert "sketch" not in listed["details"][0]["parameters"]
    folder = workflows / "styles"
    (folder / "broken.json").write_text("{")
    (folder / "blind.json").write_text(json.dumps({"1": {"class_type": "KSampler", "inputs": {}}}))
    (folder / "oil.json").write_text((folder / "ink.json").read_text())
    listed = (await client.get("/api/styles")).json()
    assert listed["styles"] == ["ink", "oil"]
    assert {problem["file"] for problem in listed["problems"]} == {"broken.json", "blind.json"}
    refused = await send(client, sketch(), style="blind")
    assert "no input for a picture" in refused.json()["detail"]


async def test_a_deleted_sketch_takes_its_files_along(client, work, tmp_path):
    job_id = (await send(client, sketch())).json()["job_id"]
    await work()
    assert len(files_of_drawing(tmp_path)) == 2
    assert (await client.delete(f"/v1/jobs/{job_id}")).status_code == 204
    assert files_of_drawing(tmp_path) == []


async def test_sketches_are_no_tasks_of_the_other_dialects(client):
    await send(client, sketch())
    assert (await client.get("/api/tasks")).json()["total"] == 0
    assert (await client.get("/api/stats")).json()["total"] == 0
    assert (await client.get("/v1/stats")).json()["by_kind"]["sketch"]["queued"] == 1
    assert (await client.get("/api/tasks", params={"type": "sketch"})).json()["total"] == 1
    assert len((await client.get("/v1/jobs")).json()["jobs"]) == 1


# Over the WebSocket, as the older page speaks.


async def test_the_older_page_sees_progress_and_the_picture(opened, work):
    peer = await opened("a-session-of-mine")
    peer.say(type="sketch_update", sketch_data=data_url(sketch()), style="ink")
    await work()
    assert (await peer.hear())["status"] == "processing"
    done = await peer.hear("completed")
    assert done["result_url"] == "/api/result/a-session-of-mine"
    assert done["seq"] == 1
    peer.say(type="sketch_update", sketch_data=base64.b64encode(sketch(stroke=30)).decode())
    await work()
    assert (await peer.hear("completed"))["result_url"] == "/api/result/a-session-of-mine?seq=2", "a browser keeps what it has shown"


async def test_who_comes_later_gets_the_last_picture(client, opened, work):
    session_id = (await send(client, sketch())).json()["session_id"]
    await work()
    for _ in range(2):
        assert (await (await opened(session_id)).hear())["status"] == "completed"


async def test_the_same_sketch_again_is_answered_with_the_picture_that_is_there(opened, work, store, drawing):
    peer = await opened()
    for _ in range(2):
        peer.say(type="sketch_update", sketch_data=data_url(sketch()))
        if not _:
            await work()
        assert (await peer.hear("completed"))["seq"] == 1
    await drawing.strokes.report()
    assert (await store.stats(TENANT)).drawing.skipped == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no json", "JSON object"),
        ("[]", "type"),
        ('{"type": "dance"}', "sketch_update, hello"),
        ('{"type": "sketch_update"}', "sketch_data"),
        ('{"type": "sketch_update", "sketch_data": "§§§"}', "no base64"),
        ('{"type": "sketch_update", "sketch_data": "data:image/png,abc"}', "data: URL"),
        ('{"type": "sketch_update", "sketch_data": ""}', "empty"),
        ('{"type": "sketch_update", "sketch_data": "AAAA", "seq": "7"}', "seq"),
        ('{"type": "sketch_update", "sketch_data": "AAAA", "seq": -1}', "seq"),
        ('{"type": "sketch_update", "sketch_data": "AAAA", "settings": 3}', "settings"),
        (json.dumps({"type": "sketch_update", "sketch_data": "A" * 90_000}), "at most 60000 bytes"),
        (json.dumps({"type": "sketch_update", "sketch_data": data_url(sketch(side=700))}), "600"),
        (json.dumps({"type": "sketch_update", "sketch_data": data_url(sketch()), "style": "cubism"}), "no style"),
        ("[" * 100_000, "JSON object"),
    ],
)
async def test_nonsense_is_answered_and_the_line_stays(opened, work, text, says):
    peer = await opened()
    peer.say_text(text)
    refused = await peer.hear()
    assert (refused["status"], says in refused["message"]) == ("error", True), refused
    peer.say(type="sketch_update", sketch_data=data_url(sketch()))
    await work()
    assert (await peer.hear("completed"))["seq"] == 1


async def test_a_session_id_that_can_be_guessed_is_refused(opened):
    peer = await opened("short")
    assert "8 to 128" in (await peer.hear())["message"]
    assert (await peer.hear())["code"] == 4400


# Frames, previews and numbers, as our own page speaks.


async def test_frames_go_both_ways(opened, work):
    peer = await opened(hello={"binary": True, "previews": True})
    assert peer.greeting == {"status": "connected", "session_id": "a-session-of-mine", "seq": 0}
    peer.say_bytes(framed(sketch(form="WEBP"), seq=41, style="ink", settings={"strength": 0.25}))
    assert (await peer.hear("accepted"))["seq"] == 41
    working = asyncio.create_task(work(previews=[b"first look"]))
    preview = await peer.hear("preview")
    assert (preview["seq"], preview["media_type"], preview["picture"]) == (41, "image/jpeg", b"first look")
    done = await peer.hear("completed")
    assert (done["seq"], done["media_type"], done["picture"]) == (41, "image/png", PICTURE)
    assert (await working).spec["graph"]["2"]["inputs"]["denoise"] == 0.25


async def test_previews_for_a_client_that_takes_json_only(opened, work):
    peer = await opened(hello={"previews": True})
    peer.say(type="sketch_update", sketch_data=data_url(sketch()))
    working = asyncio.create_task(work(previews=[b"look"]))
    preview = await peer.hear("preview")
    assert preview["preview"] == "data:image/jpeg;base64," + base64.b64encode(b"look").decode()
    await working


async def test_frames_are_negotiated(opened):
    peer = await opened()
    peer.say_bytes(framed(sketch()))
    assert "hello" in (await peer.hear())["message"]
    peer.say(type="hello", binary=True)
    await peer.hear("connected")
    for frame in (b"", b"\x00\x00\x00\x10{}", (10**9).to_bytes(4, "big") + b"{}", framed(b"")[:4] + b"x["):
        peer.say_bytes(frame)
        assert (await peer.hear("error"))["code"] == "invalid_input"


async def test_pictures_wait_for_a_client_that_acknowledges(opened, work):
    peer = await opened(hello={"binary": True, "ack": True})
    for n in range(3):
        peer.say_bytes(framed(sketch(stroke=20 * n), seq=n + 1))
        await peer.hear("accepted")
        await work()
        if n == 0:
            assert (await peer.hear("completed"))["seq"] == 1
    peer.say(type="ping")
    assert (await peer.hear("pong", "completed"))["status"] == "pong"
    peer.say(type="ack")
    assert (await peer.hear("completed"))["seq"] == 3, "2 is older than what is shown next"


async def test_numbers_rise_and_older_ones_change_nothing(opened, work, client):
    peer = await opened(hello={"binary": True})
    peer.say_bytes(framed(sketch(), seq=5))
    await peer.hear("accepted")
    other = await opened(hello={"binary": True})
    assert other.greeting["seq"] == 5
    other.say_bytes(framed(sketch(stroke=30), seq=4))
    skipped = await other.hear("skipped")
    assert (skipped["reason"], skipped["seq"], skipped["newest_seq"]) == ("older", 4, 5)
    await work()
    for one in (peer, other):
        assert (await one.hear("completed"))["seq"] == 5


async def test_unchanged_sketches_are_skipped_unless_forced(opened, work):
    peer = await opened(hello={"binary": True})
    peer.say_bytes(framed(sketch(), seq=1))
    await peer.hear("accepted")
    await work()
    await peer.hear("completed")
    peer.say_bytes(framed(sketch(form="WEBP"), seq=2))
    assert (await peer.hear("skipped", "accepted"))["reason"] == "unchanged"
    for seq, header in enumerate(({"force": True}, {"settings": {"seed": 8}}, {"style": "ink", "settings": {"seed": 8}}), start=3):
        peer.say_bytes(framed(sketch(), seq=seq, **header))
        assert (await peer.hear("skipped", "accepted"))["status"] == "accepted"


async def test_a_sketch_that_failed_may_be_sent_again(opened, work):
    peer = await opened(hello={"binary": True})
    peer.say_bytes(framed(sketch(), seq=1))
    await peer.hear("accepted")
    await work(error=JobError("comfy_node_failed", "no memory", retryable=False))
    failed = await peer.hear("error")
    assert (failed["message"], failed["code"], failed["seq"]) == ("no memory", "comfy_node_failed", 1)
    peer.say_bytes(framed(sketch(), seq=2))
    assert (await peer.hear("skipped", "accepted"))["status"] == "accepted"


async def test_a_style_without_a_picture_says_so(opened, work, store, next_job):
    peer = await opened(hello={"binary": True})
    peer.say_bytes(framed(sketch(), seq=1))
    await peer.hear("accepted")
    job = await next_job("comfyui")
    await store.finish(job.id, job.attempt, [], {})
    assert "SaveImage" in (await peer.hear("error"))["message"]


async def test_who_finds_no_seat_is_told_the_place_and_gets_one_later(opened, store, work, monkeypatch):
    monkeypatch.setattr("deployments.drawing.conversation.ASK_AGAIN_S", 0.02)
    store._admission._seats = 1
    first = await opened("the-first-session", hello={})
    first.say(type="sketch_update", sketch_data=data_url(sketch()))
    await first.hear("accepted")
    second = await opened("the-second-session", hello={})
    second.say(type="sketch_update", sketch_data=data_url(sketch()))
    refused = await second.hear("error")
    assert (refused["code"], refused["place"]) == ("sessions_full", 1)
    assert "number 1 in line" in refused["message"]
    store._admission.leave((TENANT, "the-first-session"))
    assert (await second.hear("accepted"))["seq"] == 1


async def test_a_sketch_outlives_a_store_that_is_away(opened, drawing, work, monkeypatch):
    monkeypatch.setattr("deployments.drawing.conversation.ASK_AGAIN_S", 0.02)
    create, failures = drawing.sessions.create_latest, [StoreUnavailable("restarting")] * 2

    async def away(*arguments):
        if failures:
            raise failures.pop()
        return await create(*arguments)

    monkeypatch.setattr(drawing.sessions, "create_latest", away)
    peer = await opened(hello={})
    peer.say(type="sketch_update", sketch_data=data_url(sketch()))
    assert (await peer.hear("error"))["code"] == "store_unavailable"
    assert (await peer.hear("accepted"))["seq"] == 1
    await work()
    assert (await peer.hear("completed"))["seq"] == 1


async def test_a_session_in_which_nobody_draws_ends(opened, drawing):
    drawing.config = drawing.config.model_copy(update={"idle_s": 0.05})
    peer = await opened()
    assert (await peer.hear())["code"] == "session_expired"
    assert (await peer.hear())["code"] == 4408


async def test_a_client_that_comes_while_the_store_is_away_is_told_to_come_again(opened, drawing, monkeypatch):
    async def away(*arguments):
        raise StoreUnavailable("restarting")

    monkeypatch.setattr(drawing.sessions, "session", away)
    peer = await opened()
    peer.say(type="hello")
    assert (await peer.hear("error"))["code"] == "store_unavailable"
    assert (await peer.hear())["code"] == 1013


async def test_a_client_is_sent_to_another_replica_when_this_one_ends(opened, feed):
    peer = await opened(hello={})
    await feed.close()
    assert (await peer.hear())["code"] == 1012


async def test_figures(opened, work, store, drawing, client):
    peer = await opened(hello={"binary": True, "previews": True})
    peer.say_bytes(framed(sketch(), seq=1))
    await peer.hear("accepted")
    await work(previews=[b"look"])
    await peer.hear("completed")
    peer.say_bytes(framed(b"nothing", seq=2))
    await peer.hear("error")
    await drawing.strokes.report()
    drawn = (await client.get("/v1/stats")).json()["drawing"]
    assert (drawn["received"], drawn["refused"], drawn["dropped"], drawn["skipped"]) == (2, 1, 0, 0)
    assert 0 < drawn["to_preview_p50_s"] < drawn["to_result_p50_s"] < 5


async def test_what_is_too_old_is_swept(client, work, store, drawing, objects, tmp_path):
    session_id = None
    for n in range(3):
        answer = await send(client, sketch(stroke=20 * n), **({"session_id": session_id} if session_id else {}))
        session_id = answer.json()["session_id"]
        await work()
    assert len(files_of_drawing(tmp_path)) == 6, "a sketch and a picture each"
    drawing.config = drawing.config.model_copy(update={"rows_s": 0.0, "results_s": 100.0})
    assert await drawing.sweep() == 2
    assert (await client.get(f"/api/result/{session_id}")).content == PICTURE
    drawing.config = drawing.config.model_copy(update={"results_s": 0.0})
    assert await drawing.sweep() == 1
    assert (await client.get(f"/api/result/{session_id}")).json()["code"] == "session_not_found"
    assert files_of_drawing(tmp_path) == []
    assert (await store.stats(TENANT)).by_kind == {}


async def test_an_installation_without_workflows_says_so(app, client):
    app.state.drawing = None
    answer = await client.get("/api/styles")
    assert (answer.status_code, "comfyui pool" in answer.json()["detail"]) == (404, True)
