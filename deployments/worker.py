"""What every worker box shares: claiming, draining and the truth about its health.

A replica pulls. Serve's own routing, queueing and draining see nothing of it, so each is done here: every free slot has a claim open,
the drain waits for what runs, and the health check fails when the claiming is dead or a stopped job's thread does not come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.engines.marking.config import MarkingConfig
from deployments.engines.marking.marker import build_marker
from deployments.handles import StoreHandle, UploaderHandle
from deployments.jobs.config import RunnerConfig, WorkerConfig
from deployments.jobs.errors import Unavailable
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import Claim, Job
from deployments.jobs.ports import AsyncEngine, JobStore, Slot, Slots
from deployments.jobs.runner import JobRunner
from deployments.metrics import ServeMetrics
from deployments.storage.factory import StorageConfig, build_object_store
from deployments.storage.fetch import FetchConfig
from deployments.storage.inputs import InputCache, InputCacheConfig
from deployments.storage.sources import InputSources
from deployments.storage.sweep import Sweep, SweepConfig, Sweeper
from deployments.storage.upload import upload_file
from deployments.storage.work_folder import WorkFolder, remove_dead

log = get_logger(__name__)


class WorkerSetup(BaseModel):
    """Everything that a worker box is bound with, besides its engine's own config."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pool: str
    storage: StorageConfig
    fetch: FetchConfig
    inputs: InputCacheConfig
    work_root: Path
    runner: RunnerConfig
    worker: WorkerConfig
    sweep: SweepConfig = SweepConfig()
    marking: MarkingConfig = MarkingConfig()


async def build_worker(
    setup: WorkerSetup, engine: AsyncEngine, slots: Slots, uploader: DeploymentHandle[Any], sweeps: Mapping[str, Sweep] | None = None
) -> Worker:
    """Wire a worker to the store, to its inputs and to the uploader, in a work folder of its own.

    Args:
        setup: of the pool.
        engine: runs the jobs.
        slots: room for them.
        uploader: the Uploader deployment.
        sweeps: places with orphans besides those that every worker has.

    Raises:
        Unavailable: this machine does not see the object store that the uploader writes to.
    """
    store = StoreHandle()
    objects = build_object_store(setup.storage)
    uploads = UploaderHandle(uploader)
    await objects.check(expected=await uploads.identity())
    owner = replica_name()
    metrics = ServeMetrics()
    inputs = InputCache(setup.inputs, sources=InputSources(setup.fetch), store=store, reader=objects)
    places: dict[str, Sweep] = {
        "work": partial(remove_dead, setup.work_root),
        "inputs": partial(inputs.remove_abandoned, setup.sweep.max_age_s),
        **(sweeps or {}),
    }
    runner = JobRunner(
        store=store,
        previews=store,
        inputs=inputs,
        uploader=uploads,
        upload_file=upload_file,
        engine=engine,
        work_folder=WorkFolder(setup.work_root, owner),
        config=setup.runner,
        metrics=metrics,
        marker=build_marker(setup.marking),
    )
    sweeper = Sweeper(setup.sweep, setup.work_root, places, metrics)
    return Worker(store=store, runner=runner, pool=setup.pool, owner=owner, slots=slots, config=setup.worker, sweeper=sweeper)


class Worker:
    """Claims jobs of one pool and has them run."""

    def __init__(
        self,
        *,
        store: JobStore,
        runner: JobRunner,
        pool: str,
        owner: str,
        slots: Slots,
        config: WorkerConfig,
        sweeper: Sweeper | None = None,
    ) -> None:
        self._store = store
        self._runner = runner
        self._pool = pool
        self._owner = owner
        self._slots = slots
        self._config = config
        self._draining = asyncio.Event()
        self._taker: asyncio.Task[None] | None = None
        self._sweeper = sweeper
        self._sweeping: asyncio.Task[None] | None = None
        self._claims: set[asyncio.Task[None]] = set()  # each holds a slot, from its claim until its job has computed
        self._jobs: set[asyncio.Task[None]] = set()
        self._uploading: dict[asyncio.Task[None], str] = {}  # those of them that hold no slot any more, and their job
        self._uploaded = asyncio.Event()  # a fresh one after each end of an upload, so that nobody waits for one that has passed
        self._fault: BaseException | None = None

    def start(self) -> None:
        """Start claiming; needs a running event loop."""
        self._taker = asyncio.get_running_loop().create_task(self._take_jobs())
        if self._sweeper is not None:
            self._sweeping = asyncio.get_running_loop().create_task(self._sweeper.run())

    def check(self) -> None:
        """Fail when this replica will never take a job again, or not as many as it should: Serve then replaces it.

        Raises:
            RuntimeError: an engine does not come back from a job that was told to stop, or the claiming has ended although nobody
                asked it to.
        """
        if self._runner.stopping_s() > self._config.stuck_s:
            raise RuntimeError(f"an engine of pool {self._pool} is stuck: it has not stopped for {self._runner.stopping_s():.0f} s")
        if self._draining.is_set():
            return
        if self._fault is None and self._taker is not None and self._taker.done():
            self._fault = asyncio.CancelledError() if self._taker.cancelled() else self._taker.exception()
        if self._fault is not None:
            raise RuntimeError(f"the claiming of pool {self._pool} is dead: {self._fault!r}")

    async def drain(self) -> None:
        """Claim no more, let the running jobs end, and hand back those that do not end in time."""
        self._draining.set()
        began = time.monotonic()
        log.info("draining", extra=fields(action="drain_started", jobs=len(self._jobs)))
        with contextlib.suppress(Unavailable):  # then the open claims end by themselves, a long poll later
            await self._store.withdraw(self._owner)
        for task in (self._taker, self._sweeping):
            if task is not None:
                task.cancel()
        await self._settle(self._config.drain_s)
        for task in (*self._claims, *self._jobs):
            task.cancel()
        await self._settle(None)
        log.info("drained", extra=fields(action="drain_ended", seconds=round(time.monotonic() - began, 1)))

    async def _settle(self, timeout_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                # Again and again: a claim may still be answered with a job, which then goes on to upload.
                while tasks := {task for task in (*self._claims, *self._jobs) if not task.done()}:
                    await asyncio.wait(tasks)

    async def _take_jobs(self) -> None:
        while not self._draining.is_set() and self._fault is None:
            slot = await self._slots.take()
            # Jobs that only upload hold no slot; too many of them would fill the disk.
            while len(self._uploading) > self._config.uploads:
                await self._uploaded.wait()
            task = asyncio.get_running_loop().create_task(self._fill_slot(slot))
            self._claims.add(task)
            task.add_done_callback(partial(self._slot_free, slot))

    async def _fill_slot(self, slot: Slot) -> None:
        job = await self._claim(slot.capabilities)
        if job is not None:
            await self._run(job)

    def _slot_free(self, slot: Slot, task: asyncio.Task[None]) -> None:
        self._claims.discard(task)
        slot.give_back()
        if not task.cancelled():
            self._fault = self._fault or task.exception()

    async def _claim(self, capabilities: frozenset[str]) -> Job | None:
        computed = frozenset(self._uploading.values())
        claim = Claim(str(uuid4()), self._pool, self._owner, capabilities, self._config.claim_wait_s, computed)
        while not self._draining.is_set():
            try:
                return await self._store.claim(claim)  # the same claim_id again: an answer that got lost is given again
            except Unavailable as error:
                log.warning("store is away", extra=fields(action="claim_unanswered", reason=str(error)))
                await asyncio.sleep(self._config.store_retry_s)
        return None

    async def _run(self, job: Job) -> None:
        """Start a job and return as soon as its slot is free: when the engine is done, or the job has ended."""
        computed = asyncio.Event()
        task = asyncio.get_running_loop().create_task(self._runner.run(job, computed.set))
        self._jobs.add(task)
        task.add_done_callback(self._job_ended)
        waiter = asyncio.get_running_loop().create_task(computed.wait())
        try:
            await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
            if task in self._jobs:
                self._uploading[task] = job.id

    def _job_ended(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        self._uploading.pop(task, None)
        uploaded, self._uploaded = self._uploaded, asyncio.Event()
        uploaded.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a job's run broke", exc_info=error, extra=fields(action="run_broke"))


def replica_name() -> str:
    """Return a name that no other replica has: Serve's where there is one."""
    try:
        return serve.get_replica_context().replica_id.unique_id
    except RayServeException:
        return f"{socket.gethostname()}-{os.getpid()}"
