"""The engine that has a Duix service move the lips, and brings everything in and out."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from deployments.duix_bridge.client import TaskState, UpstreamBusy, UpstreamDead, shown
from deployments.duix_bridge.config import DuixConfig, DuixOptions
from deployments.duix_bridge.exchange import CODE_PREFIX
from deployments.duix_bridge.upstreams import Upstream, Upstreams
from deployments.engines.face2face.config import Face2FaceConfig
from deployments.engines.face2face.upstream_media import finish_video, to_clip, to_wav
from deployments.jobs.errors import BackendLost, EngineFailed, OutputsLost
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import JsonObject, Progress, Stage
from deployments.jobs.ports import Clock, EngineItem, EngineTask, OutputFile, RunFacts
from deployments.jobs.signs_of_life import signs_of_life
from deployments.jobs.spec import Face2FaceOptions

log = get_logger(__name__)

NAME, MEDIA_TYPE = "face2face.mp4", "video/mp4"
RENDERED = 0.95  # of the whole is done once the service has ended
REMEMBERED = 1000  # jobs of which it is known where they failed


class DuixEngine:
    """Implements :class:`deployments.jobs.ports.AsyncEngine`."""

    def __init__(self, upstreams: Upstreams, config: DuixConfig, media: Face2FaceConfig, clock: Clock) -> None:
        self._upstreams = upstreams
        self._config = config
        self._media = media
        self._clock = clock
        self._failed_on: OrderedDict[str, set[str]] = OrderedDict()  # by job: services that another attempt leaves alone if it can

    def references(self, spec: JsonObject) -> Mapping[str, JsonObject]:
        """See the port."""
        return {role: spec[role] for role in ("audio", "video")}

    async def run(self, task: EngineTask) -> AsyncGenerator[EngineItem, None]:
        """See the port.

        Raises:
            UnsupportedMedia: an input cannot be read, or the audio has no sound.
            MediaTooLarge: an input is over the limits.
            BackendLost: the service forgot the task, died, stood still, or has to be restarted.
            EngineFailed: the service could not do it.
            OutputsLost: the video is gone, or not whole.
            BackendUnavailable: no service takes it now.
        """
        options = Face2FaceOptions.model_validate(task.spec.get("options") or {})
        preparing = asyncio.create_task(asyncio.to_thread(self._prepare, task))
        async for sign in signs_of_life(preparing, 0.0, "preparing the inputs"):
            yield sign
        speech, clip = preparing.result()
        async for item in self._on_a_free_one(task, speech, clip, DuixOptions(enhance=options.enhance)):
            yield item

    def _prepare(self, task: EngineTask) -> tuple[Path, Path]:
        speech = to_wav(task.inputs["audio"].path, task.work_dir, self._media.limits)
        return speech, to_clip(task.inputs["video"], task.work_dir, self._media)

    async def _on_a_free_one(self, task: EngineTask, speech: Path, clip: Path, options: DuixOptions) -> AsyncGenerator[EngineItem, None]:
        """Try the free services until one takes the task.

        Those that have a stranger's task rest for a while, so that each is tried once.
        """
        failed_on = self._failures_of(task.job_id)
        while True:
            async with self._upstreams.place(failed_on) as upstream:
                try:
                    async with contextlib.aclosing(self._on(upstream, task, speech, clip, options)) as items:
                        async for item in items:
                            yield item
                except UpstreamBusy:
                    self._upstreams.rest(upstream)
                    continue
                except (BackendLost, EngineFailed, OutputsLost) as error:
                    failed_on.add(upstream.spec.name)
                    if isinstance(error, UpstreamDead):
                        self._upstreams.rest(upstream, dead=True)
                    elif isinstance(error, BackendLost):
                        upstream.healthy = False  # until it answers a probe
                    raise
                return

    async def _on(
        self, upstream: Upstream, task: EngineTask, speech: Path, clip: Path, options: DuixOptions
    ) -> AsyncGenerator[EngineItem, None]:
        run = _Run(f"{CODE_PREFIX}{uuid4().hex}")
        self._upstreams.know(run.code)
        try:
            audio_url, video_url = await upstream.exchange.offer(run.code, speech, clip)
            await self._submit(upstream, run, audio_url, video_url, options)
            run.taken = True
            yield RunFacts({"backend": upstream.spec.name})
            async for progress in self._follow(upstream, run):
                yield progress
            yield await self._bring(upstream, run, task, speech)
        finally:
            if run.at_work:
                self._upstreams.give_up(upstream, run.code)
            elif run.taken:
                self._upstreams.forget(upstream, run.code)
            else:  # nothing to look into, and a busy service is asked again and again
                await self._upstreams.forget_now(upstream, run.code)

    async def _submit(self, upstream: Upstream, run: _Run, audio_url: str, video_url: str, options: DuixOptions) -> None:
        run.at_work = True  # as soon as the request is on its way: its answer may be lost
        try:
            await upstream.client.submit(run.code, audio_url, video_url, options)
        except (UpstreamBusy, UpstreamDead, EngineFailed):
            run.at_work = False
            raise
        except BackendLost:
            if await upstream.client.query(run.code) is None:
                run.at_work = False
                raise

    async def _follow(self, upstream: Upstream, run: _Run) -> AsyncGenerator[Progress, None]:
        """Watch a task until it has succeeded, or may have: the answer that says so is given once and can be lost on its way.

        Raises:
            EngineFailed: it failed.
            BackendLost: the service does not answer, or stands still.
        """
        furthest, seen = 0.0, (0.0, 0)
        moved = heard = began = self._clock.monotonic()
        while True:
            await asyncio.sleep(self._config.poll_s)
            now = self._clock.monotonic()
            try:
                state = await upstream.client.query(run.code)
            except UpstreamDead:
                run.at_work = False
                raise
            except BackendLost:
                if now - heard > self._config.unreachable_s:
                    raise
                continue
            heard = now
            if state is None or state.done or state.failed:
                run.at_work, run.told = False, state is not None
                if state is not None and state.failed:
                    raise _failure(upstream, state)
                return
            pulse = state.progress, await upstream.exchange.written_bytes(run.code)
            if pulse != seen:
                seen, moved = pulse, now
            if now - moved > self._config.silence_s:
                raise BackendLost(f"the Duix service {upstream.spec.name} stands still for {now - moved:.0f} s: restart its container")
            furthest = max(furthest, min(state.progress, 100.0) / 100)  # it may jump back
            yield Progress(Stage.COMPUTING, RENDERED * furthest, message=f"speaking at {upstream.spec.name}, {now - began:.0f} s")

    async def _bring(self, upstream: Upstream, run: _Run, task: EngineTask, speech: Path) -> OutputFile:
        spoken, path = task.work_dir / "spoken.mp4", task.work_dir / NAME
        limits = self._media.limits
        try:
            await upstream.exchange.take(run.code, spoken, self._config.appear_s if run.told else 0.0)
            info = await asyncio.to_thread(finish_video, spoken, speech, task.inputs["audio"].path, path, limits)
        except OutputsLost:
            if run.told:
                raise
            raise BackendLost(f"the Duix service {upstream.spec.name} no longer knows the task: it was restarted") from None
        return OutputFile(path, NAME, MEDIA_TYPE, info.width, info.height, duration_s=info.duration_s)

    def _failures_of(self, job_id: str) -> set[str]:
        found = self._failed_on.setdefault(job_id, set())
        self._failed_on.move_to_end(job_id)
        while len(self._failed_on) > REMEMBERED:
            self._failed_on.popitem(last=False)
        return found


@dataclass(slots=True)
class _Run:
    """A task at a service."""

    code: str
    taken: bool = False  # by the service, ever
    at_work: bool = False  # as far as is known
    told: bool = False  # whether the service has said how it ended


def _failure(upstream: Upstream, state: TaskState) -> EngineFailed:
    log.warning("Duix task failed", extra=fields(action="duix_task_failed", backend=upstream.spec.name, reason=state.message))
    return EngineFailed(f"the Duix service {upstream.spec.name} could not do it: {shown(state.message)}")
