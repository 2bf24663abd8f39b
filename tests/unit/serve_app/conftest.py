"""The API over a real store on SQLite and a folder of objects, in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from fastapi import FastAPI

from deployments.comfyui_bridge.catalogue import WorkflowCatalogue
from deployments.comfyui_bridge.desk import ComfyDesk
from deployments.comfyui_bridge.planner import ComfyPlanner
from deployments.comfyui_bridge.servers import ComfyServers
from deployments.comfyui_client.config import ClientConfig
from deployments.drawing.binder import SketchBinder
from deployments.drawing.config import DrawingConfig
from deployments.drawing.desk import DrawingDesk, DrawingParts
from deployments.drawing.styles import StyleBook
from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.engines.marking.inspection import inspect
from deployments.engines.media.header import check_header
from deployments.engines.media.limits import MediaLimits
from deployments.jobs.capabilities import Capabilities, EngineInfo, LimitsInfo, MediaFormats, ModelInfo
from deployments.jobs.config import StoreConfig
from deployments.jobs.direct_uploads import DirectUploads
from deployments.jobs.errors import UrlNotAllowed
from deployments.jobs.feed import EventFeed
from deployments.jobs.intake import IntakeLimits, MediaIntake
from deployments.jobs.model import BackendState, Claim, Job
from deployments.jobs.ports import SystemClock
from deployments.jobs.preview_feed import PreviewFeed
from deployments.jobs.service import JobService
from deployments.jobs.store import SqlJobStore
from deployments.jobs.verification import Verification
from deployments.storage.address import AllowList
from deployments.storage.local import LocalStore
from deployments.storage.upload import upload_stream
from serve_app.api.app import build_app
from serve_app.api.config import ApiConfig
from serve_app.dialects.chosen import build_dialects
from serve_app.dialects.config import DialectsConfig

CAPABILITIES = Capabilities(
    engines=(
        EngineInfo(
            name="embedded",
            kind="faceswap",
            pool="faceswap",
            models=(ModelInfo(name="yunet", licence="MIT", commercial_use=True, source="OpenCV Zoo"),),
        ),
        EngineInfo(name="mesh", kind="face2face", pool="face2face"),
        EngineInfo(name="mesh", kind="reference", pool="face2face"),
        EngineInfo(name="bridge", kind="comfyui", pool="comfyui"),
    ),
    formats=MediaFormats(read=("image/png",), write=("image/png",)),
    limits=LimitsInfo(upload_bytes=100_000, inline_bytes=5_000, body_bytes=20_000, wait_s=60),
)

INVERT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "there.png"}, "_meta": {"title": "Picture"}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "inverted", "quality": 90}},
}
INVERT_YAML = """\
title: Invert
description: a negative
tags: [image]
parameters:
  image: {type: image, bind: Picture.image, required: true, description: what to invert}
  quality: {type: integer, bind: 3.quality, default: 90, minimum: 1, maximum: 100}
"""


STYLE = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "sketch.png"}, "_meta": {"title": "Sketch"}},
    "2": {"class_type": "KSampler", "inputs": {"latent_image": ["1", 0], "seed": 7, "denoise": 0.5}, "_meta": {"title": "Sampler"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "ink"}, "_meta": {"title": "Picture"}},
}
STYLE_YAML = """\
title: Ink
description: black on white
parameters:
  seed: {type: seed, bind: Sampler.seed, default: 7}
  strength: {type: number, bind: Sampler.denoise, default: 0.5, minimum: 0, maximum: 1}
outputs: [Picture]
"""


async def describe() -> Capabilities:
    return CAPABILITIES


class StubDescriptions:
    """Implements what the desk and the planner ask :class:`Descriptions` for, without a server."""

    def __init__(self, store: SqlJobStore) -> None:
        self._store = store
        self.found: ObjectInfo | None = None

    async def backends(self) -> tuple[BackendState, ...]:
        return await self._store.backends()

    async def info(self, tags: tuple[str, ...] = ()) -> ObjectInfo | None:
        return self.found


PICTURES = MediaLimits(max_pixels=1_000_000, max_side_px=2000)
INTAKE_LIMITS = IntakeLimits(upload_bytes=100_000, inline_bytes=5_000)


def refuse_private(url: str) -> None:
    if "127.0.0.1" in url or url.startswith(("s3:", "gs:")):
        raise UrlNotAllowed("not a public address")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlJobStore]:
    store = SqlJobStore(StoreConfig(database_url=f"sqlite:///{tmp_path / 'jobs.db'}", max_queued=5))
    await store.start()
    yield store
    await store.close()


@pytest.fixture
async def feed(store: SqlJobStore) -> AsyncIterator[EventFeed]:
    feed = EventFeed(store, poll_s=0.05)
    feed.start()
    yield feed
    await feed.close()


@pytest.fixture
async def preview_feed(store: SqlJobStore) -> AsyncIterator[PreviewFeed]:
    feed = PreviewFeed(store, poll_s=0.05)
    feed.start()
    yield feed
    await feed.close()


@pytest.fixture
def objects(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "objects")


@pytest.fixture
def intake(store: SqlJobStore, objects: LocalStore) -> MediaIntake:
    return MediaIntake(store, objects, upload_stream, refuse_private, INTAKE_LIMITS, SystemClock(), partial(check_header, limits=PICTURES))


@pytest.fixture
def workflows(tmp_path: Path) -> Path:
    """The folder of shipped workflows: one that is described, and one that cannot be read."""
    folder = tmp_path / "workflows"
    folder.mkdir()
    (folder / "invert.json").write_text(json.dumps(INVERT))
    (folder / "invert.yaml").write_text(INVERT_YAML)
    (folder / "broken.json").write_text("{")
    styles = folder / "styles"
    styles.mkdir()
    (styles / "ink.json").write_text(json.dumps(STYLE))
    (styles / "ink.yaml").write_text(STYLE_YAML)
    return folder


@pytest.fixture
def catalogue(workflows: Path, store: SqlJobStore) -> WorkflowCatalogue:
    return WorkflowCatalogue(workflows, store)


@pytest.fixture
def descriptions(store: SqlJobStore) -> StubDescriptions:
    return StubDescriptions(store)


@pytest.fixture
def planner(catalogue: WorkflowCatalogue, descriptions: StubDescriptions, intake: MediaIntake) -> ComfyPlanner:
    return ComfyPlanner(catalogue, descriptions, intake, managed_tags=frozenset({"sdxl"}))


@pytest.fixture
def desk(catalogue: WorkflowCatalogue, descriptions: StubDescriptions, planner: ComfyPlanner, store: SqlJobStore) -> ComfyDesk:
    return ComfyDesk(catalogue, descriptions, planner, store, ComfyServers(descriptions, ClientConfig()), AllowList.parse(["gpu2"]))


@pytest.fixture
async def drawing(
    workflows: Path, store: SqlJobStore, feed: EventFeed, preview_feed: PreviewFeed, objects: LocalStore, planner: ComfyPlanner
) -> AsyncIterator[DrawingDesk]:
    styles = StyleBook(workflows / "styles", planner)
    config = DrawingConfig(max_bytes=60_000, max_side_px=600, sweep_s=3600)
    parts = DrawingParts(
        store=store, sessions=store, feed=feed, previews=preview_feed, uploader=objects, reader=objects, styles=styles,
        binder=SketchBinder(styles, planner), limits=MediaLimits(), check_room=lambda: None, config=config,
    )  # fmt: skip
    desk = DrawingDesk(parts)
    desk.start()
    yield desk
    await desk.close()


@pytest.fixture
def service(
    store: SqlJobStore, feed: EventFeed, preview_feed: PreviewFeed, intake: MediaIntake, objects: LocalStore, planner: ComfyPlanner
) -> JobService:
    return JobService(
        store=store,
        feed=feed,
        previews=preview_feed,
        intake=intake,
        uploader=objects,
        reader=objects,
        capabilities=describe,
        planners={"comfyui": planner},
    )


@pytest.fixture(scope="session")
def built_app() -> FastAPI:
    """The application without a service, built once: its routes take a tenth of a second, a test often less."""
    config = ApiConfig(
        max_body_bytes=20_000,
        max_upload_bytes=100_000,
        allowed_hosts=frozenset({"atelier.test"}),
        allowed_origins=frozenset({"https://studio.example"}),
    )
    return build_app(config, build_dialects(DialectsConfig()))


@pytest.fixture
def app(
    built_app: FastAPI, service: JobService, desk: ComfyDesk, drawing: DrawingDesk, store: SqlJobStore, objects: LocalStore, tmp_path: Path
) -> FastAPI:
    built_app.state.verification = Verification(inspect, tmp_path / "verified", max_bytes=50_000)
    built_app.state.signer = built_app.state.hooks = built_app.state.object_watch = None
    built_app.state.direct = DirectUploads(store, objects, objects, INTAKE_LIMITS, SystemClock())
    built_app.state.service, built_app.state.comfy, built_app.state.drawing = service, desk, drawing
    return built_app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://atelier.test") as client:
        yield client


@pytest.fixture
def next_job(store: SqlJobStore):
    async def claim(pool: str = "faceswap") -> Job:
        job = await store.claim(Claim(str(uuid.uuid4()), pool, "replica-1", wait_s=5))
        assert job is not None
        return job

    return claim


class WebSocketPeer:
    """The client's end of a WebSocket, spoken in ASGI messages."""

    def __init__(
        self,
        app: FastAPI,
        path: str,
        query: list[tuple[str, str]],
        headers: dict[str, str],
        *,
        room: int = 0,
        extensions: dict[str, Any] | None = None,
    ) -> None:
        self.scope: dict[str, Any] = {
            "type": "websocket", "asgi": {"version": "3.0"}, "scheme": "ws", "path": path, "raw_path": path.encode(), "root_path": "",
            "query_string": urlencode(query).encode(), "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
            "subprotocols": [], "client": ("127.0.0.1", 1), "server": ("atelier.test", 80), "extensions": extensions or {},
        }  # fmt: skip
        self.to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue(room)  # a full one holds the sender up, as a network does
        self.task = asyncio.create_task(app(self.scope, self.to_app.get, self.from_app.put))
        self.to_app.put_nowait({"type": "websocket.connect"})

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            return await self.from_app.get()

    async def receive_json(self) -> Any:
        message = await self.receive()
        assert message["type"] == "websocket.send", message
        return json.loads(message["text"])

    async def receive_bytes(self) -> bytes:
        message = await self.receive()
        assert message["type"] == "websocket.send", message
        return message["bytes"]

    async def disconnect(self) -> None:
        self.to_app.put_nowait({"type": "websocket.disconnect", "code": 1001})
        async with asyncio.timeout(5):
            await self.task


@pytest.fixture
def websocket_peer() -> type[WebSocketPeer]:
    return WebSocketPeer


@pytest.fixture
def websocket(app: FastAPI):
    @contextlib.asynccontextmanager
    async def connect(query: list[tuple[str, str]] | None = None, path: str = "/v1/events", **headers: str) -> AsyncIterator[WebSocketPeer]:
        peer = WebSocketPeer(app, path, query or [], {"host": "atelier.test", **headers})
        try:
            yield peer
        finally:
            peer.task.cancel()
            await asyncio.wait({peer.task})

    return connect
