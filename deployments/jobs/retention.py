"""How long jobs and files are kept, and who removes them.

What is too old is forgotten in one transaction, which also writes down the keys of the objects that are left over. Those are deleted
afterwards, and struck off when they are gone: whatever breaks in between, an accepted job never finds its input missing, and no object
is left that nobody knows of.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from deployments.jobs.errors import Unavailable
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.ports import Uploader

log = get_logger(__name__)

A_SWEEP = 200  # rows of one transaction: others wait for it
DELETES_AT_ONCE = 8


class RetentionConfig(BaseModel):
    """What is removed by age."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    jobs_s: float | None = Field(
        None,
        ge=3600,
        description="seconds after which an ended job is forgotten with its results; not set: never, as no service may guess "
        "how long people need them",
    )
    uploads_s: float | None = Field(
        None, ge=3600, description="seconds after which an upload is removed that no waiting or running job names; not set: never"
    )
    sweep_s: float = Field(600.0, gt=0, description="seconds between two looks")


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What one transaction has forgotten."""

    jobs: int
    files: int  # results and uploads
    size_bytes: int


class RetentionStore(Protocol):
    """The part of the job store that forgets."""

    async def forget_old(self, jobs_before: float | None, uploads_before: float | None, limit: int) -> Forgotten:
        """Forget the oldest jobs and uploads, and write down the keys of their objects.

        Args:
            jobs_before: jobs that ended before, but for those of drawing sessions, which have their own rules.
            uploads_before: uploads from before. A file that a waiting or running job names is kept, and so is the job that made it.
            limit: how many of each.
        """

    async def left_over(self, limit: int) -> tuple[str, ...]:
        """Return keys of objects that nothing names any more."""

    async def strike_off(self, keys: Sequence[str]) -> None:
        """Take note that objects are gone."""


class Janitor:
    """Removes what is too old. Several may at once: each step is safe to repeat."""

    def __init__(self, store: RetentionStore, uploader: Uploader, config: RetentionConfig) -> None:
        self._store = store
        self._uploader = uploader
        self._config = config
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to sweep; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._sweep_forever(), name="janitor")

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def sweep(self) -> None:
        """Forget all that is too old and delete its objects.

        Raises:
            Unavailable: a store is away; the next sweep goes on.
        """
        now = time.time()
        jobs_before, uploads_before = (age and now - age for age in (self._config.jobs_s, self._config.uploads_s))
        if jobs_before is not None or uploads_before is not None:
            while (gone := await self._store.forget_old(jobs_before, uploads_before, A_SWEEP)).jobs + gone.files:
                counts = {"jobs": gone.jobs, "files": gone.files, "size_bytes": gone.size_bytes}
                log.info("old jobs and files forgotten", extra=fields(action="retention", **counts))
        while keys := await self._store.left_over(A_SWEEP):
            room = asyncio.Semaphore(DELETES_AT_ONCE)
            async with asyncio.TaskGroup() as deleting:
                for key in keys:
                    deleting.create_task(self._delete(key, room))
            await self._store.strike_off(keys)

    async def _delete(self, key: str, room: asyncio.Semaphore) -> None:
        async with room:
            await self._uploader.delete(key)

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(self._config.sweep_s)
            try:
                await self.sweep()
            except* Unavailable as away:
                log.warning("sweep put off", extra=fields(action="retention_put_off", reason=str(away.exceptions[0])))
            except* Exception as broken:
                log.exception("sweep failed", extra=fields(action="retention_failed", reason=repr(broken.exceptions[0])))
