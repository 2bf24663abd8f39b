"""How many jobs a replica computes at once: a number, where the engine runs inside it."""

from __future__ import annotations

import asyncio

from deployments.jobs.ports import Slot


class FixedSlots:
    """Implements :class:`deployments.jobs.ports.Slots` with a number that never changes."""

    def __init__(self, size: int, capabilities: frozenset[str]) -> None:
        self._free = asyncio.Semaphore(size)
        self._capabilities = capabilities

    async def take(self) -> Slot:
        """See the port."""
        await self._free.acquire()
        return Slot(self._capabilities, self._free.release)
