"""Drawing through the whole graph: a fake ComfyUI paints, several people draw, and always the newest counts."""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from datetime import datetime

import httpx
import pytest
from PIL import Image, ImageDraw
from websockets.asyncio.client import connect

pytestmark = pytest.mark.serve

SETTINGS = {"steps": 3}
END_S = 60
ONLOOKERS = 100


def sketch(n: int) -> bytes:
    image = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(image).line([(0, n % 128), (127, (7 * n) % 128)], fill="black", width=4)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def framed(n: int, data: bytes) -> bytes:
    head = json.dumps({"style": "realistic", "settings": SETTINGS, "seq": n}).encode()
    return len(head).to_bytes(4, "big") + head + data


def header_of(message: str | bytes) -> dict:
    if isinstance(message, str):
        return json.loads(message)
    size = int.from_bytes(message[:4], "big")
    return json.loads(message[4 : 4 + size]) | {"picture": message[4 + size :]}


def socket_url(cluster, session_id: str) -> str:
    return f"{cluster.url.replace('http', 'ws')}/api/ws/{session_id}"


async def wait_for_picture(socket, seq: int) -> list[dict]:
    """Return what is heard until the picture of a sketch."""
    heard = []
    async with asyncio.timeout(END_S):
        async for message in socket:
            heard.append(header_of(message))
            if heard[-1]["status"] == "completed" and heard[-1]["seq"] >= seq:
                return heard
    raise AssertionError(f"the line was closed: {heard}")


async def test_one_request_leads_to_a_picture_that_the_socket_tells_of(cluster, api):
    accepted = api.post("/api/sketch", files={"file": ("s.png", sketch(3))}).json()
    async with connect(f"{cluster.url.replace('http', 'ws')}{accepted['websocket_url']}") as socket:
        heard = await wait_for_picture(socket, 1)
    assert {message["status"] for message in heard} <= {"processing", "completed"}
    result = api.get(heard[-1]["result_url"])
    assert Image.open(io.BytesIO(result.content)).size == (512, 512)


async def draw(cluster, api, n: int) -> list[dict]:
    async with connect(socket_url(cluster, uuid.uuid4().hex), max_size=2**24) as socket:
        await socket.send(json.dumps({"type": "hello", "binary": True, "previews": True}))
        for k in range(1, n + 1):
            await socket.send(framed(k, sketch(11 * k)))
            await asyncio.sleep(0.03)  # as fast as a hand is seen to move
        return await wait_for_picture(socket, n)


async def figures(api, received: int) -> dict:
    """Return what is said about drawing once so many sketches have been counted: the ingress reports once a second."""
    async with asyncio.timeout(END_S):
        while (drawn := api.get("/v1/stats").json()["drawing"])["received"] < received:
            await asyncio.sleep(0.1)
    return drawn


async def test_people_who_draw_see_the_newest_and_nothing_is_computed_in_vain(cluster, api):
    everybody = await asyncio.gather(*(draw(cluster, api, 40) for _ in range(3)))
    for heard in everybody:
        done = [message for message in heard if message["status"] == "completed"]
        numbers = [message["seq"] for message in done]
        assert numbers == sorted(set(numbers))
        assert len(numbers) < 40, "forty sketches in a second and a half are no forty pictures"
        assert not [message for message in heard if message["status"] == "error"]
        shown = [message["seq"] for message in heard if message["status"] in {"preview", "completed"}]
        assert shown == sorted(shown), "an older picture came after a newer one"
        assert Image.open(io.BytesIO(done[-1]["picture"])).size == (512, 512)
        jobs = [api.get(f"/v1/jobs/{message['job_id']}").json() for message in done]
        began = [datetime.fromisoformat(job["started_at"]) for job in jobs]
        assert began == sorted(began)
    assert any(message["status"] == "preview" for heard in everybody for message in heard)
    assert (await figures(api, received=120))["dropped"] > 0


async def test_onlookers_disturb_nobody(cluster, api):
    sockets = await asyncio.gather(*(connect(socket_url(cluster, uuid.uuid4().hex)) for _ in range(ONLOOKERS)))
    heard = await draw(cluster, api, 10)
    assert heard[-1]["seq"] == 10
    await asyncio.gather(*(socket.close() for socket in sockets))


def test_a_style_that_is_no_style_and_a_sketch_that_is_none(api):
    listed = api.get("/api/styles").json()
    assert {"realistic", "anime", "watercolor", "sketch"} <= set(listed["styles"])
    assert listed["problems"] == []
    refused = api.post("/api/sketch", files={"file": ("s.png", sketch(1))}, data={"style": "nothing"})
    assert (refused.status_code, refused.json()["code"]) == (httpx.codes.NOT_FOUND, "style_not_found")
    refused = api.post("/api/sketch", files={"file": ("s.png", b"nothing")})
    assert refused.status_code == httpx.codes.UNSUPPORTED_MEDIA_TYPE
