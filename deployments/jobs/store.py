"""The job store: every rule about a job's life, over one database and one event log.

It is cache, scheduler and event hub; the database is the truth. The Ray actor around it adds nothing but a process. All methods run
on one event loop; SQL runs in the database's threads.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from deployments.jobs import queries, session_table, transitions
from deployments.jobs.admission import Admission
from deployments.jobs.backend_desk import BackendDesk
from deployments.jobs.backend_leases import BackendWatch
from deployments.jobs.board import Board
from deployments.jobs.claim_turns import ClaimTurns
from deployments.jobs.config import StoreConfig
from deployments.jobs.database import Database, Transaction
from deployments.jobs.errors import (
    JobNotFound,
    JobNotTerminal,
    JobStalled,
    JobTimedOut,
    QueueFull,
    ServiceError,
    StoreSuperseded,
    WorkerLost,
)
from deployments.jobs.events import EventBatch, EventId, JobEvent
from deployments.jobs.file_shelf import FileShelf
from deployments.jobs.leases import Lease
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import (
    Artifact,
    Claim,
    Depth,
    Job,
    JobError,
    JobPage,
    JobQuery,
    JobStatus,
    JsonObject,
    NewJob,
    Preview,
    Progress,
    Repeat,
    ScalingDecision,
    Stats,
    Verdict,
)
from deployments.jobs.ports import Clock, Metrics, NoMetrics, SystemClock
from deployments.jobs.retention_shelf import RetentionShelf
from deployments.jobs.session_shelf import SessionShelf
from deployments.jobs.stroke_log import StrokeLog
from deployments.jobs.tables import file_of_artifact
from deployments.jobs.webhook_shelf import WebhookShelf
from deployments.jobs.workflow_shelf import WorkflowShelf

log = get_logger(__name__)

CANCELLED_AT_ONCE = 500  # in one transaction: a long queue must not hold the others up
DECISIONS_KEPT = 100  # per pool: enough to see the last burst come and go
WITHDRAWN_KEPT = 1000  # draining replicas, whose names never come again; they are gone long before so many others have come


class SqlJobStore(RetentionShelf, WebhookShelf, SessionShelf, FileShelf, WorkflowShelf, BackendDesk):
    """Implements the stores of :mod:`deployments.jobs.ports` over SQLite or PostgreSQL.

    ``JobStore`` and ``Previews`` are here, but for the files; those, ``SessionStore``, ``WorkflowStore``, ``WebhookOutbox``,
    ``RetentionStore`` and ``BackendRegistry`` are inherited, each from a room of its own.
    """

    def __init__(self, config: StoreConfig, clock: Clock | None = None, metrics: Metrics | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._metrics = metrics or NoMetrics()
        self._board = Board(config, self._clock, self._metrics)
        self._db = Database(config.database_url, self._clock, self._board.committed, self._board.doubt)
        self._decisions: dict[str, deque[ScalingDecision]] = defaultdict(lambda: deque(maxlen=DECISIONS_KEPT))
        self._withdrawn: deque[str] = deque(maxlen=WITHDRAWN_KEPT)
        self._backend_watch = BackendWatch(config.lease_s, self._clock.monotonic())
        self._turns = ClaimTurns()
        self._admission = Admission(config.sessions)
        self._strokes = StrokeLog()
        self._webhook_news = asyncio.Event()
        self._webhook_progress: dict[str, float] = {}
        self._webhooks_swept_at = self._clock.monotonic()
        self._swept_at = self._clock.monotonic()
        self._janitor: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the database, give running jobs and held backends a fresh lease, start the janitor.

        Raises:
            StoreUnavailable: the database cannot be opened or another store holds it.
        """
        await self._db.open()
        self._board.open(self._db, await self._db.read(queries.select_running))
        await self._restore_backends()
        self._swept_at = self._clock.monotonic()
        self._janitor = asyncio.get_running_loop().create_task(self._sweep_forever())
        log.info("job store started", extra=fields(action="store_started", epoch=self._db.epoch))

    async def close(self) -> None:
        """Stop the janitor and close the database."""
        if self._janitor is not None:
            self._janitor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._janitor
        await self._db.close()

    # The client's side.

    async def create(self, new: NewJob) -> tuple[Job, bool]:
        """See :meth:`deployments.jobs.ports.JobStore.create`."""

        def operation(tx: Transaction) -> tuple[Job, bool]:
            known = queries.find_repeat(tx.connection, Repeat(new.tenant, new.id, new.idempotency_key, new.fingerprint))
            if known is not None:
                return known, False
            self._admit(new, queries.count_queued(tx.connection, new.pool))
            job = queries.insert_job(tx.connection, new, tx.now)
            tx.emit(job)
            tx.after_commit(partial(self._board.arrived, job))
            return job, True

        job, created = await self._db.write(operation)
        return self._board.shown(job), created

    async def find_repeat(self, repeat: Repeat) -> Job | None:
        """See :meth:`deployments.jobs.ports.JobStore.find_repeat`."""
        job = await self._db.read(lambda c: queries.find_repeat(c, repeat))
        return job and self._board.shown(job)

    async def get(self, tenant: str, job_id: str) -> Job:
        """See :meth:`deployments.jobs.ports.JobStore.get`."""
        return self._board.shown(await self._db.read(lambda c: queries.select_job(c, tenant, job_id)))

    async def list_jobs(self, query: JobQuery) -> JobPage:
        """See :meth:`deployments.jobs.ports.JobStore.list_jobs`."""
        page = await self._db.read(lambda c: queries.select_page(c, query))
        return replace(page, jobs=tuple(self._board.shown(job) for job in page.jobs))

    async def cancel(self, tenant: str, job_id: str) -> Job:
        """See :meth:`deployments.jobs.ports.JobStore.cancel`."""

        def operation(tx: Transaction) -> Job:
            return self._cancel(tx, queries.select_job(tx.connection, tenant, job_id))

        return self._board.shown(await self._db.write(operation))

    async def cancel_all(self, tenant: str, kind: str, status: JobStatus) -> tuple[str, ...]:
        """See :meth:`deployments.jobs.ports.JobStore.cancel_all`."""

        def operation(tx: Transaction) -> list[str]:
            found = queries.select_ids(tx.connection, tenant, kind, status, CANCELLED_AT_ONCE)
            for job_id in found:
                self._cancel(tx, queries.select_job(tx.connection, tenant, job_id))
            return found

        cancelled: list[str] = []
        while some := await self._db.write(operation):
            cancelled += some
        return tuple(cancelled)

    def _cancel(self, tx: Transaction, job: Job) -> Job:
        if job.status.terminal or job.cancel_requested:
            return job
        if job.status is JobStatus.RUNNING:
            job = transitions.request_cancel(job)
            queries.update_job(tx.connection, job)
            tx.after_commit(partial(self._board.leases.request_cancel, job.id))
            return job
        return self._apply(tx, transitions.cancel(job, now=tx.now))

    async def delete(self, tenant: str, job_id: str) -> None:
        """See :meth:`deployments.jobs.ports.JobStore.delete`."""

        def operation(tx: Transaction) -> None:
            job = queries.select_job(tx.connection, tenant, job_id)
            if not job.status.terminal:
                raise JobNotTerminal(job_id, job.status)
            queries.delete_job(tx.connection, job_id)

        await self._db.write(operation)

    async def history(self, tenant: str, job_id: str) -> tuple[JobEvent, ...]:
        """See :meth:`deployments.jobs.ports.JobStore.history`."""
        return await self._db.read(lambda c: queries.select_history(c, tenant, job_id))

    async def events(self, after: EventId | None, wait_s: float) -> EventBatch:
        """See :meth:`deployments.jobs.ports.JobStore.events`."""
        return await self._board.events(after, wait_s)

    # The worker's side.

    async def claim(self, claim: Claim) -> Job | None:
        """See :meth:`deployments.jobs.ports.JobStore.claim`."""
        self._board.pools.add(claim.pool)
        deadline = self._clock.monotonic() + claim.wait_s
        turn, is_first = self._turns.of(claim), True
        while True:
            async with turn.lock:
                arrival = self._board.arrival(claim.pool)
                if claim.owner in self._withdrawn:  # after the arrival was taken, or the wake-up of a withdrawal could be missed
                    break
                # The first look is made in any case: it finds what an earlier call with this claim_id was given.
                if is_first or not turn.is_empty(arrival, self._clock.time()):
                    job, due = await self._db.write(lambda tx: self._take(tx, claim))
                    if job is not None:
                        return job
                    turn.found_nothing(arrival, due)
                is_first, due = False, turn.due
            remaining = deadline - self._clock.monotonic()
            if remaining <= 0:
                break
            until_due = max(0.0, due - self._clock.time()) if due is not None else remaining
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(remaining, until_due)):
                    await arrival.wait()
        return None

    async def heartbeat(self, job_id: str, attempt: int, progress: Progress | None) -> Verdict:
        """See :meth:`deployments.jobs.ports.JobStore.heartbeat`."""
        verdict = self._board.heartbeat(job_id, attempt, progress)
        lease = self._board.leases.get(job_id)
        if progress is not None and verdict is Verdict.OK and lease is not None:
            await self._tell_webhook_progress(lease.job, progress)
        return verdict

    async def finish(
        self, job_id: str, attempt: int, outputs: Sequence[Artifact], timings: Mapping[str, float], facts: JsonObject | None = None
    ) -> Verdict:
        """See :meth:`deployments.jobs.ports.JobStore.finish`."""

        def move(tx: Transaction, job: Job) -> Job:
            return self._publish(tx, transitions.succeed(job, outputs=outputs, timings=timings, now=tx.now, facts=facts))

        return await self._end_attempt(job_id, attempt, JobStatus.SUCCEEDED, move, outputs)

    async def fail(
        self,
        job_id: str,
        attempt: int,
        error: JobError,
        timings: Mapping[str, float],
        outputs: Sequence[Artifact] = (),
        facts: JsonObject | None = None,
    ) -> Verdict:
        """See :meth:`deployments.jobs.ports.JobStore.fail`."""

        def move(tx: Transaction, job: Job) -> Job:
            backoff_s = self._config.retry_backoff_s
            failed = transitions.fail(job, error, timings=timings, now=tx.now, backoff_s=backoff_s, outputs=outputs, facts=facts)
            return self._publish(tx, failed, error)

        return await self._end_attempt(job_id, attempt, error.code, move, outputs)

    async def withdraw(self, owner: str) -> None:
        """See :meth:`deployments.jobs.ports.JobStore.withdraw`."""
        self._withdrawn.append(owner)
        self._board.wake_all()

    async def release(self, job_id: str, attempt: int) -> Verdict:
        """See :meth:`deployments.jobs.ports.JobStore.release`."""

        def move(tx: Transaction, job: Job) -> Job:
            return self._apply(tx, transitions.release(job, now=tx.now))

        return await self._end_attempt(job_id, attempt, transitions.RELEASED, move)

    async def acknowledge_cancel(self, job_id: str, attempt: int) -> Verdict:
        """See :meth:`deployments.jobs.ports.JobStore.acknowledge_cancel`."""

        def move(tx: Transaction, job: Job) -> Job:
            return self._apply(tx, transitions.cancel(job, now=tx.now))

        return await self._end_attempt(job_id, attempt, JobStatus.CANCELLED, move)

    async def put_preview(self, preview: Preview) -> bool:
        """See :meth:`deployments.jobs.ports.Previews.put_preview`."""
        return self._board.previews.put(preview)

    async def previews(self, job_ids: Sequence[str], after: int, wait_s: float) -> tuple[Preview, ...]:
        """See :meth:`deployments.jobs.ports.Previews.previews`."""
        return await self._board.previews.read(job_ids, after, wait_s)

    # The autoscaler's and the operator's side.

    async def depth(self, pool: str) -> Depth:
        """See :meth:`deployments.jobs.ports.JobStore.depth`."""
        now = self._clock.time()
        queued, oldest_age_s, estimated, estimate_s = await self._db.read(lambda c: queries.queue_figures(c, pool, now))
        running = sum(1 for _ in self._board.leases.of_pool(pool))
        return Depth(queued, running, self._board.leases.uploading(pool), oldest_age_s, estimated, estimate_s)

    async def stats(self, tenant: str, *, sessions: bool = True) -> Stats:
        """See :meth:`deployments.jobs.ports.JobStore.stats`."""
        counts = await self._db.read(lambda c: queries.count_by(c, tenant, sessions=sessions))
        attempts, retries, lost = await self._db.read(lambda c: queries.sum_attempts(c, tenant, sessions=sessions))
        percentiles = await self._db.read(lambda c: queries.duration_percentiles(c, tenant, sessions=sessions))
        by_status = {status.value: sum(n for (_, s), n in counts.items() if s == status) for status in JobStatus}
        by_kind: dict[str, dict[str, int]] = defaultdict(dict)
        for (kind, status), n in counts.items():
            by_kind[kind][status] = n
        return Stats(
            by_status=by_status,
            by_kind=dict(by_kind),
            pools={pool: await self.depth(pool) for pool in sorted(self._board.pools)},
            attempts_total=attempts,
            retries_total=retries,
            workers_lost_total=lost,
            wait_p50_s=percentiles["wait"][0],
            wait_p95_s=percentiles["wait"][1],
            run_p50_s=percentiles["run"][0],
            run_p95_s=percentiles["run"][1],
            drawing=self._strokes.stats(),
        )

    async def record_scaling(self, decision: ScalingDecision) -> None:
        """See :meth:`deployments.jobs.ports.JobStore.record_scaling`."""
        kept = self._decisions[decision.pool]
        if not (kept and (kept[-1].desired, kept[-1].reason) == (decision.desired, decision.reason)):
            kept.append(decision)

    async def scaling(self) -> tuple[ScalingDecision, ...]:
        """See :meth:`deployments.jobs.ports.JobStore.scaling`."""
        every = [decision for kept in self._decisions.values() for decision in kept]
        return tuple(sorted(every, key=lambda d: d.at, reverse=True))

    # Inside.

    def _admit(self, new: NewJob, queued: int) -> None:
        if queued >= self._config.max_queued:
            raise QueueFull(new.pool, self._config.max_queued, retry_after_s=10)

    def _take(self, tx: Transaction, claim: Claim) -> tuple[Job | None, float | None]:
        again = queries.select_claimed(tx.connection, claim)
        if again is not None:
            return again, None
        job = queries.select_next(tx.connection, claim, tx.now)
        if job is None:
            return None, queries.next_due(tx.connection, claim, tx.now)
        job = transitions.claim(job, owner=claim.owner, now=tx.now, lease_until=tx.now + self._config.lease_s)
        return self._apply(tx, job, claim_id=claim.claim_id), None

    async def _end_attempt(
        self,
        job_id: str,
        attempt: int,
        outcome: str,
        move: Callable[[Transaction, Job], Job],
        outputs: Sequence[Artifact] = (),
    ) -> Verdict:
        """Apply a move if this attempt still holds the job.

        A call that is sent again because its answer got lost is told the same again: taking an OK for LOST, a worker would remove the
        very artifact that it has published.
        """

        def operation(tx: Transaction) -> Verdict:
            try:
                job = queries.select_job(tx.connection, None, job_id)
            except JobNotFound:
                return Verdict.LOST
            if job.status is JobStatus.RUNNING and job.attempt == attempt:
                if job.cancel_requested and outcome == JobStatus.SUCCEEDED:
                    return Verdict.CANCELLED
                job = move(tx, job)
            return _verdict_on(job, attempt, outcome, outputs)

        verdict = await self._db.write(operation)
        lease = self._board.leases.get(job_id)
        if verdict is not Verdict.CANCELLED and lease is not None and lease.job.attempt == attempt:
            self._board.end_lease(job_id)  # the row is not running under it, however that came to be
        return verdict

    def _publish(self, tx: Transaction, job: Job, error: JobError | None = None) -> Job:
        """Apply a move that may have given the job its outputs."""
        for artifact in job.outputs:
            queries.insert_file(tx.connection, file_of_artifact(job, artifact, tx.now))
        return self._apply(tx, job, error)

    def _apply(self, tx: Transaction, job: Job, error: JobError | None = None, **columns: str) -> Job:
        if job.status is JobStatus.QUEUED and job.coalesce_key is not None and session_table.waits(tx.connection, job):
            job, error = transitions.supersede(job, now=tx.now), None
        queries.update_job(tx.connection, job, **columns)
        tx.emit(job, error)
        self._tell_webhook(tx, job)
        tx.after_commit(partial(self._board.moved, job))
        return job

    async def _sweep_forever(self) -> None:
        while True:
            try:
                await self.sweep()
            except StoreSuperseded:
                return  # the newer store sweeps
            except Exception:
                log.exception("sweep failed", extra=fields(action="sweep_failed"))  # a dead janitor would keep dead workers' jobs for ever
            await asyncio.sleep(self._config.janitor_period_s)

    async def sweep(self) -> None:
        """End attempts whose lease ran out, that took too long or that stand still; report the pools' load."""
        leases = self._board.leases
        if self._board.in_doubt:
            self._board.reconcile(await self._db.read(queries.select_running))
        now = self._clock.monotonic()
        if now - self._swept_at > self._config.janitor_period_s + self._config.lease_s / 3:
            leases.renew_all(now)  # this process was paused: the heartbeats of the meantime still wait to be read
        self._swept_at = now
        for lease in leases.expired(now):
            await self._swept(self._lose(lease))
        for lease in leases.overdue(now):
            late = JobTimedOut(f"the job ran longer than its timeout_s of {lease.job.timeout_s:g} s")
            await self._swept(self._give_up(lease, late))
        for lease in leases.stalled(now, self._config.stall_s):
            still = JobStalled(f"the job made no progress for {self._config.stall_s:g} s, so it was stopped")
            await self._swept(self._give_up(lease, still))
        for pool in sorted(self._board.pools):
            self._report_depth(pool, await self.depth(pool))
        await self._sweep_webhooks()
        self._metrics.gauge("backends_healthy", self._backend_watch.count_healthy(now))

    async def _swept(self, ending: Awaitable[object]) -> None:
        try:
            await ending
        except StoreSuperseded:
            raise
        except ServiceError as error:  # the other leases must not wait for this one
            log.warning("sweep of a lease failed", extra=fields(action="sweep_of_lease_failed", reason=str(error)))

    async def _lose(self, lease: Lease) -> None:
        def move(tx: Transaction, job: Job) -> Job:
            lost = transitions.lose(job, now=tx.now, heard=lease.heard)
            if lost.status is JobStatus.CANCELLED:  # as asked for: no error
                return self._apply(tx, lost)
            record = lost.attempts[-1]
            return self._apply(tx, lost, lost.error or JobError(record.outcome, record.message or "", retryable=True))

        await self._end_attempt(lease.job.id, lease.job.attempt, WorkerLost.code, move)

    async def _give_up(self, lease: Lease, error: ServiceError) -> None:
        await self.fail(lease.job.id, lease.job.attempt, JobError(error.code, str(error)), {})

    def _report_depth(self, pool: str, depth: Depth) -> None:
        self._metrics.gauge("jobs_queued", depth.queued, pool=pool)
        self._metrics.gauge("jobs_running", depth.running, pool=pool)
        self._metrics.gauge("oldest_queued_age_s", depth.oldest_age_s, pool=pool)


def _verdict_on(job: Job, attempt: int, outcome: str, outputs: Sequence[Artifact]) -> Verdict:
    """Return what the ending of an attempt is told, read from the job after it: the first time and whenever it is sent again."""
    expected = {outcome} if outcome == JobStatus.SUCCEEDED else {outcome, JobStatus.CANCELLED.value}  # a cancel wins over the others
    ended_so = any(record.attempt == attempt and record.outcome in expected for record in job.attempts)
    published = {artifact.file_id for artifact in job.outputs}
    return Verdict.OK if ended_so and all(artifact.file_id in published for artifact in outputs) else Verdict.LOST
