"""The face2face box: builds the engine on its GPU share, hands it to a worker, tells the truth about both."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.engines.face2face.config import Face2FaceConfig
from deployments.engines.face2face.engine import Face2FaceEngine
from deployments.engines.models import load_manifest
from deployments.jobs.slots import FixedSlots
from deployments.jobs.threads import ThreadedEngine
from deployments.worker import Worker, WorkerSetup, build_worker

CAPABILITIES = frozenset({"mesh"})


class Face2Face:
    """Runs face2face and reference jobs."""

    _worker: Worker | None = None

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, setup: WorkerSetup, config: Face2FaceConfig, manifest: Path, uploader: DeploymentHandle[Any]
    ) -> None:
        """Load the models and start claiming.

        Raises:
            EngineFailed: the models do not load on the configured device.
            Unavailable: this machine does not see the object store.
        """
        engine = Face2FaceEngine.load(config, load_manifest(manifest))
        slots = setup.worker.slots
        threaded = ThreadedEngine(engine, ThreadPoolExecutor(slots, "engine"))
        worker = await build_worker(setup, threaded, FixedSlots(slots, CAPABILITIES), uploader)
        worker.start()
        self._worker = worker

    async def check_health(self) -> None:
        """Fail when this replica would never take a job again."""
        if self._worker is not None:
            self._worker.check()

    async def __del__(self) -> None:  # Serve awaits it when it stops the replica, for graceful_shutdown_timeout_s at most
        if self._worker is not None:  # None: the constructor failed
            await self._worker.drain()
