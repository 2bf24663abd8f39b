"""The ComfyUI box: drives ComfyUI servers for the jobs that it claims, or one that it starts itself."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from ray.serve.handle import DeploymentHandle

from deployments.comfyui_bridge.config import ComfyConfig
from deployments.comfyui_bridge.engine import BridgeEngine
from deployments.comfyui_bridge.fleet import Fleet
from deployments.comfyui_bridge.managed import ManagedServer, OwnServer
from deployments.engines.media.limits import MediaLimits
from deployments.handles import StoreHandle
from deployments.worker import Worker, WorkerSetup, build_worker, replica_name


class BridgeSetup(BaseModel):
    """What the bridge is bound with, besides what every worker is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: ComfyConfig
    limits: MediaLimits
    lease_s: float


class ComfyUI:
    """Runs workflows on ComfyUI servers."""

    _worker: Worker | None = None
    _fleet: Fleet | None = None
    _server: ManagedServer | None = None

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, setup: WorkerSetup, bridge: BridgeSetup, uploader: DeploymentHandle[Any]
    ) -> None:
        """Take hold of backends and start claiming; in managed mode, start one first.

        Raises:
            EngineFailed: the managed ComfyUI does not start.
            Unavailable: this machine does not see the object store.
        """
        owner = replica_name()
        managed = bridge.config.managed
        self._server = ManagedServer(managed, owner) if managed.enabled else None
        if self._server is not None:
            await self._server.start()
        registry = StoreHandle() if self._server is None else OwnServer(self._server, managed.tags, StoreHandle())
        self._fleet = Fleet(registry, owner, bridge.config, bridge.lease_s)
        engine = BridgeEngine(self._fleet, bridge.config, bridge.limits)
        self._worker = await build_worker(setup, engine, self._fleet, uploader)
        self._fleet.start()
        self._worker.start()

    async def check_health(self) -> None:
        """Fail when this replica would never take a job again. A backend that is down is no reason: another replica could not mend it."""
        if self._worker is not None:
            self._worker.check()
        if self._fleet is not None:
            self._fleet.check()
        if self._server is not None:
            self._server.check()

    async def __del__(self) -> None:  # Serve awaits it when it stops the replica, for graceful_shutdown_timeout_s at most
        if self._worker is not None:  # None: the constructor failed
            await self._worker.drain()
        if self._fleet is not None:
            await self._fleet.close()
        if self._server is not None:
            await self._server.stop()
