"""The job store as a Ray actor: one process, pinned to the head node, restarted for ever.

All its methods share one event loop. It has no concurrency groups on purpose: Ray gives each group of an async actor an event loop of
its own, and the store's futures and events belong to one.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from deployments.jobs.config import StoreConfig
from deployments.jobs.errors import StoreUnavailable
from deployments.jobs.logs import fields, get_logger, log_to_stderr
from deployments.jobs.store import SqlJobStore
from deployments.metrics import ServeMetrics

log = get_logger(__name__)

ACTOR_NAME = "job_store"
NAMESPACE = "atelier"

# Long polls of idle replicas and event feeds lie in the actor side by side; Ray's default of 1000 would block the heartbeats behind them.
MAX_CONCURRENCY = 10_000
START_RETRY_S = 2.0


class JobStoreActor(SqlJobStore):
    """The store's process. Ray awaits the constructor, so the first call finds an open database."""

    async def __init__(self, config: StoreConfig, fingerprint: str) -> None:  # type: ignore[misc]  # Ray awaits it
        """Open the store.

        Args:
            config: of the store.
            fingerprint: of the code and the config that made this actor, see :func:`fingerprint_of`.
        """
        log_to_stderr()
        super().__init__(config, metrics=ServeMetrics())
        self._fingerprint = fingerprint
        while True:
            try:
                await self.start()
            except StoreUnavailable as error:
                # Ray does not restart an actor whose constructor failed, and a full disk or a database that restarts passes.
                log.warning("the job store cannot open its database", extra=fields(action="store_start_failed", reason=str(error)))
                await asyncio.sleep(START_RETRY_S)
            else:
                return

    async def fingerprint(self) -> str:
        """Say which code and config this actor runs: a detached actor outlives the deployment that made it."""
        return self._fingerprint


def fingerprint_of(config: StoreConfig) -> str:
    """Return a hash of the job system's source files and the store's config."""
    digest = hashlib.sha256(config.model_dump_json().encode())
    here = Path(__file__)
    for source in (here, here.with_name("metrics.py"), *sorted((here.parent / "jobs").rglob("*.py"))):
        digest.update(source.read_bytes())
    return digest.hexdigest()
