"""The API over a real store on SQLite and a folder of objects, in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from fastapi import FastAPI

from deployments.jobs.capabilities import Capabilities, EngineInfo, LimitsInfo, MediaFormats, ModelInfo
from deployments.jobs.config import StoreConfig
from deployments.jobs.errors import UrlNotAllowed
from deployments.jobs.feed import EventFeed
from deployments.jobs.intake import IntakeLimits, MediaIntake
from deployments.jobs.model import Claim, Job
from deployments.jobs.ports import SystemClock
from deployments.jobs.service import JobService
from deployments.jobs.store import SqlJobStore
from deployments.storage.local import LocalStore
from deployments.storage.upload import upload_stream
from serve_app.api.app import create_api
from serve_app.api.config import ApiConfig

CAPABILITIES = Capabilities(
    engines=(
        EngineInfo(
            name="embedded",
            kind="faceswap",
            pool="faceswap",
            models=(ModelInfo(name="yunet", licence="MIT", commercial_use=True, source="OpenCV Zoo"),),
        ),
    ),
    formats=MediaFormats(read=("image/png",), write=("image/png",)),
    limits=LimitsInfo(upload_bytes=100_000, inline_bytes=5_000, body_bytes=20_000, wait_s=60),
)


def refuse_private(url: str) -> None:
    if "127.0.0.1" in url:
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
def service(store: SqlJobStore, feed: EventFeed, tmp_path: Path) -> JobService:
    objects = LocalStore(tmp_path / "objects")
    limits = IntakeLimits(upload_bytes=100_000, inline_bytes=5_000)
    intake = MediaIntake(store, objects, upload_stream, refuse_private, limits, SystemClock())
    return JobService(store=store, feed=feed, intake=intake, uploader=objects, reader=objects, capabilities=lambda: CAPABILITIES)


@pytest.fixture
def app(service: JobService) -> FastAPI:
    config = ApiConfig(
        max_body_bytes=20_000,
        max_upload_bytes=100_000,
        allowed_hosts=frozenset({"atelier.test"}),
        allowed_origins=frozenset({"https://studio.example"}),
    )
    return create_api(service, config)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://atelier.test") as client:
        yield client


@pytest.fixture
def next_job(store: SqlJobStore):
    async def claim() -> Job:
        job = await store.claim(Claim(str(uuid.uuid4()), "faceswap", "replica-1", wait_s=5))
        assert job is not None
        return job

    return claim


class WebSocketPeer:
    """The client's end of a WebSocket, spoken in ASGI messages."""

    def __init__(self, app: FastAPI, path: str, query: list[tuple[str, str]], headers: dict[str, str]) -> None:
        self.scope: dict[str, Any] = {
            "type": "websocket", "asgi": {"version": "3.0"}, "scheme": "ws", "path": path, "raw_path": path.encode(), "root_path": "",
            "query_string": urlencode(query).encode(), "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
            "subprotocols": [], "client": ("127.0.0.1", 1), "server": ("atelier.test", 80), "extensions": {},
        }  # fmt: skip
        self.to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.task = asyncio.create_task(app(self.scope, self.to_app.get, self.from_app.put))
        self.to_app.put_nowait({"type": "websocket.connect"})

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            return await self.from_app.get()

    async def receive_json(self) -> Any:
        message = await self.receive()
        assert message["type"] == "websocket.send", message
        return json.loads(message["text"])

    async def disconnect(self) -> None:
        self.to_app.put_nowait({"type": "websocket.disconnect", "code": 1001})
        async with asyncio.timeout(5):
            await self.task


@pytest.fixture
def websocket(app: FastAPI):
    @contextlib.asynccontextmanager
    async def connect(query: list[tuple[str, str]] | None = None, **headers: str) -> AsyncIterator[WebSocketPeer]:
        peer = WebSocketPeer(app, "/v1/events", query or [], {"host": "atelier.test", **headers})
        try:
            yield peer
        finally:
            peer.task.cancel()
            await asyncio.wait({peer.task})

    return connect
