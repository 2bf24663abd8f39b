"""The job store's part about sessions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from deployments.jobs import queries, session_table, transitions
from deployments.jobs.admission import Admission
from deployments.jobs.board import Board
from deployments.jobs.config import StoreConfig
from deployments.jobs.database import Database, Transaction
from deployments.jobs.errors import QueueFull, SessionsFull
from deployments.jobs.model import FileRecord, Job, JobStatus, NewJob
from deployments.jobs.ports import Clock, Metrics
from deployments.jobs.sessions import ExpiredJobs, Latest, SessionState, Strokes
from deployments.jobs.stroke_log import StrokeLog


class SessionShelf(ABC):
    """The part of the job store that implements :class:`deployments.jobs.sessions.SessionStore`."""

    _config: StoreConfig
    _clock: Clock
    _metrics: Metrics
    _db: Database
    _board: Board
    _admission: Admission
    _strokes: StrokeLog

    async def create_latest(self, new: NewJob, file: FileRecord, interrupt_after_s: float | None) -> Latest:
        """See :meth:`deployments.jobs.sessions.SessionStore.create_latest`."""
        assert new.coalesce_key is not None, "a request of a session names it"
        place = self._admission.enter((new.tenant, new.coalesce_key), self._clock.monotonic())
        if place:
            raise SessionsFull(place)
        return await self._db.write(lambda tx: self._put_latest(tx, new, file, interrupt_after_s))

    async def session(self, tenant: str, key: str) -> SessionState:
        """See :meth:`deployments.jobs.sessions.SessionStore.session`."""
        state = await self._db.read(lambda c: session_table.select_state(c, tenant, key))
        return replace(state, pending=tuple(self._board.shown(job) for job in state.pending))

    async def expired_jobs(self, rows_before: float, results_before: float, limit: int) -> ExpiredJobs:
        """See :meth:`deployments.jobs.sessions.SessionStore.expired_jobs`."""
        return await self._db.read(lambda c: session_table.select_expired(c, rows_before, results_before, limit))

    async def forget_jobs(self, job_ids: Sequence[str]) -> None:
        """See :meth:`deployments.jobs.sessions.SessionStore.forget_jobs`."""
        await self._db.write(lambda tx: session_table.delete_jobs(tx.connection, job_ids))

    async def report_strokes(self, strokes: Strokes) -> None:
        """See :meth:`deployments.jobs.sessions.SessionStore.report_strokes`."""
        self._strokes.add(strokes)
        for outcome in ("received", "dropped", "skipped", "refused"):
            if count := getattr(strokes, outcome):
                self._metrics.count("sketches", count, outcome=outcome)
        for name in ("to_preview_s", "to_result_s"):
            for seconds in getattr(strokes, name):
                self._metrics.observe(f"stroke_{name}", seconds)

    def _put_latest(self, tx: Transaction, new: NewJob, file: FileRecord, interrupt_after_s: float | None) -> Latest:
        tenant, key = new.tenant, new.coalesce_key or ""
        found = session_table.select_newest(tx.connection, tenant, key)
        newest_seq = 0
        if found is not None:
            newest, fingerprint = found
            newest_seq = newest.coalesce_seq or 0
            if fingerprint == new.fingerprint:  # the same call again: its answer got lost
                return Latest(newest, newest_seq)
        if new.coalesce_seq is not None and new.coalesce_seq <= newest_seq:
            return Latest(None, newest_seq)
        new = new if new.coalesce_seq is not None else replace(new, coalesce_seq=newest_seq + 1)
        pending = session_table.select_pending(tx.connection, tenant, key)
        self._interrupt(tx, pending, interrupt_after_s)
        waiting = next((job for job in pending if job.status is JobStatus.QUEUED), None)
        if waiting is not None and waiting.attempt == 0:
            dropped = session_table.overwrite(tx.connection, waiting, new, replace(file, job_id=waiting.id))
            job, ahead = queries.select_job(tx.connection, tenant, waiting.id), queries.count_ahead(tx.connection, waiting, tx.now)
            return Latest(job, new.coalesce_seq or 0, dropped, replaced=True, ahead=ahead)
        if waiting is not None:  # it ran before and waits for its next attempt: a history that is not this request's
            self._apply(tx, transitions.cancel(waiting, now=tx.now))
        elif queries.count_queued(tx.connection, new.pool) >= self._config.max_queued:
            raise QueueFull(new.pool, self._config.max_queued, retry_after_s=10)
        job = session_table.insert_latest(tx.connection, new, replace(file, job_id=new.id), tx.now)
        tx.emit(job)
        tx.after_commit(partial(self._board.arrived, job))
        ahead = queries.count_ahead(tx.connection, job, tx.now)
        return Latest(job, new.coalesce_seq or 0, replaced=waiting is not None, ahead=ahead)

    def _interrupt(self, tx: Transaction, pending: Sequence[Job], after_s: float | None) -> None:
        running = next((job for job in pending if job.status is JobStatus.RUNNING), None)
        if running is None or after_s is None or running.coalesce_key is None or tx.now - (running.started_at or tx.now) < after_s:
            return
        before = session_table.select_ended(tx.connection, running.tenant, running.coalesce_key)
        if before is None or before.status is not JobStatus.CANCELLED:
            self._cancel(tx, running)

    @abstractmethod
    def _apply(self, tx: Transaction, job: Job) -> Job:
        """Write a move."""

    @abstractmethod
    def _cancel(self, tx: Transaction, job: Job) -> Job:
        """Cancel a job, or ask the worker that runs it to stop."""
