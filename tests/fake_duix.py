"""A Duix service as its users observed it, hazards included: what the bridge is tested against.

It takes one task at a time, says ``success: true`` when it is busy, answers JSON as ``text/html``, forgets a task whose end it has told,
calls its video ``/<code>-r.mp4`` although it lies in ``temp/``, and cannot be told to stop. It moves no lips: its video shows grey
frames of the template's size for as long as the audio lasts.
"""

from __future__ import annotations

import asyncio
import json
import threading
import wave
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import aiohttp
import av
import numpy as np
from aiohttp import web

from deployments.engines.media.compose import write_silent

FPS = Fraction(25)


@dataclass
class Habits:
    """What this one does besides its work; may be changed while it runs."""

    work_s: float = 0.2  # of a task, unless it is held
    hold: bool = False  # tasks stay at work until this is False
    progress: tuple[float, ...] = (10, 40, 20, 80)  # it jumps back
    fails: str = ""  # message of status 3
    submit: tuple[int, str] | None = None  # what every submit is answered with, and nothing is taken
    drop_submit_answer: bool = False  # takes the task, and cuts the connection
    drop_end_answer: bool = False  # tells the end once, to nobody
    lag_s: float = 0.0  # until the video appears after the end was told
    shorter_s: float = 0.0  # than the audio
    foreign: bool = False  # a gateway's page instead of it
    stranger: bool = False  # has somebody else's task


@dataclass
class Task:
    """The one task."""

    code: str
    body: dict[str, Any]
    looks: int = 0
    outcome: str = ""  # done, or why not
    size: tuple[int, int] = (0, 0)
    duration_s: float = 0.0


@dataclass
class FakeDuix:
    """One service in a thread of its own; a context manager."""

    data_dir: Path
    habits: Habits = field(default_factory=Habits)
    port: int = 0
    tasks: dict[str, Task] = field(default_factory=dict)
    accepted: list[Task] = field(default_factory=list)  # ever

    def __post_init__(self) -> None:
        """Prepare."""
        (self.data_dir / "temp").mkdir(parents=True, exist_ok=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None
        self._work: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, or start again at the same port: it remembers nothing."""
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    def kill(self) -> None:
        """Die at once, with the task that it has."""
        asyncio.run_coroutine_threadsafe(self._kill(), self._loop).result()

    async def _start(self) -> None:
        application = web.Application()
        application.router.add_post("/easy/submit", self._submit)
        application.router.add_get("/easy/query", self._query)
        application.router.add_get("/temp/{name}", self._result)
        self._runner = web.AppRunner(application, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _kill(self) -> None:
        for work in self._work:
            work.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None
        self.tasks.clear()

    async def _submit(self, request: web.Request) -> web.Response:
        if self.habits.foreign:
            return web.Response(status=502, text="<html>Bad Gateway</html>")
        body = await request.json()
        code = body["code"]  # read before anything is checked
        for name in ("audio_url", "video_url"):
            if not body.get(name):
                return _answer(10002, f"{name}参数缺失", success=False)
        if self.habits.submit is not None:
            return _answer(*self.habits.submit, success=True)
        if self.habits.stranger or any(not task.outcome for task in self.tasks.values()):
            return _answer(10001, "忙碌中", success=True)
        task = self.tasks[code] = Task(code, body)
        self.accepted.append(task)
        work = asyncio.get_running_loop().create_task(self._render(task))
        self._work.add(work)
        work.add_done_callback(self._work.discard)
        if self.habits.drop_submit_answer:
            _cut(request)
        return _answer(10000, "", success=True)

    async def _query(self, request: web.Request) -> web.Response:
        if self.habits.foreign:
            return web.Response(status=502, text="<html>Bad Gateway</html>")
        task = self.tasks.get(request.query["code"])
        if task is None:
            return _answer(10004, "任务不存在", success=True)
        steps = self.habits.progress
        progress = steps[min(task.looks, len(steps) - 1)]
        task.looks += 1
        data: dict[str, Any] = {"code": task.code, "status": 1, "progress": progress, "result": "", "msg": ""}
        if task.outcome == "done":
            data |= {"status": 2, "progress": 100, "result": f"/{task.code}-r.mp4", "cost": 1.0, "video_duration": task.duration_s}
            data |= {"width": task.size[0], "height": task.size[1]}
        elif task.outcome:
            data |= {"status": 3, "progress": 0, "msg": task.outcome}
        if task.outcome:
            del self.tasks[task.code]
            if self.habits.drop_end_answer:
                _cut(request)
        return _answer(10000, "", success=True, data=data)

    async def _result(self, request: web.Request) -> web.StreamResponse:
        path = self.data_dir / "temp" / request.match_info["name"]
        return web.FileResponse(path) if path.is_file() else web.Response(status=404)

    async def _render(self, task: Task) -> None:
        try:
            audio, video = await self._read(task.body["audio_url"]), await self._read(task.body["video_url"])
            if not self.habits.hold:
                await asyncio.sleep(self.habits.work_s)
            while self.habits.hold:
                await asyncio.sleep(0.01)
            if self.habits.fails:
                task.outcome = self.habits.fails
                return
            task.size, task.duration_s = _size(video), _seconds(audio) - self.habits.shorter_s
            path = self.data_dir / "temp" / f"{task.code}-r.mp4"
            frame = np.full((task.size[1], task.size[0], 3), 128, np.uint8)
            hidden = path.with_name(f"{path.name}.late")
            frames = max(1, round(task.duration_s * FPS))
            await asyncio.to_thread(write_silent, lambda _: frame, frames, hidden, task.size, task.size, FPS)
            loop = asyncio.get_running_loop()
            if self.habits.lag_s:
                loop.call_later(self.habits.lag_s, hidden.replace, path)
            else:
                hidden.replace(path)
            task.outcome = "done"
        except (OSError, av.FFmpegError, aiohttp.ClientError) as error:
            task.outcome = f"[{type(error).__name__}] /code/data/temp/x format video error"

    async def _read(self, place: str) -> Path:
        """Return a local file: a relative name lies under ``temp/`` of the data folder."""
        if not place.startswith("http"):
            return self.data_dir / "temp" / place
        path = self.data_dir / "temp" / f"fetched-{len(self.accepted)}-{place.rpartition('.')[2]}"
        async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(place) as response:
            path.write_bytes(await response.read())
        return path


def _size(video: Path) -> tuple[int, int]:
    with av.open(video) as container:
        stream = container.streams.video[0]
        if stream.codec_context.name not in {"h264", "hevc", "mpeg4"}:
            raise OSError("a still is no template")
        return stream.codec_context.width & ~1, stream.codec_context.height & ~1


def _seconds(audio: Path) -> float:
    with wave.open(str(audio), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return file.getnframes() / file.getframerate()


def _answer(code: int, message: str, *, success: bool, data: dict[str, Any] | None = None) -> web.Response:
    body = {"code": code, "success": success, "msg": message, "data": data or {}}
    return web.Response(text=json.dumps(body, indent=4, ensure_ascii=False), content_type="text/html")


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
