"""A worker box around an engine that computes in this process: the face boxes are this and the name of their engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.engines.models import ModelInfo, load_manifest
from deployments.jobs.ports import Engine
from deployments.jobs.slots import FixedSlots
from deployments.jobs.threads import ThreadedEngine
from deployments.worker import Worker, WorkerSetup, build_worker


class EngineBox(ABC):
    """Builds the engine on its GPU share, hands it to a worker, tells the truth about both."""

    _worker: Worker | None = None

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        setup: WorkerSetup,
        config: Any,  # noqa: ANN401 -- the engine's own
        manifest: Path,
        uploader: DeploymentHandle[Any],
    ) -> None:
        """Load the models and start claiming.

        Raises:
            EngineFailed: the models do not load on the configured device.
            Unavailable: this machine does not see the object store.
        """
        engine = self.load(config, load_manifest(manifest))
        slots = setup.worker.slots
        threaded = ThreadedEngine(engine, ThreadPoolExecutor(slots, "engine"))
        worker = await build_worker(setup, threaded, FixedSlots(slots, self.offers(config)), uploader)
        worker.start()
        self._worker = worker

    @staticmethod
    @abstractmethod
    def load(config: Any, models: Sequence[ModelInfo]) -> Engine:  # noqa: ANN401 -- same
        """Open the engine."""

    @staticmethod
    @abstractmethod
    def offers(config: Any) -> frozenset[str]:  # noqa: ANN401 -- same
        """Return what a job may require of the engine."""

    async def check_health(self) -> None:
        """Fail when this replica would never take a job again."""
        if self._worker is not None:
            self._worker.check()

    async def __del__(self) -> None:  # Serve awaits it when it stops the replica, for graceful_shutdown_timeout_s at most
        if self._worker is not None:  # None: the constructor failed
            await self._worker.drain()
