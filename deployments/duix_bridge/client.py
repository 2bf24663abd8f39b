"""The HTTP side of one Duix service: its two routes as methods, each answer as a value.

It answers 200 whatever happened, as JSON that calls itself ``text/html``, and says ``success: true`` of a refusal: only the number in
``code`` counts. Asking for a task that has ended makes the service forget it, so that answer comes once.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from deployments.duix_bridge.config import DuixConfig, DuixOptions, UpstreamSpec
from deployments.jobs.errors import BackendLost, EngineFailed, MediaTooLarge, OutputsLost

CHUNK_BYTES = 256 * 1024
BROKEN = (httpx.HTTPError, httpx.InvalidURL, TimeoutError, AttributeError)  # the last one is anyio's, of a connection reset at once
SHOWN_REASON = 200  # characters of what the service says
INSIDE = re.compile(r"\S*[/\\]\S*|\d+\.\d+\.\d+\.\d+\S*")  # paths and addresses of the service's machine
DEAD = re.compile(r"queue.{0,8}full", re.IGNORECASE)  # "driver queue full": it takes no task any more until it is restarted


class Code(IntEnum):
    """Numbers of the service's envelope."""

    OK = 10000
    BUSY = 10001
    BAD_PARAMETER = 10002
    LOCK_ERROR = 10003
    NO_SUCH_TASK = 10004
    DUPLICATE = 10005  # of a fork: the task runs already
    SYSTEM_ERROR = 9999


class UpstreamBusy(Exception):
    """It has a task and takes no other."""


class UpstreamDead(BackendLost):
    """It answers, but takes no task until somebody restarts it."""


@dataclass(frozen=True, slots=True)
class TaskState:
    """What the service says of a task."""

    status: int
    progress: float  # 0..100, as it says: it may jump back
    message: str

    @property
    def done(self) -> bool:
        """Whether it has succeeded."""
        return self.status == 2

    @property
    def failed(self) -> bool:
        """Whether it has failed."""
        return self.status == 3


class DuixClient:
    """One service. Every method raises ``BackendLost`` when it does not answer as a Duix service does."""

    def __init__(self, spec: UpstreamSpec, config: DuixConfig) -> None:
        """Prepare; nothing is sent."""
        self._name = spec.name
        self._config = config
        timeout = httpx.Timeout(config.request_timeout_s, connect=config.connect_timeout_s)
        self._client = httpx.AsyncClient(timeout=timeout, trust_env=False, follow_redirects=False, headers={"Accept-Encoding": "identity"})
        self._url = spec.url

    async def close(self) -> None:
        """Drop the connections."""
        await self._client.aclose()

    async def submit(self, code: str, audio: str, video: str, options: DuixOptions) -> None:
        """Send a task; it may be sent again under its code.

        Args:
            code: names the task.
            audio: URL, or path as the service sees it.
            video: same.
            options: of the task.

        Raises:
            UpstreamBusy: it has another task.
            UpstreamDead: it has to be restarted.
            EngineFailed: it refuses the task.
        """
        body = {"audio_url": audio, "video_url": video, "code": code, **options.as_flags()}
        answer = await self._ask("POST", "/easy/submit", json=body)
        self._check_alive(answer.text)
        match answer.code:
            case Code.OK | Code.DUPLICATE:
                return
            case Code.BUSY | Code.LOCK_ERROR:
                raise UpstreamBusy(self._name)
            case _:
                raise EngineFailed(f"the Duix service {self._name} refuses the task: {shown(answer.text)}")

    async def query(self, code: str) -> TaskState | None:
        """Look at a task; None when the service knows none of that code. It forgets a task whose end it has told.

        Raises:
            UpstreamDead: it has to be restarted.
        """
        answer = await self._ask("GET", "/easy/query", params={"code": code})
        if answer.code == Code.NO_SUCH_TASK:
            return None
        status, progress = answer.data.get("status"), answer.data.get("progress")
        if answer.code != Code.OK or not isinstance(status, int):
            self._check_alive(answer.text)
            raise self._foreign()
        text = str(answer.data.get("msg") or answer.text)
        if status == 3:
            self._check_alive(text)
        return TaskState(status, float(progress) if isinstance(progress, int | float) else 0.0, text)

    async def probe(self) -> None:
        """Ask for a task that cannot be there: there is no other sign of life."""
        if await self.query(f"probe-{uuid4().hex}") is not None:
            raise self._foreign()

    async def download(self, url: str, path: Path) -> None:
        """Stream a result into a file, which is not there when this raises.

        Raises:
            OutputsLost: there is no such file.
            MediaTooLarge: it is longer than is taken.
        """
        try:
            await self._stream(url, path)
        except BROKEN as error:
            path.unlink(missing_ok=True)
            raise self._lost(error) from None
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    async def _stream(self, url: str, path: Path) -> None:
        size = 0
        async with self._client.stream("GET", url) as response:
            if response.status_code == HTTPStatus.NOT_FOUND:
                raise OutputsLost(f"the Duix service {self._name} no longer has the video")
            if response.status_code != HTTPStatus.OK:
                raise BackendLost(f"the results of the Duix service {self._name} are answered with {response.status_code}")
            with path.open("wb") as file:
                async for chunk in response.aiter_raw(CHUNK_BYTES):
                    size += len(chunk)
                    if size > self._config.max_result_bytes:
                        raise MediaTooLarge("the video is longer than is taken: ATELIER_DUIX__MAX_RESULT_BYTES")
                    await asyncio.to_thread(file.write, chunk)

    async def _ask(self, method: str, path: str, **options: Any) -> _Answer:  # noqa: ANN401 -- httpx's own options
        body = bytearray()
        try:
            async with asyncio.timeout(2 * self._config.request_timeout_s):
                async with self._client.stream(method, self._url + path, **options) as response:
                    async for chunk in response.aiter_raw(CHUNK_BYTES):
                        body += chunk
                        if len(body) > self._config.max_answer_bytes:
                            raise self._foreign()
        except BROKEN as error:
            raise self._lost(error) from None
        try:
            found = json.loads(bytes(body))
        except (ValueError, RecursionError):
            raise self._foreign() from None
        if not isinstance(found, dict) or not isinstance(found.get("code"), int):
            raise self._foreign()
        data = found.get("data")
        return _Answer(found["code"], str(found.get("msg") or ""), data if isinstance(data, dict) else {})

    def _check_alive(self, text: str) -> None:
        if DEAD.search(text):
            raise UpstreamDead(f"the Duix service {self._name} takes no task any more ({shown(text)}): restart its container")

    def _lost(self, error: Exception) -> BackendLost:
        return BackendLost(f"the Duix service {self._name} does not answer ({type(error).__name__})")

    def _foreign(self) -> BackendLost:
        return BackendLost(f"{self._name} does not answer as a Duix service does: look at what stands before it")


@dataclass(frozen=True, slots=True)
class _Answer:
    code: int
    text: str
    data: Mapping[str, Any]


def shown(text: str) -> str:
    """Return what the service says as clients may read it: short, without paths and addresses of its machine."""
    return INSIDE.sub("…", " ".join(text.split()))[:SHOWN_REASON] or "it does not say why"
