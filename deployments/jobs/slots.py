"""How many jobs a replica computes at once: a number, where the engine runs inside it."""

from __future__ import annotations

import asyncio


class FixedSlots:
    """Implements :class:`deployments.jobs.ports.Slots` with a number that never changes."""

    def __init__(self, size: int, capabilities: frozenset[str]) -> None:
        self.size = size
        self._free = asyncio.Semaphore(size)
        self._capabilities = capabilities

    async def take(self) -> frozenset[str]:
        """See the port."""
        await self._free.acquire()
        return self._capabilities

    def give_back(self) -> None:
        """See the port."""
        self._free.release()
