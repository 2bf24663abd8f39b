"""The SQL of the job store: one function a statement, each on a connection that the caller opened."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa

from deployments.jobs.errors import FileNotFound, IdempotencyConflict, InvalidInput, JobExists, JobNotFound
from deployments.jobs.events import JobEvent
from deployments.jobs.model import Claim, FileRecord, Job, JobPage, JobQuery, JobStatus, NewJob, Repeat
from deployments.jobs.percentiles import p50_p95
from deployments.jobs.tables import (
    EVENTS,
    FILES,
    JOB_LABELS,
    JOBS,
    changes_of,
    event_of_row,
    file_of_row,
    job_of_row,
    row_of_new_job,
)

PERCENTILE_SAMPLE = 500  # newest ended jobs that the percentiles of stats are taken over

SEQ_DIGITS = 18  # of a cursor: they fit into the 63 bits of the database's integers


def find_repeat(connection: sa.Connection, repeat: Repeat) -> Job | None:
    """Return the job that an earlier, equal submit made: by its key, then by its id.

    Raises:
        IdempotencyConflict: the key was used for another payload, of which a client-made id is a part.
        JobExists: the id is taken by another payload (or another tenant's job).
    """
    row = _row_of_key(connection, repeat.tenant, repeat.idempotency_key) if repeat.idempotency_key is not None else None
    if row is not None:
        if row["fingerprint"] != repeat.fingerprint:
            raise IdempotencyConflict("this Idempotency-Key was used for another request: make a new key for a new request")
        return job_of_row(row)
    row = connection.execute(sa.select(JOBS).where(JOBS.c.id == repeat.job_id)).mappings().first() if repeat.job_id is not None else None
    if row is None:
        return None
    if (row["tenant"], row["fingerprint"]) != (repeat.tenant, repeat.fingerprint):
        raise JobExists(row["id"])
    return job_of_row(row)


def insert_job(connection: sa.Connection, new: NewJob, now: float) -> Job:
    """Store a new job and return it."""
    connection.execute(JOBS.insert().values(row_of_new_job(new, now)))
    if new.labels:
        rows = [{"job_id": new.id, "name": name, "value": value} for name, value in new.labels.items()]
        connection.execute(JOB_LABELS.insert(), rows)
    return select_job(connection, new.tenant, new.id)


def select_job(connection: sa.Connection, tenant: str | None, job_id: str) -> Job:
    """Read a job; ``tenant=None`` is the store itself.

    Raises:
        JobNotFound: no such job for this tenant.
    """
    query = sa.select(JOBS).where(JOBS.c.id == job_id)
    if tenant is not None:
        query = query.where(JOBS.c.tenant == tenant)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise JobNotFound(job_id)
    return job_of_row(row)


def select_running(connection: sa.Connection) -> list[Job]:
    """Read all running jobs."""
    rows = connection.execute(sa.select(JOBS).where(JOBS.c.status == JobStatus.RUNNING.value)).mappings()
    return [job_of_row(row) for row in rows]


def update_job(connection: sa.Connection, job: Job, **more: str) -> None:
    """Write what a transition changed."""
    connection.execute(JOBS.update().where(JOBS.c.id == job.id).values(**changes_of(job), **more))


def delete_job(connection: sa.Connection, job_id: str) -> None:
    """Remove a job with its events, labels and file records."""
    for table, column in ((FILES, FILES.c.job_id), (EVENTS, EVENTS.c.job_id), (JOB_LABELS, JOB_LABELS.c.job_id), (JOBS, JOBS.c.id)):
        connection.execute(table.delete().where(column == job_id))


def select_claimed(connection: sa.Connection, claim: Claim) -> Job | None:
    """Return the job that this very claim was given before its answer got lost."""
    query = sa.select(JOBS).where(JOBS.c.claim_id == claim.claim_id, JOBS.c.status == JobStatus.RUNNING.value)
    row = connection.execute(query).mappings().first()
    return job_of_row(row) if row else None


def select_next(connection: sa.Connection, claim: Claim, now: float) -> Job | None:
    """Return the queued job that leaves next: priority, then age."""
    query = (
        sa.select(JOBS)
        .where(_queued_in(claim.pool), _may_run(now), _offered_by(claim), _is_next_of_its_session(claim.computed))
        .order_by(JOBS.c.priority.desc(), JOBS.c.seq)
        .limit(1)
    )
    row = connection.execute(query).mappings().first()
    return job_of_row(row) if row else None


def next_due(connection: sa.Connection, claim: Claim, now: float) -> float | None:
    """Return when the next waiting retry or delayed job that a claim could take may run."""
    later = sa.and_(_queued_in(claim.pool), JOBS.c.not_before > now, _offered_by(claim))
    due_later = sa.select(sa.func.min(JOBS.c.not_before)).where(later)
    due: float | None = connection.execute(due_later).scalar_one()
    return due


def count_queued(connection: sa.Connection, pool: str) -> int:
    """Count the queued jobs of a pool, delayed ones included."""
    return connection.execute(sa.select(sa.func.count()).where(_queued_in(pool))).scalar_one()


def count_ahead(connection: sa.Connection, job: Job, now: float) -> int:
    """Count the jobs of the pool that may run now and leave before a queued one."""
    mine = sa.select(JOBS.c.seq).where(JOBS.c.id == job.id).scalar_subquery()
    earlier = sa.or_(JOBS.c.priority > job.priority, sa.and_(JOBS.c.priority == job.priority, JOBS.c.seq < mine))
    waiting = sa.select(sa.func.count()).where(_queued_in(job.pool), _may_run(now), _is_next_of_its_session(), earlier)
    return connection.execute(waiting).scalar_one()


def queue_figures(connection: sa.Connection, pool: str, now: float) -> tuple[int, float, int, float]:
    """Return (jobs that may run now, age in seconds of the oldest, how many carry an estimate, sum of the estimates in seconds)."""
    # A job waits from its creation, or from the moment its delay ended.
    since = sa.func.coalesce(JOBS.c.not_before, JOBS.c.created_at)
    figures = (sa.func.count(), sa.func.min(since), sa.func.count(JOBS.c.estimate_s), sa.func.sum(JOBS.c.estimate_s))
    waiting = sa.select(*figures).where(_queued_in(pool), _may_run(now), _is_next_of_its_session())
    count, oldest, estimated, estimate_s = connection.execute(waiting).one()
    return count, max(0.0, now - oldest) if oldest is not None else 0.0, estimated, estimate_s or 0.0


def select_page(connection: sa.Connection, query: JobQuery) -> JobPage:
    """List jobs, newest first.

    Raises:
        InvalidInput: the cursor is none of ours.
    """
    fitting = sa.and_(*_filters(query))
    order = (JOBS.c.priority.desc(), JOBS.c.seq) if query.by_turn else (JOBS.c.seq.desc(),)
    statement = sa.select(JOBS).where(fitting).order_by(*order).offset(query.offset).limit(query.limit + 1)
    if query.cursor is not None:
        statement = statement.where(JOBS.c.seq < _seq_of_cursor(query.cursor))
    rows = connection.execute(statement).mappings().all()
    more = len(rows) > query.limit and not query.by_turn
    shown = rows[: query.limit]
    total = connection.execute(sa.select(sa.func.count()).select_from(JOBS).where(fitting)).scalar_one() if query.count else None
    return JobPage(tuple(job_of_row(row) for row in shown), _cursor_of_seq(shown[-1]["seq"]) if more else None, total)


def _filters(query: JobQuery) -> list[sa.ColumnElement[bool]]:
    filters = _of_tenant(query.tenant, sessions=query.sessions)
    if query.status is not None:
        filters.append(JOBS.c.status == query.status.value)
    if query.kind is not None:
        filters.append(JOBS.c.kind == query.kind)
    if query.ended:
        filters.append(JOBS.c.status.in_([status.value for status in JobStatus if status.terminal]))
    if query.label is not None:
        name, value = query.label
        labelled = sa.select(JOB_LABELS.c.job_id).where(JOB_LABELS.c.name == name, JOB_LABELS.c.value == value)
        filters.append(JOBS.c.id.in_(labelled))
    return filters


def select_ids(connection: sa.Connection, tenant: str, kind: str, status: JobStatus, limit: int) -> list[str]:
    """Return the oldest jobs of a kind and status that nobody has asked to cancel yet."""
    fitting = sa.and_(JOBS.c.tenant == tenant, JOBS.c.kind == kind, JOBS.c.status == status.value, JOBS.c.cancel_requested.is_(False))
    return list(connection.execute(sa.select(JOBS.c.id).where(fitting).order_by(JOBS.c.seq).limit(limit)).scalars())


def select_history(connection: sa.Connection, tenant: str, job_id: str) -> tuple[JobEvent, ...]:
    """Read the state events of a job, oldest first.

    Raises:
        JobNotFound: no such job for this tenant.
    """
    select_job(connection, tenant, job_id)
    query = sa.select(EVENTS).where(EVENTS.c.job_id == job_id).order_by(EVENTS.c.epoch, EVENTS.c.n)
    return tuple(event_of_row(row) for row in connection.execute(query).mappings())


def insert_file(connection: sa.Connection, record: FileRecord) -> None:
    """Publish a file; the same record again changes nothing."""
    known = connection.execute(sa.select(FILES.c.id).where(FILES.c.id == record.id)).first()
    if known is None:
        connection.execute(FILES.insert().values(**{c.name: getattr(record, c.name) for c in FILES.columns}))


def select_keys(connection: sa.Connection, job_ids: Sequence[str]) -> tuple[str, ...]:
    """Return the object keys of the files that belong to jobs: what they made, and what no other job reads."""
    return tuple(connection.execute(sa.select(FILES.c.key).where(FILES.c.job_id.in_(list(job_ids)))).scalars())


def select_file(connection: sa.Connection, tenant: str, file_id: str) -> FileRecord:
    """Read a published file's record.

    Raises:
        FileNotFound: no such file for this tenant.
    """
    row = connection.execute(sa.select(FILES).where(FILES.c.id == file_id, FILES.c.tenant == tenant)).mappings().first()
    if row is None:
        raise FileNotFound(file_id)
    return file_of_row(row)


def select_files(connection: sa.Connection, tenant: str, names: Sequence[str], *, uploads_first: bool) -> dict[str, FileRecord]:
    """Return the newest file of each name; of an upload and an output with the same one, the kind that comes first."""
    is_second = sa.case((FILES.c.job_id.is_(None), 0 if uploads_first else 1), else_=1 if uploads_first else 0)
    rank = sa.func.row_number().over(partition_by=FILES.c.name, order_by=(is_second, FILES.c.created_at.desc(), FILES.c.id))
    fitting = sa.and_(FILES.c.tenant == tenant, FILES.c.name.in_(list(names)))
    ranked = sa.select(FILES, rank.label("rank")).where(fitting).subquery()
    rows = connection.execute(sa.select(*(ranked.c[column.name] for column in FILES.columns)).where(ranked.c.rank == 1)).mappings()
    return {row["name"]: file_of_row(row) for row in rows}


def count_by(connection: sa.Connection, tenant: str, *, sessions: bool) -> dict[tuple[str, str], int]:
    """Count a tenant's jobs by (kind, status); those of sessions where asked for, as below."""
    counts = sa.select(JOBS.c.kind, JOBS.c.status, sa.func.count())
    query = counts.where(*_of_tenant(tenant, sessions=sessions)).group_by(JOBS.c.kind, JOBS.c.status)
    return {(kind, status): count for kind, status, count in connection.execute(query)}


def sum_attempts(connection: sa.Connection, tenant: str, *, sessions: bool) -> tuple[int, int, int]:
    """Sum over all of a tenant's jobs: (attempts, those beyond the first, those whose worker was lost)."""
    started = sa.func.count(sa.case((JOBS.c.attempt > 0, 1)))
    query = sa.select(sa.func.sum(JOBS.c.attempt), started, sa.func.sum(JOBS.c.workers_lost)).where(*_of_tenant(tenant, sessions=sessions))
    attempts, jobs, lost = connection.execute(query).one()
    return attempts or 0, (attempts or 0) - jobs, lost or 0


def duration_percentiles(connection: sa.Connection, tenant: str, *, sessions: bool) -> Mapping[str, tuple[float | None, float | None]]:
    """Return (p50, p95) seconds of waiting and of running over the newest ended jobs.

    Waiting is from acceptance to the first claim; running is from the first claim to the end, other attempts included.
    """
    query = (
        sa.select(JOBS.c.created_at, JOBS.c.finished_at, JOBS.c.attempts)
        .where(*_of_tenant(tenant, sessions=sessions), JOBS.c.status.in_([JobStatus.SUCCEEDED.value, JobStatus.FAILED.value]))
        .order_by(JOBS.c.seq.desc())
        .limit(PERCENTILE_SAMPLE)
    )
    rows = [(r.created_at, r.attempts[0]["started_at"], r.finished_at) for r in connection.execute(query) if r.attempts]
    return {
        "wait": p50_p95([started - created for created, started, _ in rows]),
        "run": p50_p95([finished - started for _, started, finished in rows]),
    }


def _row_of_key(connection: sa.Connection, tenant: str, key: str) -> sa.RowMapping | None:
    same_key = sa.and_(JOBS.c.tenant == tenant, JOBS.c.idempotency_key == key)
    return connection.execute(sa.select(JOBS).where(same_key)).mappings().first()


def _of_tenant(tenant: str, *, sessions: bool) -> list[sa.ColumnElement[bool]]:
    return [JOBS.c.tenant == tenant, *([] if sessions else [JOBS.c.coalesce_key.is_(None)])]


def _queued_in(pool: str) -> sa.ColumnElement[bool]:
    return sa.and_(JOBS.c.pool == pool, JOBS.c.status == JobStatus.QUEUED.value)


def _offered_by(claim: Claim) -> sa.ColumnElement[bool]:
    return sa.or_(JOBS.c.requires.is_(None), JOBS.c.requires.in_(sorted(claim.capabilities)))


def _is_next_of_its_session(computed: Collection[str] = ()) -> sa.ColumnElement[bool]:
    """Whether no job of the same session runs; those that are ``computed`` count no more."""
    other = JOBS.alias()
    running = sa.select(other.c.id).where(
        other.c.tenant == JOBS.c.tenant,
        other.c.coalesce_key == JOBS.c.coalesce_key,
        other.c.status == JobStatus.RUNNING.value,
        other.c.id.not_in(sorted(computed)),
    )
    return sa.or_(JOBS.c.coalesce_key.is_(None), ~running.exists())


def _may_run(now: float) -> sa.ColumnElement[bool]:
    return sa.or_(JOBS.c.not_before.is_(None), JOBS.c.not_before <= now)


def _cursor_of_seq(seq: int) -> str:
    return base64.urlsafe_b64encode(str(seq).encode()).decode().rstrip("=")


def _seq_of_cursor(cursor: str) -> int:
    try:
        digits = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (binascii.Error, ValueError):
        digits = b""
    if not digits.isdigit() or len(digits) > SEQ_DIGITS:
        raise InvalidInput("this cursor was not made by this API: take next_cursor from the page before")
    return int(digits)
