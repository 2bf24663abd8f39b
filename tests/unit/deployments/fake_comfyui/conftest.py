"""Fake backends, a client that records what it is told, and graphs."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import uuid

import aiohttp
import numpy as np
import pytest
from PIL import Image

from deployments.fake_comfyui.config import FakeConfig, Hazards
from deployments.fake_comfyui.server import FakeComfyUI

REAL = "ATELIER_REAL_COMFYUI"
PATIENCE_S = 10.0
CLOSE_SOON = aiohttp.ClientWSTimeout(ws_close=1.0)

_colours = itertools.count(int.from_bytes(os.urandom(2)) * 256)


class Comfy:
    """A client of one server: HTTP, and one socket whose messages it keeps."""

    def __init__(self, url):
        self.url = url
        self.session = aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(PATIENCE_S))
        self.client_id = uuid.uuid4().hex
        self.socket = None
        self.messages = []  # (event, data) and bytes

    async def connect(self, client_id=None, flags=None):
        self.client_id = client_id or self.client_id
        self.socket = await self.session.ws_connect(f"/ws?clientId={self.client_id}", max_msg_size=0, timeout=CLOSE_SOON)
        if flags is not None:
            await self.socket.send_json({"type": "feature_flags", "data": flags})
            await self.listen(lambda event, data: event == "feature_flags")
        else:
            await self.listen(lambda event, data: event == "status")
        return self

    async def close(self):
        if self.socket is not None:
            await self.socket.close()  # a dropped one too, or its connection counts as leaked
        await self.session.close()

    async def listen(self, until):
        """Record messages up to the one wanted, and return its data; a socket that ends gives None."""
        async with asyncio.timeout(PATIENCE_S):
            async for message in self.socket:
                if message.type is aiohttp.WSMsgType.BINARY:
                    self.messages.append(message.data)
                    continue
                body = json.loads(message.data)
                self.messages.append((body["type"], body["data"]))
                if until(body["type"], body["data"]):
                    return body["data"]
        return None

    async def listen_for(self, event, **fields):
        return await self.listen(lambda kind, data: kind == event and all(data.get(name) == value for name, value in fields.items()))

    def events(self):
        return [message[0] for message in self.messages if isinstance(message, tuple)]

    def binaries(self):
        return [message for message in self.messages if isinstance(message, bytes)]

    async def get(self, path, **params):
        async with self.session.get(path, params=params) as response:
            return response.status, await _read(response)

    async def post(self, path, body=None, **options):
        async with self.session.post(path, json=body, **options) as response:
            return response.status, await _read(response)

    async def submit(self, graph, **more):
        prompt_id = more.pop("prompt_id", None) or str(uuid.uuid4())
        owner = {} if self.socket is None else {"client_id": self.client_id}
        status, body = await self.post("/prompt", {"prompt": graph, "prompt_id": prompt_id, **owner, **more})
        assert status == 200, body
        return prompt_id

    async def history(self, prompt_id):
        return (await self.get(f"/history/{prompt_id}"))[1].get(prompt_id)

    async def wait(self, prompt_id):
        """Poll until the prompt has ended."""
        async with asyncio.timeout(PATIENCE_S):
            while (entry := await self.history(prompt_id)) is None:
                await asyncio.sleep(0.005)
        return entry

    async def run(self, graph, **more):
        """Run a graph to its end by events."""
        prompt_id = await self.submit(graph, **more)
        await self.listen_for("executing", node=None, prompt_id=prompt_id)
        return prompt_id, await self.history(prompt_id)

    async def wait_until_running(self, prompt_id):
        async with asyncio.timeout(PATIENCE_S):
            while prompt_id not in [item[1] for item in (await self.get("/queue"))[1]["queue_running"]]:
                await asyncio.sleep(0.005)

    async def upload(self, name, data, **fields):
        form = aiohttp.FormData()
        form.add_field("image", data, filename=name)
        for field, value in fields.items():
            form.add_field(field, value)
        async with self.session.post("/upload/image", data=form) as response:
            return response.status, await _read(response)

    async def view(self, item, **headers):
        async with self.session.get("/view", params=item, headers=headers) as response:
            return response.status, await response.read()


async def _read(response):
    return await response.json() if response.content_type == "application/json" else await response.text()


class Graphs:
    """Graphs that no server has seen before."""

    @staticmethod
    def image(width=64, height=64, batch_size=1):
        inputs = {"width": width, "height": height, "batch_size": batch_size, "color": next(_colours) % 0x1000000}
        return {"class_type": "EmptyImage", "inputs": inputs}

    def preview(self, **size):
        return {"1": self.image(**size), "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}

    def through(self, class_type, **inputs):
        """A picture through one node into a preview."""
        middle = {"class_type": class_type, "inputs": {"image": ["1", 0], **inputs}}
        return {"1": self.image(), "5": middle, "2": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}}}

    @staticmethod
    def sampler(seed=1, steps=3, text="a cat", size=128, denoise=1.0, latent=None):
        sampler = {"seed": seed, "steps": steps, "cfg": 7, "sampler_name": "euler", "scheduler": "normal", "denoise": denoise}
        links = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
        return {
            "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "fake_sd15.safetensors"}},
            "5": latent or {"class_type": "EmptyLatentImage", "inputs": {"width": size, "height": size, "batch_size": 1}},
            "6": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["4", 1]}},
            "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
            "3": {"class_type": "KSampler", "inputs": {**sampler, **links}},
            "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
            "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "s"}},
        }


@pytest.fixture
def graphs():
    return Graphs()


@pytest.fixture
async def start():
    """Start fakes, hazards given by name; they are stopped at the end."""
    started = []

    async def start(hazards=None, **config):
        fake = FakeComfyUI(FakeConfig(**({"step_s": 0.001} | config), hazards=Hazards(**(hazards or {}))))
        started.append(fake)
        await fake.start()
        return fake

    yield start
    for fake in started:
        await fake.stop()


@pytest.fixture
async def visit():
    """Make clients of a fake or of a URL."""
    clients = []

    async def visit(server, *, socket=True, **options):
        client = Comfy(server if isinstance(server, str) else server.url)
        clients.append(client)
        return await client.connect(**options) if socket else client

    yield visit
    for client in clients:
        await client.close()


@pytest.fixture
async def fake(start):
    return await start()


@pytest.fixture
async def comfy(fake, visit):
    return await visit(fake)


@pytest.fixture(params=["fake", "real"])
async def server(request, start, visit):
    """A connected client of the fake, and of a real server where there is one."""
    if request.param == "fake":
        return await visit(await start())
    url = os.environ.get(REAL)
    if not url:
        pytest.skip(f"{REAL} names no server")
    return await visit(url.rstrip("/"))


@pytest.fixture
def png():
    """Make a PNG of a flat colour, RGB or RGBA."""

    def png(colour=(200, 100, 50), size=(80, 48)):
        buffer = io.BytesIO()
        Image.fromarray(np.full((size[1], size[0], len(colour)), colour, np.uint8)).save(buffer, format="PNG")
        return buffer.getvalue()

    return png
