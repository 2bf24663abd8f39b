"""What every worker box shares: claim loops, draining and the truth about its health.

A replica pulls. Serve's own routing, queueing and draining see nothing of it, so each is done here: ``slots`` loops claim, the drain
waits for what runs, and the health check fails when a loop is dead or a stopped job's thread does not come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.handles import StoreHandle, UploaderHandle
from deployments.jobs.config import RunnerConfig, WorkerConfig
from deployments.jobs.errors import Unavailable
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import Claim, Job
from deployments.jobs.ports import Engine, JobStore
from deployments.jobs.runner import JobRunner
from deployments.metrics import ServeMetrics
from deployments.storage.factory import StorageConfig, build_object_store
from deployments.storage.fetch import FetchConfig, GuardedFetcher
from deployments.storage.inputs import InputCache, InputCacheConfig
from deployments.storage.upload import upload_file
from deployments.storage.work_folder import WorkFolder

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


async def build_worker(setup: WorkerSetup, engine: Engine, capabilities: frozenset[str], uploader: DeploymentHandle[Any]) -> Worker:
    """Wire a worker to the store, to its inputs and to the uploader, in a work folder of its own.

    Raises:
        Unavailable: this machine does not see the object store that the uploader writes to.
    """
    store = StoreHandle()
    objects = build_object_store(setup.storage)
    uploads = UploaderHandle(uploader)
    await objects.check(expected=await uploads.identity())
    owner = _replica_name()
    runner = JobRunner(
        store=store,
        inputs=InputCache(setup.inputs, fetcher=GuardedFetcher(setup.fetch), store=store, reader=objects),
        uploader=uploads,
        upload_file=upload_file,
        engine=engine,
        executor=ThreadPoolExecutor(setup.worker.slots, "engine"),
        work_folder=WorkFolder(setup.work_root, owner),
        config=setup.runner,
        metrics=ServeMetrics(),
    )
    return Worker(store=store, runner=runner, pool=setup.pool, owner=owner, capabilities=capabilities, config=setup.worker)


class Worker:
    """Claims jobs of one pool and has them run."""

    def __init__(
        self, *, store: JobStore, runner: JobRunner, pool: str, owner: str, capabilities: frozenset[str], config: WorkerConfig
    ) -> None:
        self._store = store
        self._runner = runner
        self._pool = pool
        self._owner = owner
        self._capabilities = capabilities
        self._config = config
        self._room = asyncio.Semaphore(config.slots + config.uploads)
        self._draining = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._jobs: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start claiming; needs a running event loop."""
        self._loops = [asyncio.get_running_loop().create_task(self._fill_slot()) for _ in range(self._config.slots)]

    def check(self) -> None:
        """Fail when a slot will never take a job again: Serve then replaces the replica.

        Raises:
            RuntimeError: an engine does not come back from a job that was told to stop, or a claim loop has ended although nobody
                asked it to.
        """
        if self._runner.stopping_s() > self._config.stuck_s:
            raise RuntimeError(f"an engine of pool {self._pool} is stuck: it has not stopped for {self._runner.stopping_s():.0f} s")
        if self._draining.is_set():
            return
        for loop in self._loops:
            if loop.done():
                reason = "cancelled" if loop.cancelled() else repr(loop.exception())
                raise RuntimeError(f"a claim loop of pool {self._pool} is dead: {reason}")

    async def drain(self) -> None:
        """Claim no more, let the running jobs end, and hand back those that do not end in time."""
        self._draining.set()
        began = time.monotonic()
        log.info("draining", extra=fields(action="drain_started", jobs=len(self._jobs)))
        with contextlib.suppress(Unavailable):  # then the open claims end by themselves, a long poll later
            await self._store.withdraw(self._owner)
        await self._settle(self._config.drain_s)
        for task in (*self._loops, *self._jobs):
            task.cancel()
        await self._settle(None)
        log.info("drained", extra=fields(action="drain_ended", seconds=round(time.monotonic() - began, 1)))

    async def _settle(self, timeout_s: float | None) -> None:
        tasks = {*self._loops, *self._jobs}
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    async def _fill_slot(self) -> None:
        while not self._draining.is_set():
            await self._room.acquire()
            job = await self._claim()
            if job is None:
                self._room.release()
            else:
                await self._run(job)

    async def _claim(self) -> Job | None:
        claim = Claim(str(uuid4()), self._pool, self._owner, self._capabilities, self._config.claim_wait_s)
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
        task.add_done_callback(self._ended)
        waiter = asyncio.get_running_loop().create_task(computed.wait())
        try:
            await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        self._room.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a job's run broke", exc_info=error, extra=fields(action="run_broke"))


def _replica_name() -> str:
    """Return a name that no other replica has: Serve's where there is one."""
    try:
        return serve.get_replica_context().replica_id.unique_id
    except RayServeException:
        return f"{socket.gethostname()}-{os.getpid()}"
