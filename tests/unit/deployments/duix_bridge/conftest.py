"""A bridge in front of fake services."""

from __future__ import annotations

import asyncio
import contextlib
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.duix_bridge.config import DuixConfig
from deployments.duix_bridge.engine import DuixEngine
from deployments.duix_bridge.upstreams import Upstreams
from deployments.engines.face2face.config import Face2FaceConfig
from deployments.jobs.ports import EngineItem, EngineTask, LocalMedia, NoMetrics, OutputFile, SystemClock
from tests.fake_duix import FakeDuix, Habits

AUDIO_S = 1.0
QUICK = {
    "poll_s": 0.02,
    "probe_s": 0.05,
    "busy_s": 0.2,
    "silence_s": 5.0,
    "unreachable_s": 0.3,
    "appear_s": 2.0,
    "cleanup_delay_s": 0.0,
    "request_timeout_s": 2.0,
}


class Bridge:
    """Engine and services, wired as the box wires them."""

    def __init__(self, config: DuixConfig, folder: Path, media: Path) -> None:
        self.upstreams = Upstreams(config, NoMetrics(), SystemClock())
        self.engine = DuixEngine(self.upstreams, config, Face2FaceConfig(), SystemClock())
        self._folder = folder
        self._media = media
        self._jobs = 0

    def task(self, video: str = "woman_face.mp4", job_id: str = "", **options: Any) -> EngineTask:
        """Return a task with a second of sound."""
        self._jobs += 1
        work_dir = self._folder / f"work-{self._jobs}"
        work_dir.mkdir()
        audio = work_dir / "audio.wav"
        tone = (np.sin(np.arange(round(AUDIO_S * 44100)) / 20) * 8000).astype("<i2")
        with wave.open(str(audio), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(44100)
            file.writeframes(tone.tobytes())
        inputs = {"audio": LocalMedia(audio, "audio/wav", "a" * 64, 1), "video": LocalMedia(self._media / video, "video/mp4", "b" * 64, 1)}
        spec = {"kind": "face2face", "audio": {}, "video": {}, "engine": "duix", "options": options}
        return EngineTask(spec, inputs, work_dir, job_id or f"job-{self._jobs}", 1, "default")

    async def run(self, task: EngineTask) -> list[EngineItem]:
        """Run a task in a slot, as a worker does."""
        slot = await self.upstreams.take()
        try:
            async with contextlib.aclosing(self.engine.run(task)) as items:
                return [item async for item in items]
        finally:
            slot.give_back()


@contextlib.asynccontextmanager
async def running(config: DuixConfig, folder: Path, media: Path) -> AsyncIterator[Bridge]:
    """Open a bridge."""
    bridge = Bridge(config, folder, media)
    await bridge.upstreams.start()
    try:
        yield bridge
    finally:
        await bridge.upstreams.close()
        assert len(asyncio.all_tasks()) == 1, "the bridge leaves tasks behind"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[tuple[FakeDuix, FakeDuix]]:
    """Two services that share a data folder with the bridge."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(FakeDuix(tmp_path / "data", Habits())) for _ in range(2))
        yield first, second


@pytest.fixture
def config(services: tuple[FakeDuix, FakeDuix], tmp_path: Path) -> DuixConfig:
    """Both services, impatiently driven."""
    upstreams = tuple(f"{service.url}#name=gpu{n}" for n, service in enumerate(services))
    return DuixConfig(upstreams=upstreams, data_dir=tmp_path / "data", **QUICK)


@pytest.fixture
async def bridge(config: DuixConfig, tmp_path: Path, media: Path) -> AsyncIterator[Bridge]:
    """A bridge in front of both."""
    async with running(config, tmp_path, media) as opened:
        yield opened


def output_of(items: list[EngineItem]) -> OutputFile:
    """Return the one file among what a run gave."""
    (output,) = (item for item in items if isinstance(item, OutputFile))
    return output
