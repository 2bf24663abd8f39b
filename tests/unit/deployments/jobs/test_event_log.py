"""The ring of events and its readers."""

from __future__ import annotations

import asyncio

from deployments.jobs.event_log import EventLog
from deployments.jobs.events import EventId, EventType, JobEvent
from deployments.jobs.model import JobStatus, Progress, Stage

START = EventId(7, 0)


def event(n: int, type_: EventType = EventType.STATE, job: str = "a") -> JobEvent:
    progress = Progress(Stage.COMPUTING, n / 100) if type_ is EventType.PROGRESS else None
    return JobEvent(EventId(7, n), type_, job, "default", 0.0, JobStatus.RUNNING, 1, progress)


async def test_read_returns_what_came_after():
    log = EventLog(7, START, 10)
    log.extend([event(1), event(2), event(3)])
    batch = await log.read(EventId(7, 1), 0)
    assert ([e.id.n for e in batch.events], batch.last_id, batch.gap) == ([2, 3], EventId(7, 3), False)


async def test_a_reader_that_the_ring_has_passed_gets_a_gap():
    log = EventLog(7, START, 3)
    log.extend([event(n) for n in range(1, 6)])
    assert (await log.read(EventId(7, 1), 0)).gap
    batch = await log.read(EventId(7, 2), 0)
    assert ([e.id.n for e in batch.events], batch.gap) == ([3, 4, 5], False)


async def test_an_id_from_the_future_is_a_gap():
    assert (await EventLog(7, START, 3).read(EventId(7, 9), 0)).gap


async def test_progress_is_only_the_newest_of_its_job_and_none_after_a_state():
    log = EventLog(7, START, 20)
    p = EventType.PROGRESS
    log.extend([event(1, p, "a"), event(2, p, "b"), event(3, p, "a"), event(4, EventType.STATE, "b"), event(5, p, "a")])
    batch = await log.read(START, 0)
    assert [(e.id.n, e.job_id) for e in batch.events] == [(4, "b"), (5, "a")]


async def test_every_waiting_reader_is_woken():
    log = EventLog(7, START, 10)
    readers = [asyncio.create_task(log.read(START, 30)) for _ in range(3)]
    await asyncio.sleep(0)
    log.extend([event(1)])
    batches = await asyncio.wait_for(asyncio.gather(*readers), 5)
    assert [[e.id.n for e in b.events] for b in batches] == [[1]] * 3
