"""ComfyUI as a script drives it that knows one server and trusts it: what the bridge is measured against."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

Graph = dict[str, Any]  # a prompt in API format
Workflow = Callable[[int], Graph]  # from a colour to a prompt that makes a picture of it

SIDE_PX = 32
COLOURS = 1 << 24


class FreshColours:
    """Colours that no job of this run has had, and hardly one of a run before: a server that has computed a node does not do it again."""

    def __init__(self) -> None:
        self._next = random.randrange(COLOURS)

    def take(self) -> int:
        """Return the next colour."""
        self._next = (self._next + 1) % COLOURS
        return self._next


def waiting_workflow(seconds: float) -> Workflow:
    """Return a workflow of a fake backend that computes nothing for a while."""

    def build(colour: int) -> Graph:
        return {
            "1": _empty_image(colour, SIDE_PX),
            "2": {"class_type": "FakeDelay", "inputs": {"image": ["1", 0], "seconds": seconds}},
            "3": _save_image("2"),
        }

    return build


def blurring_workflow(side_px: int) -> Workflow:
    """Return a workflow of nodes that every ComfyUI has: it blurs a square on the processor and keeps a small picture of it."""

    def build(colour: int) -> Graph:
        return {
            "1": _empty_image(colour, side_px),
            "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 10, "sigma": 3.0}},
            "4": {
                "class_type": "ImageScale",
                "inputs": {"image": ["2", 0], "upscale_method": "area", "width": SIDE_PX, "height": SIDE_PX, "crop": "disabled"},
            },
            "3": _save_image("4"),
        }

    return build


def hanging_prompt(colour: int) -> Graph:
    """Return a prompt that a fake backend is at until it is cancelled."""
    return {
        "1": _empty_image(colour, SIDE_PX),
        "2": {"class_type": "FakeHang", "inputs": {"image": ["1", 0]}},
        "3": _save_image("2"),
    }


def sampling_prompt(seed: int, steps: int) -> Graph:
    """Return a prompt that a fake backend takes steps for, and reports each."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "fake_sd15.safetensors"}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["1", 1]}},
        "5": {
            "class_type": "KSampler",
            "inputs": {
                "seed": seed,
                "steps": steps,
                "cfg": 7.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
                "model": ["1", 0],
                "positive": ["4", 0],
                "negative": ["4", 0],
                "latent_image": ["2", 0],
            },
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "3": _save_image("6"),
    }


def _empty_image(colour: int, side_px: int) -> Graph:
    return {"class_type": "EmptyImage", "inputs": {"width": side_px, "height": side_px, "batch_size": 1, "color": colour}}


def _save_image(source: str) -> Graph:
    return {"class_type": "SaveImage", "inputs": {"images": [source, 0], "filename_prefix": "bench"}}


class DirectClient:
    """One WebSocket for all prompts; each is posted, waited for, looked up and its picture fetched."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.client_id = str(uuid.uuid4())
        self._http = http
        self._url = url
        self._ends: dict[str, asyncio.Event] = {}

    async def run(self, graph: Graph) -> None:
        """Run one prompt until its picture is here.

        Raises:
            RuntimeError: it did not end well.
        """
        prompt_id = str(uuid.uuid4())
        self._ends[prompt_id] = asyncio.Event()
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": self.client_id}
        async with self._http.post(f"{self._url}/prompt", json=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"the prompt was answered {answer.status}: {await answer.text()}")
        await self._ends[prompt_id].wait()
        async with self._http.get(f"{self._url}/history/{prompt_id}") as answer:
            place = (await answer.json())[prompt_id]["outputs"]["3"]["images"][0]
        async with self._http.get(f"{self._url}/view", params=place, raise_for_status=True) as answer:
            await answer.read()

    async def listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Hear which prompts have ended."""
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                event = json.loads(message.data)
                data = event.get("data", {})
                if event["type"] == "executing" and data.get("node") is None and data.get("prompt_id") in self._ends:
                    self._ends.pop(data["prompt_id"]).set()


@contextlib.asynccontextmanager
async def direct_client(url: str) -> AsyncIterator[DirectClient]:
    """Connect to a server."""
    async with aiohttp.ClientSession() as http:
        client = DirectClient(http, url)
        async with http.ws_connect(f"{url}/ws", params={"clientId": client.client_id}, max_msg_size=0) as socket:
            listening = asyncio.create_task(client.listen(socket))
            try:
                yield client
            finally:
                listening.cancel()
                await asyncio.wait({listening})
