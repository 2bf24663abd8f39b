"""Looks now and then whether the object store still takes and gives, so that people hear of it before their jobs do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from deployments.jobs.errors import ServiceError
from deployments.jobs.logs import fields, get_logger

log = get_logger(__name__)

PERIOD_S = 300.0  # three requests each: some cents a month where a cloud counts them
PERIOD_AWAY_S = 15.0


class ObjectStoreWatch:
    """Checks in the background; what it has found last costs nothing to ask for."""

    def __init__(
        self, provider: str, check: Callable[[], Awaitable[object]], period_s: float = PERIOD_S, period_away_s: float = PERIOD_AWAY_S
    ) -> None:
        """Take the parts; the store counts as checked now.

        Args:
            provider: kind of store, for people.
            check: raises what is wrong.
            period_s: pause after a good check.
            period_away_s: pause after a bad one.
        """
        self.provider = provider
        self.problem: str | None = None
        self.checked_at = time.time()
        self._check = check
        self._period_s, self._period_away_s = period_s, period_away_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._look_forever(), name="object-store-watch")

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(self._period_s if self.problem is None else self._period_away_s)
            before = self.problem
            try:
                await self._check()
            except ServiceError as error:
                self.problem = str(error)
            except Exception as error:  # whatever it is, the watch goes on
                log.exception("object store check broke", extra=fields(action="object_store_check_broke"))
                self.problem = f"the check broke ({type(error).__name__}): the ingress' log says where"
            else:
                self.problem = None
            self.checked_at = time.time()
            if self.problem != before:
                level = log.info if self.problem is None else log.warning
                level("object store", extra=fields(action="object_store", provider=self.provider, problem=self.problem))
