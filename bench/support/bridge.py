"""The ComfyUI bridge in this process: its real parts from the job store to the object store, and neither Ray nor HTTP before it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from bench.support.comfy import Graph
from deployments.comfyui_bridge.config import ComfyConfig, parse_backend
from deployments.comfyui_bridge.engine import BridgeEngine
from deployments.comfyui_bridge.fleet import Fleet
from deployments.comfyui_bridge.stored_spec import StoredSpec
from deployments.engines.media.limits import MediaLimits
from deployments.jobs.config import RunnerConfig, StoreConfig, WorkerConfig
from deployments.jobs.events import EventBatch
from deployments.jobs.model import JobStatus, NewJob
from deployments.jobs.ports import NoMetrics
from deployments.jobs.runner import JobRunner
from deployments.jobs.store import SqlJobStore
from deployments.storage.fetch import FetchConfig
from deployments.storage.inputs import InputCache, InputCacheConfig
from deployments.storage.local import LocalStore
from deployments.storage.sources import InputSources
from deployments.storage.upload import upload_file
from deployments.storage.work_folder import WorkFolder
from deployments.worker import Worker

OWNER = "bench"
POLL_S = 5.0


class BridgeAlone:
    """Runs jobs by the store, as a client of the application would through it."""

    def __init__(self, store: SqlJobStore) -> None:
        self._store = store
        self._ends: dict[str, asyncio.Future[None]] = {}

    async def run(self, graph: Graph) -> None:
        """Run one job until its outputs are in the object store.

        Raises:
            RuntimeError: it did not succeed.
        """
        job_id = str(uuid.uuid4())
        self._ends[job_id] = asyncio.get_running_loop().create_future()
        spec = StoredSpec(graph=graph).model_dump(mode="json", exclude_none=True)
        await self._store.create(NewJob(job_id, "comfyui", "comfyui", spec, fingerprint="bench"))
        await self._ends[job_id]

    async def listen(self, batch: EventBatch) -> None:
        """Hear which jobs have ended after a batch of events."""
        while True:
            batch = await self._store.events(batch.last_id, POLL_S)
            for event in batch.events:
                if event.terminal and event.job_id in self._ends:
                    end = self._ends.pop(event.job_id)
                    if event.status is JobStatus.SUCCEEDED:
                        end.set_result(None)
                    else:
                        end.set_exception(RuntimeError(f"job {event.job_id} {event.status}: {event.error}"))


@contextlib.asynccontextmanager
async def bridge_alone(folder: Path, backends: Sequence[str]) -> AsyncIterator[BridgeAlone]:
    """Drive backends from this process.

    Args:
        folder: for the database, the work folder and the object store; a new one.
        backends: URLs.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    folder.mkdir()
    store = SqlJobStore(StoreConfig(database_url=f"sqlite:///{folder}/jobs.db"))
    await store.start()
    await store.configure_backends([parse_backend(url) for url in backends])
    config = ComfyConfig(client_id_prefix=f"bench-{uuid.uuid4().hex[:8]}")  # another bridge on the server would be cleaned away
    fleet = Fleet(store, OWNER, config, StoreConfig.model_fields["lease_s"].default)
    worker = _build_worker(folder, store, fleet, config)
    bridge = BridgeAlone(store)
    listening = asyncio.create_task(bridge.listen(await store.events(None, 0)))
    fleet.start()
    worker.start()
    try:
        yield bridge
    finally:
        listening.cancel()
        await asyncio.wait({listening})
        await worker.drain()
        await fleet.close()
        await store.close()


def _build_worker(folder: Path, store: SqlJobStore, fleet: Fleet, config: ComfyConfig) -> Worker:
    objects = LocalStore(folder / "objects")
    inputs = InputCacheConfig(root=folder / "inputs")
    runner = JobRunner(
        store=store,
        previews=store,
        inputs=InputCache(inputs, sources=InputSources(FetchConfig()), store=store, reader=objects),
        uploader=objects,
        upload_file=upload_file,
        engine=BridgeEngine(fleet, config, MediaLimits()),
        work_folder=WorkFolder(folder / "work", OWNER),
        config=RunnerConfig(),
        metrics=NoMetrics(),
    )
    return Worker(store=store, runner=runner, pool="comfyui", owner=OWNER, slots=fleet, config=WorkerConfig())
