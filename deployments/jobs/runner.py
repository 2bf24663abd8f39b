"""One attempt of one job, from claim to finish: fetch, compute, upload, with a heartbeat beside it.

The store may be away for a while: heartbeats fail, the computing goes on, and the ending is sent until it is answered. Whoever holds
the lease is the only writer; an answer of ``lost`` means stop and remove what was made.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import NAMESPACE_URL, uuid5

from deployments.jobs.config import RunnerConfig
from deployments.jobs.errors import (
    BackendUnavailable,
    ComfyNodeFailed,
    EngineFailed,
    NodeProblem,
    ServiceError,
    Unavailable,
    WorkflowInvalid,
)
from deployments.jobs.keys import key_of
from deployments.jobs.logs import bound, fields, get_logger
from deployments.jobs.model import Artifact, Job, JobError, JsonObject, Progress, Stage, Verdict
from deployments.jobs.ports import (
    AsyncEngine,
    EngineTask,
    InputSource,
    JobStore,
    LocalMedia,
    Marker,
    Metrics,
    OutputFile,
    PreviewPicture,
    Previews,
    RunFacts,
    StoredObject,
    Uploader,
    WorkFolder,
)
from deployments.jobs.preview_sender import PreviewSender

T = TypeVar("T")

log = get_logger(__name__)

# What the stages take of the whole bar. Fetching and uploading are short beside computing for anything worth watching.
COMPUTE_FROM, COMPUTE_TO = 0.05, 0.95

UploadFile = Callable[[Uploader, Path, str, str], Awaitable[StoredObject]]


@dataclass(slots=True)
class _Attempt:
    """What is known about the attempt under way."""

    job: Job
    work_dir: Path
    progress: Progress = field(default_factory=lambda: Progress(Stage.FETCHING, 0.0))
    verdict: Verdict = Verdict.OK
    timings: dict[str, float] = field(default_factory=dict)
    files: list[OutputFile] = field(default_factory=list)  # finished so far
    facts: JsonObject = field(default_factory=dict)
    inputs: dict[str, LocalMedia] = field(default_factory=dict)
    marks: JsonObject = field(default_factory=dict)  # what was put into each file, by name
    stored: dict[str, Artifact] = field(default_factory=dict)  # in the object store, by name; what is not published in the end is removed
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """What is stored, in the order in which it was made."""
        return tuple(self.stored[file.name] for file in self.files if file.name in self.stored)

    def advance(self, progress: Progress) -> None:
        self.progress = progress
        self.changed.set()

    @contextlib.contextmanager
    def stage(self, stage: Stage, fraction: float) -> Iterator[None]:
        """Time a stage and announce it."""
        self.advance(Progress(stage, fraction))
        began = time.monotonic()
        try:
            yield
        finally:
            self.timings[stage.value] = round(time.monotonic() - began, 3)


class JobRunner:
    """Runs claimed jobs of one kind with one engine."""

    def __init__(
        self,
        *,
        store: JobStore,
        previews: Previews,
        inputs: InputSource,
        uploader: Uploader,
        upload_file: UploadFile,
        engine: AsyncEngine,
        work_folder: WorkFolder,
        config: RunnerConfig,
        metrics: Metrics,
        marker: Marker | None = None,
    ) -> None:
        """Take the parts; without a ``marker`` results are published as the engine made them."""
        self._store = store
        self._previews = previews
        self._inputs = inputs
        self._uploader = uploader
        self._upload_file = upload_file
        self._engine = engine
        self._work_folder = work_folder
        self._config = config
        self._metrics = metrics
        self._marker = marker
        self._told_to_stop: dict[tuple[str, int], float] = {}

    def stopping_s(self) -> float:
        """Return for how long the slowest attempt that was told to stop has not come back: its thread may never."""
        return max((time.monotonic() - since for since in self._told_to_stop.values()), default=0.0)

    async def run(self, job: Job, computed: Callable[[], None]) -> None:
        """Bring one claimed job to its end.

        Args:
            job: as claimed.
            computed: called once the engine is done, so that the slot can take the next job while this one uploads.

        Cancelling this coroutine hands the job back to the queue.
        """
        attempt = _Attempt(job, Path(tempfile.mkdtemp(prefix=f"{job.id}-", dir=self._work_folder.path)))
        with bound(job_id=job.id, attempt=job.attempt):
            work = asyncio.create_task(self._work(attempt, computed))
            beat = asyncio.create_task(self._beat(attempt, work))
            try:
                await self._conclude(attempt, work)
            finally:
                beat.cancel()
                await asyncio.wait({beat})
                await asyncio.to_thread(shutil.rmtree, attempt.work_dir, ignore_errors=True)  # after the ending: nobody waits for it

    async def _conclude(self, attempt: _Attempt, work: asyncio.Task[None]) -> None:
        job = attempt.job
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await self._stopped(attempt, work)
        except BackendUnavailable as error:
            log.info("attempt handed back", extra=fields(action="attempt_handed_back", reason=str(error)))
            await self._until_answered(lambda: self._store.release(job.id, job.attempt))
        except ServiceError as error:
            log.warning("attempt failed", extra=fields(action="attempt_failed", code=error.code, reason=str(error)))
            await self._fail(attempt, _to_job_error(error))
        except Exception as error:
            log.exception("engine broke", extra=fields(action="engine_broke"))
            message = f"the engine broke on this input ({type(error).__name__}); the log of job {job.id} has the details"
            await self._fail(attempt, JobError(EngineFailed.code, message, EngineFailed.retryable))
        else:
            await self._finish(attempt)

    async def _stopped(self, attempt: _Attempt, work: asyncio.Task[None]) -> None:
        """End an attempt that was told to stop: by the store (the beat cancelled the work) or by a draining replica."""
        draining = not work.cancelled()
        self._stop(attempt, work)
        await asyncio.wait({work})
        job = attempt.job
        if attempt.verdict is Verdict.CANCELLED:
            await self._until_answered(lambda: self._store.acknowledge_cancel(job.id, job.attempt))
        elif attempt.verdict is Verdict.OK:
            await self._until_answered(lambda: self._store.release(job.id, job.attempt))
        await self._remove(attempt.artifacts)
        log.info("attempt stopped", extra=fields(action="attempt_stopped", verdict=attempt.verdict, draining=draining))
        if draining:
            raise asyncio.CancelledError

    async def _work(self, attempt: _Attempt, computed: Callable[[], None]) -> None:
        try:
            with attempt.stage(Stage.FETCHING, 0.0):
                attempt.inputs = await self._fetch(attempt.job, attempt.work_dir / "inputs")
            with attempt.stage(Stage.COMPUTING, COMPUTE_FROM):
                await self._compute(attempt)
            computed()
            with attempt.stage(Stage.UPLOADING, COMPUTE_TO):
                await self._upload(attempt)
        except ServiceError as error:
            if not error.retryable:
                computed()
                await self._salvage(attempt)
            raise
        finally:
            for stage, seconds in attempt.timings.items():
                self._metrics.observe("stage_s", seconds, pool=attempt.job.pool, stage=stage)

    async def _fetch(self, job: Job, directory: Path) -> dict[str, LocalMedia]:
        directory.mkdir()
        references = self._engine.references(job.spec)
        room = asyncio.Semaphore(self._config.fetches)

        async def fetch(reference: JsonObject) -> LocalMedia:
            async with room:
                return await self._inputs.materialise(job.tenant, reference, directory)

        async with _all_or_none(fetch(reference) for reference in references.values()) as fetching:
            return dict(zip(references, await asyncio.gather(*fetching), strict=True))

    async def _compute(self, attempt: _Attempt) -> None:
        job = attempt.job
        task = EngineTask(job.spec, attempt.inputs, attempt.work_dir, job.id, job.attempt, job.tenant)
        previews = PreviewSender(self._previews, job)
        try:
            async with contextlib.aclosing(self._engine.run(task)) as items:
                async for item in items:
                    match item:
                        case OutputFile():
                            attempt.files.append(item)
                        case RunFacts():
                            attempt.facts |= item.values
                        case PreviewPicture():
                            previews.offer(item)
                        case Progress():
                            attempt.advance(replace(item, fraction=COMPUTE_FROM + (COMPUTE_TO - COMPUTE_FROM) * item.fraction))
        finally:
            await previews.close()

    async def _upload(self, attempt: _Attempt) -> None:
        room = asyncio.Semaphore(self._config.uploads)

        async def store(file: OutputFile) -> None:
            async with room:
                await self._mark(attempt, file)
                attempt.stored[file.name] = await self._upload_one(attempt.job, file)
                attempt.advance(Progress(Stage.UPLOADING, COMPUTE_TO + (1 - COMPUTE_TO) * len(attempt.stored) / len(attempt.files)))

        async with _all_or_none(store(file) for file in attempt.files if file.name not in attempt.stored) as storing:
            ends = await asyncio.gather(*storing, return_exceptions=True)  # one that cannot be stored does not keep the others from it
        for failure in filter(None, ends):
            raise failure

    async def _mark(self, attempt: _Attempt, file: OutputFile) -> None:
        """Mark a result as generated, so that what is stored, its size and its hash are those of the marked file."""
        if self._marker is None or file.name in attempt.marks:
            return  # marked already: a part of the upload is tried again
        attempt.marks[file.name] = await asyncio.to_thread(self._marker.mark, attempt.job, file, attempt.inputs)
        attempt.facts["marks"] = attempt.marks
        if consent := attempt.job.spec.get("consent"):
            attempt.facts["consent"] = consent

    async def _salvage(self, attempt: _Attempt) -> None:
        """Store what was made before a failure that no other attempt will mend."""
        try:
            with attempt.stage(Stage.UPLOADING, COMPUTE_TO):
                await self._upload(attempt)
        except ServiceError as error:  # the failure itself is what the client must hear of
            log.warning("partial outputs lost", extra=fields(action="salvage_failed", reason=str(error)))

    async def _upload_one(self, job: Job, file: OutputFile) -> Artifact:
        key = key_of(self._config.key_template, job, file.name)
        stored = await self._upload_file(self._uploader, file.path, key, file.media_type)
        return Artifact(
            file_id=str(uuid5(NAMESPACE_URL, key)),
            name=file.name,
            media_type=file.media_type,
            uri=stored.uri,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            width=file.width,
            height=file.height,
            duration_s=file.duration_s,
            comfy_node=file.comfy_node,
            temporary=file.temporary,
        )

    async def _finish(self, attempt: _Attempt) -> None:
        job, outputs = attempt.job, attempt.artifacts
        verdict = await self._until_answered(lambda: self._store.finish(job.id, job.attempt, outputs, attempt.timings, attempt.facts))
        log.info("attempt finished", extra=fields(action="attempt_finished", verdict=verdict, outputs=len(outputs)))
        if verdict is Verdict.OK:
            return
        await self._remove(outputs)
        if verdict is Verdict.CANCELLED:
            await self._until_answered(lambda: self._store.acknowledge_cancel(job.id, job.attempt))

    async def _fail(self, attempt: _Attempt, error: JobError) -> None:
        # What an attempt that may be repeated had stored before its upload failed is of no use: the next one makes its own.
        job, outputs = attempt.job, () if error.retryable else attempt.artifacts
        verdict = await self._until_answered(lambda: self._store.fail(job.id, job.attempt, error, attempt.timings, outputs, attempt.facts))
        if verdict is not Verdict.OK or not outputs:
            await self._remove(attempt.artifacts)

    async def _remove(self, outputs: Sequence[Artifact]) -> None:
        for artifact in outputs:
            with contextlib.suppress(Unavailable):  # an orphan costs disk, not truth
                await self._uploader.delete(artifact.key)

    async def _until_answered(self, call: Callable[[], Awaitable[Verdict]]) -> Verdict:
        """Send an ending until the store has answered: it is safe to repeat, and a lost one would cost a whole attempt."""
        while True:
            try:
                return await call()
            except Unavailable as error:
                log.warning("store is away", extra=fields(action="store_away", reason=str(error)))
                await asyncio.sleep(self._config.store_retry_s)

    async def _beat(self, attempt: _Attempt, work: asyncio.Task[None]) -> None:
        """Renew the lease and report progress; stop the work when the store says so."""
        while attempt.verdict is Verdict.OK:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.heartbeat_s):
                    await attempt.changed.wait()
            attempt.changed.clear()
            try:
                attempt.verdict = await self._store.heartbeat(attempt.job.id, attempt.job.attempt, attempt.progress)
            except Unavailable as error:
                log.warning("heartbeat unanswered", extra=fields(action="heartbeat_unanswered", reason=str(error)))
            except Exception:  # a heart that stops beating would lose the job
                log.exception("heartbeat broke", extra=fields(action="heartbeat_broke"))
            await asyncio.sleep(self._config.progress_s)
        self._stop(attempt, work)

    def _stop(self, attempt: _Attempt, work: asyncio.Task[None]) -> None:
        """Cancel the work once: a second cancel would break the wait for the step that its thread is in."""
        if work.done() or work.cancelling():
            return
        key = (attempt.job.id, attempt.job.attempt)
        self._told_to_stop[key] = time.monotonic()
        work.add_done_callback(lambda _: self._told_to_stop.pop(key, None))
        work.cancel()


def _to_job_error(error: ServiceError) -> JobError:
    problems: tuple[NodeProblem, ...] = ()
    if isinstance(error, WorkflowInvalid):
        problems = error.problems
    elif isinstance(error, ComfyNodeFailed):
        problems = (NodeProblem(error.comfy_node, error.title, "", "execution_error", error.reason),)
    return JobError(error.code, str(error), error.retryable, {"nodes": [asdict(problem) for problem in problems]} if problems else None)


@contextlib.asynccontextmanager
async def _all_or_none(work: Iterable[Coroutine[Any, Any, T]]) -> AsyncIterator[list[asyncio.Task[T]]]:
    """Run work at once; of what is left when one part fails or nobody waits any more, nothing goes on."""
    tasks = [asyncio.create_task(part) for part in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
