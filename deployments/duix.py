"""The Duix box: drives lip-sync services for the face2face jobs that it claims."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray.serve.handle import DeploymentHandle

from deployments.duix_bridge.config import DuixConfig
from deployments.duix_bridge.engine import DuixEngine
from deployments.duix_bridge.upstreams import Upstreams
from deployments.engines.face2face.config import Face2FaceConfig
from deployments.jobs.ports import SystemClock
from deployments.metrics import ServeMetrics
from deployments.worker import Worker, WorkerSetup, build_worker


class DuixSetup(BaseModel):
    """What the bridge is bound with, besides what every worker is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: DuixConfig
    media: Face2FaceConfig


class Duix:
    """Runs face2face jobs on Duix services."""

    _worker: Worker | None = None
    _upstreams: Upstreams | None = None

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, setup: WorkerSetup, duix: DuixSetup, uploader: DeploymentHandle[Any]
    ) -> None:
        """Look for the services and start claiming.

        Raises:
            ValueError: a data folder is not there.
            Unavailable: this machine does not see the object store.
        """
        clock = SystemClock()
        self._upstreams = Upstreams(duix.config, ServeMetrics(), clock)
        engine = DuixEngine(self._upstreams, duix.config, duix.media, clock)
        orphans = partial(self._upstreams.remove_orphans, setup.sweep.max_age_s)
        self._worker = await build_worker(setup, engine, self._upstreams, uploader, {"duix": orphans})
        await self._upstreams.start()
        self._worker.start()

    async def check_health(self) -> None:
        """Fail when this replica would never take a job again. A service that is down is no reason: another replica could not mend it."""
        if self._worker is not None:
            self._worker.check()
        if self._upstreams is not None:
            self._upstreams.check()

    async def __del__(self) -> None:  # Serve awaits it when it stops the replica, for graceful_shutdown_timeout_s at most
        if self._worker is not None:  # None: the constructor failed
            await self._worker.drain()
        if self._upstreams is not None:
            await self._upstreams.close()
