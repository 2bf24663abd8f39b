"""The newest events in memory, and waiting for the next."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

from deployments.jobs.events import EventBatch, EventId, EventType, JobEvent

BATCH_EVENTS = 1000  # of one answer: a reader that is far behind comes again, and no reply grows without bound


class EventLog:
    """A ring of events in the order of their ids, read by position."""

    def __init__(self, epoch: int, start: EventId, capacity: int) -> None:
        """Start empty.

        Args:
            epoch: of this store.
            start: the id after which this ring begins.
            capacity: events kept; a reader further behind gets ``gap``.
        """
        self._epoch = epoch
        self._ring: deque[JobEvent] = deque(maxlen=capacity)
        self._before = start  # the id just before the oldest event in the ring
        self._last = start
        self._news = asyncio.Event()  # a fresh one after each arrival, so that no reader can clear another's wake-up

    def extend(self, events: Sequence[JobEvent]) -> None:
        """Append events and wake the readers."""
        for event in events:
            if len(self._ring) == self._ring.maxlen:
                self._before = self._ring[0].id
            self._ring.append(event)
            self._last = event.id
        if events:
            news, self._news = self._news, asyncio.Event()
            news.set()

    def forget(self, now: EventId) -> None:
        """Let every reader find a gap and read the snapshots again: events may be missing here.

        Args:
            now: a fresh number, above all that were given.
        """
        self._ring.clear()
        self._before = self._last = now
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def read(self, after: EventId | None, wait_s: float) -> EventBatch:
        """Return the events after an id, waiting up to ``wait_s`` for the first; progress only as the newest of its job."""
        if after is None:
            return EventBatch((), self._last, gap=False)
        if after.epoch != self._epoch or after < self._before or after > self._last:
            return EventBatch((), self._last, gap=True)
        if after == self._last:
            # Not wait_for: on Python 3.11 it may swallow a cancellation that comes together with the event. The same wherever we wait.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
        return self._batch(after)

    def _batch(self, after: EventId) -> EventBatch:
        if after < self._before:
            return EventBatch((), self._last, gap=True)
        fresh = self._newest_first(after)
        fresh.reverse()
        chosen = fresh[:BATCH_EVENTS]
        last = chosen[-1].id if chosen else after
        newest = {event.job_id: event.id for event in chosen}
        kept = tuple(e for e in chosen if e.type is EventType.STATE or newest[e.job_id] == e.id)
        return EventBatch(kept, last, gap=False)

    def _newest_first(self, after: EventId) -> list[JobEvent]:
        found: list[JobEvent] = []
        for event in reversed(self._ring):
            if event.id <= after:
                break
            found.append(event)
        return found
