"""Server-sent events and the WebSocket."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest

from deployments.jobs.model import Preview, Progress, Stage

URL = "https://example.com/a.png"
REQUEST = {"source": URL, "target": URL}
UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def submit(client) -> str:
    return (await client.post("/v1/jobs", json=REQUEST)).json()["id"]


def parse_stream(text: str) -> list[dict[str, str]]:
    blocks = [block.splitlines() for block in text.split("\n\n") if block]
    return [dict(line.split(": ", 1) for line in block) for block in blocks]


async def test_follow_job_streams_states_until_the_end(client):
    job_id = await submit(client)
    following = asyncio.create_task(client.get(f"/v1/jobs/{job_id}/events"))
    await client.post(f"/v1/jobs/{job_id}/cancel")
    response = await following
    assert (response.status_code, response.headers["content-type"].split(";")[0]) == (200, "text/event-stream")
    retry, *events = parse_stream(response.text)
    assert retry == {"retry": "2000"}
    assert [(e["event"], json.loads(e["data"])["status"]) for e in events] == [("state", "queued"), ("state", "cancelled")]
    assert all(json.loads(e["data"])["id"] == e["id"] for e in events)


async def test_follow_job_resumes_after_the_last_event_id(client):
    job_id = await submit(client)
    await client.post(f"/v1/jobs/{job_id}/cancel")
    _, queued, cancelled = parse_stream((await client.get(f"/v1/jobs/{job_id}/events")).text)
    resumed = await client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": queued["id"]})
    over = await client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": cancelled["id"]})
    assert [e.get("id") for e in parse_stream(resumed.text)] == [None, cancelled["id"]]
    assert (over.status_code, over.content) == (204, b"")


async def test_follow_job_refuses_before_the_stream_begins(client):
    unknown = await client.get(f"/v1/jobs/{uuid.uuid4()}/events")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "job_not_found")


@pytest.mark.parametrize("event_id", ["yesterday", "1-", "1-1-1", "+1-1", "9" * 5000 + "-1", "1-" + "9" * 19])
async def test_follow_job_refuses_an_event_id_that_is_none(client, event_id):
    response = await client.get(f"/v1/jobs/{await submit(client)}/events", headers={"Last-Event-ID": event_id})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")


async def test_websocket_follows_named_jobs_to_their_end(client, websocket):
    job_id = await submit(client)
    async with websocket([("job_id", job_id)]) as peer:
        assert (await peer.receive())["type"] == "websocket.accept"
        assert (await peer.receive_json())["status"] == "queued"
        await client.post(f"/v1/jobs/{job_id}/cancel")
        assert (await peer.receive_json())["status"] == "cancelled"
        closed = await peer.receive()
        assert (closed["type"], closed["code"]) == ("websocket.close", 1000)


async def test_websocket_without_a_job_follows_all(client, websocket):
    async with websocket() as peer:
        await peer.receive()
        ids = {await submit(client), await submit(client)}
        assert {(await peer.receive_json())["job_id"] for _ in ids} == ids


async def test_websocket_resumes_after_an_event(client, websocket):
    job_id = await submit(client)
    await client.post(f"/v1/jobs/{job_id}/cancel")
    queued = parse_stream((await client.get(f"/v1/jobs/{job_id}/events")).text)[1]
    async with websocket([("job_id", job_id), ("after", queued["id"])]) as peer:
        await peer.receive()
        assert (await peer.receive_json())["status"] == "cancelled"


async def test_websocket_lets_go_when_the_client_leaves(websocket, feed):
    async with websocket() as peer:
        await peer.receive()
        await peer.disconnect()
    assert feed._subscriptions == set()


async def test_websocket_asks_to_be_reopened_when_the_feed_closes(websocket, feed):
    async with websocket() as peer:
        await peer.receive()
        await feed.close()
        assert (await peer.receive())["code"] == 1012


async def test_websocket_sends_previews_as_binary_messages_between_the_events(client, websocket, store, next_job):
    job_id = await submit(client)
    async with websocket([("job_id", job_id), ("previews", "1")]) as peer:
        assert (await peer.receive())["type"] == "websocket.accept"
        await next_job()
        assert [(await peer.receive_json())["status"] for _ in range(2)] == ["queued", "running"]
        while not await store.put_preview(Preview(job_id, 1, 0, "image/jpeg", b"\xff\xd8jpeg", "3")):
            await asyncio.sleep(0.005)
        frame = await peer.receive_bytes()
        length = int.from_bytes(frame[:4], "big")
        header = json.loads(frame[4 : 4 + length])
        n = header.pop("n")
        assert header == {"type": "preview", "job_id": job_id, "attempt": 1, "media_type": "image/jpeg", "comfy_node": "3"}
        assert (n > 0, frame[4 + length :]) == (True, b"\xff\xd8jpeg")
        await store.finish(job_id, 1, (), {})
        assert (await peer.receive_json())["status"] == "succeeded"
        closed = await peer.receive()
        assert (closed["type"], closed["code"]) == ("websocket.close", 1000)


async def test_websocket_waits_for_an_answer_to_each_preview_if_asked_to(client, websocket, store, next_job, preview_feed):
    job_id = await submit(client)
    await next_job()
    async with websocket([("job_id", job_id), ("previews", "1"), ("ack", "1")]) as peer:
        await peer.receive()
        assert [(await peer.receive_json())["status"] for _ in range(2)] == ["queued", "running"]
        while not await store.put_preview(Preview(job_id, 1, 0, "image/jpeg", b"1")):
            await asyncio.sleep(0.005)
        assert (await peer.receive_bytes()).endswith(b"1")
        (viewing,) = preview_feed._readers
        for n in range(2, 5):
            await store.put_preview(Preview(job_id, 1, 0, "image/jpeg", str(n).encode()))
        await store.heartbeat(job_id, 1, Progress(Stage.COMPUTING, 0.5))
        assert (await peer.receive_json())["type"] == "progress"
        async with asyncio.timeout(5):
            while not viewing._newest or viewing._newest[job_id].data != b"4":
                await asyncio.sleep(0.005)
        assert peer.from_app.empty()
        peer.to_app.put_nowait({"type": "websocket.receive", "text": "next"})
        assert (await peer.receive_bytes()).endswith(b"4")


async def test_websocket_without_previews_sends_none(client, websocket, store, next_job):
    job_id = await submit(client)
    await next_job()
    async with websocket([("job_id", job_id)]) as peer:
        await peer.receive()
        assert [(await peer.receive_json())["status"] for _ in range(2)] == ["queued", "running"]
        assert not await store.put_preview(Preview(job_id, 1, 0, "image/jpeg", b"jpeg"))


async def test_websocket_lets_go_of_previews_when_the_client_leaves(client, websocket, feed, preview_feed):
    async with websocket([("job_id", await submit(client)), ("previews", "1")]) as peer:
        await peer.receive()
        assert len(preview_feed._readers) == 1
        await peer.disconnect()
    assert (feed._subscriptions, preview_feed._readers) == (set(), set())


async def test_websocket_behind_a_slow_reader_waits_with_one_thing_at_a_time(client, app, store, next_job, websocket_peer):
    """Sends are never made at once; meanwhile previews replace each other, and what ended the job comes before the newest of them."""
    job_id = await submit(client)
    peer = websocket_peer(app, "/v1/events", [("job_id", job_id), ("previews", "1")], {"host": "atelier.test"}, room=1)
    await next_job()
    while not await store.put_preview(Preview(job_id, 1, 0, "image/jpeg", b"0")):
        await asyncio.sleep(0.005)
    for n in range(1, 50):
        await store.put_preview(Preview(job_id, 1, 0, "image/jpeg", str(n).encode()))
        await asyncio.sleep(0)
    await store.finish(job_id, 1, (), {})
    got = []
    while (message := await peer.receive())["type"] != "websocket.close":
        got.append(message)
    states = [json.loads(message["text"])["status"] for message in got if message.get("text")]
    assert states == ["queued", "running", "succeeded"]
    assert sum("bytes" in message for message in got) <= 1
    await asyncio.wait({peer.task})


@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
async def test_websocket_refuses_previews_of_all_jobs(app, websocket_peer, extensions):
    peer = websocket_peer(app, "/v1/events", [("previews", "1")], {"host": "atelier.test"}, extensions=extensions)
    refused = await peer.receive()
    if not extensions:
        assert (refused["type"], refused["code"], refused["reason"]) == ("websocket.close", 1008, "invalid_input")
    else:
        body = await peer.receive()
        assert (refused["status"], "add job_id" in json.loads(body["body"])["detail"]) == (422, True)
    await asyncio.wait({peer.task})


@pytest.mark.parametrize("query", [[("job_id", UNKNOWN)], [("after", "yesterday")], [("job_id", UNKNOWN), ("previews", "1")]])
async def test_websocket_refuses_what_it_cannot_follow(websocket, query):
    async with websocket(query) as peer:
        refused = await peer.receive()
        assert (refused["type"], refused["code"]) == ("websocket.close", 1008)


@pytest.mark.parametrize(
    ("origin", "answer"),
    [
        ("http://atelier.test", "websocket.accept"),
        ("https://studio.example", "websocket.accept"),
        ("https://evil.example", "websocket.close"),
        ("http://atelier.test:80", "websocket.accept"),
        ("http://atelier.test:81", "websocket.close"),
        ("http://[x", "websocket.close"),
        ("null", "websocket.close"),
    ],
)
async def test_websocket_checks_the_origin_of_web_pages(websocket, origin, answer):
    async with websocket(origin=origin) as peer:
        assert (await peer.receive())["type"] == answer
