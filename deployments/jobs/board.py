"""What the job store knows in memory: who runs, who waits for work, who listens.

It follows the disk: the database tells it of every commit, on the event loop, whatever became of the caller whose operation that was.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from deployments.jobs.config import StoreConfig
from deployments.jobs.event_log import EventLog
from deployments.jobs.events import EventBatch, EventId, EventType, JobEvent
from deployments.jobs.leases import Leases
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import Job, JobStatus, Progress, Verdict
from deployments.jobs.ports import Clock, Metrics
from deployments.jobs.preview_board import PreviewBoard

log = get_logger(__name__)


class EventNumbers(Protocol):
    """The giver of event ids, which is the database."""

    epoch: int

    @property
    def committing(self) -> bool:
        """Whether a transaction has taken numbers that it has not told yet."""

    @property
    def last_event_id(self) -> EventId:
        """The newest number given."""

    def next_event_id(self) -> EventId:
        """Take a number; not while ``committing``."""


class Board:
    """Leases, arrivals, events and previews of one store. Used from one event loop."""

    def __init__(self, config: StoreConfig, clock: Clock, metrics: Metrics) -> None:
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self.leases = Leases(config.lease_s)
        self.previews = PreviewBoard(self.leases, clock)
        self.pools: set[str] = set()
        self.in_doubt = False  # whether a transaction broke and the rows must be looked at
        self._events = EventLog(0, EventId(0, 0), config.events_kept)
        self._held_back: dict[str, tuple[Job, Progress]] = {}  # progress that came while a commit held the event numbers
        self._arrivals: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._numbers: EventNumbers | None = None

    def open(self, numbers: EventNumbers, running: Iterable[Job]) -> None:
        """Begin: take event numbers from the database and give the jobs that run a fresh lease."""
        self._numbers = numbers
        self._events = EventLog(numbers.epoch, numbers.last_event_id, self._config.events_kept)
        self.previews.open(numbers.epoch)
        self.reconcile(running)

    # What the disk says.

    def committed(self, events: Sequence[JobEvent]) -> None:
        """Publish the events of a commit, and the progress that waited for its end."""
        held, self._held_back = self._held_back, {}
        self._events.extend([*events, *(self._progress_event(job, progress) for job, progress in held.values())])

    def doubt(self) -> None:
        """A transaction broke, and may or may not be on disk: readers look at the rows again, and so does the next sweep."""
        self.in_doubt = True
        self._events.forget(self._give_number())

    def reconcile(self, running: Iterable[Job]) -> None:
        """Make the leases those of the rows that run."""
        now, rows = self._clock.monotonic(), {job.id: job for job in running}
        for lease in self.leases:
            if lease.job.id not in rows or rows[lease.job.id].attempt != lease.job.attempt:
                self.end_lease(lease.job.id)
        for job in rows.values():
            self.pools.add(job.pool)
            if self.leases.get(job.id) is None:
                self.leases.restore(job, now, max(0.0, self._clock.time() - (job.started_at or self._clock.time())))
        self.in_doubt = False

    def arrived(self, job: Job) -> None:
        """A job was accepted."""
        self.pools.add(job.pool)
        self.wake(job.pool)
        self._metrics.count("jobs_created", pool=job.pool, kind=job.kind)

    def moved(self, job: Job) -> None:
        """A job made a transition."""
        if job.status is JobStatus.RUNNING:
            self._begun(job)
            return
        self.end_lease(job.id)
        self._held_back.pop(job.id, None)  # no progress after the end
        if job.attempts:
            self._ended(job)
        if job.status is JobStatus.QUEUED or job.coalesce_key is not None:  # its end lets the newest of its session leave
            self.wake(job.pool)

    def end_lease(self, job_id: str) -> None:
        """Forget what belonged to an attempt that runs no more."""
        self.leases.drop(job_id)
        self.previews.drop(job_id)

    # What workers and readers ask.

    def arrival(self, pool: str) -> asyncio.Event:
        """Return the event that the next arrival in a pool sets. Take it before looking at the queue."""
        return self._arrivals[pool]

    def wake(self, pool: str) -> None:
        """Let the claims that wait for a pool look again."""
        # A fresh event after each arrival: a waiter that was about to wait still holds the one that is set.
        self._arrivals.pop(pool, asyncio.Event()).set()

    def wake_all(self) -> None:
        """Let every waiting claim look again."""
        for pool in list(self._arrivals):
            self.wake(pool)

    def heartbeat(self, job_id: str, attempt: int, progress: Progress | None) -> Verdict:
        """Renew a lease and tell the readers of new progress."""
        now = self._clock.monotonic()
        verdict = self.leases.renew(job_id, attempt, now)
        lease = self.leases.get(job_id)
        if verdict is Verdict.LOST or lease is None:
            self._metrics.count("heartbeats_refused")
            return Verdict.LOST
        if progress is not None and self.leases.advance(job_id, progress, now):
            self._announce(lease.job, progress)
        return verdict

    def shown(self, job: Job) -> Job:
        """Return a job as read from the disk with what only memory knows: its progress and its deadline."""
        lease = self.leases.get(job.id)
        if lease is None or job.status is not JobStatus.RUNNING:
            return job
        lease_until = self._clock.time() + self._config.lease_s - (self._clock.monotonic() - lease.renewed)
        return replace(job, progress=lease.progress, lease_until=lease_until)

    async def events(self, after: EventId | None, wait_s: float) -> EventBatch:
        """Read the event feed."""
        return await self._events.read(after, wait_s)

    def _begun(self, job: Job) -> None:
        self.leases.grant(job, self._clock.monotonic())
        self._metrics.count("attempts_started", pool=job.pool)
        if job.attempt == 1:
            self._metrics.observe("job_wait_s", self._clock.time() - job.created_at, pool=job.pool)

    def _ended(self, job: Job) -> None:
        outcome = job.attempts[-1].outcome
        self._metrics.count("attempts_ended", pool=job.pool, outcome=outcome)
        log.info(
            "attempt ended", extra=fields(action="attempt_ended", job_id=job.id, attempt=job.attempt, outcome=outcome, status=job.status)
        )

    def _announce(self, job: Job, progress: Progress) -> None:
        if self._numbers is not None and self._numbers.committing:
            self._held_back[job.id] = (job, progress)
        else:
            self._events.extend([self._progress_event(job, progress)])

    def _progress_event(self, job: Job, progress: Progress) -> JobEvent:
        return JobEvent(
            id=self._give_number(),
            type=EventType.PROGRESS,
            job_id=job.id,
            tenant=job.tenant,
            at=self._clock.time(),
            status=JobStatus.RUNNING,
            attempt=job.attempt,
            progress=progress,
            coalesce_key=job.coalesce_key,
            coalesce_seq=job.coalesce_seq,
        )

    def _give_number(self) -> EventId:
        assert self._numbers is not None, "open() comes first"
        return self._numbers.next_event_id()
