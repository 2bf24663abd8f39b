"""The SQL of sessions: jobs under one coalesce key."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from deployments.jobs.errors import SessionNotFound
from deployments.jobs.model import FileRecord, Job, JobStatus, NewJob
from deployments.jobs.queries import insert_file, insert_job, select_keys
from deployments.jobs.sessions import ExpiredJobs, SessionState
from deployments.jobs.tables import EVENTS, FILES, JOB_LABELS, JOBS, job_of_row

PENDING = (JobStatus.QUEUED.value, JobStatus.RUNNING.value)
ENDED = tuple(status.value for status in JobStatus if status.terminal)
OVERWRITTEN = ("kind", "spec", "fingerprint", "requires", "priority", "timeout_s", "max_attempts", "estimate_s", "coalesce_seq")


def select_newest(connection: sa.Connection, tenant: str, key: str) -> tuple[Job, str] | None:
    """Return the job with the highest number, whatever became of it, and its fingerprint."""
    row = _newest_row(connection, tenant, key)
    return (job_of_row(row), row["fingerprint"]) if row else None


def select_pending(connection: sa.Connection, tenant: str, key: str) -> tuple[Job, ...]:
    """Return the jobs that run or wait, oldest first."""
    rows = connection.execute(_session(tenant, key).where(JOBS.c.status.in_(PENDING)).order_by(JOBS.c.coalesce_seq)).mappings()
    return tuple(job_of_row(row) for row in rows)


def select_ended(connection: sa.Connection, tenant: str, key: str) -> Job | None:
    """Return the ended job with the highest number."""
    row = _newest_row(connection, tenant, key, *ENDED)
    return job_of_row(row) if row else None


def waits(connection: sa.Connection, job: Job) -> bool:
    """Whether another job of the same session waits."""
    others = sa.select(JOBS.c.id).where(
        JOBS.c.tenant == job.tenant,
        JOBS.c.coalesce_key == job.coalesce_key,
        JOBS.c.status == JobStatus.QUEUED.value,
        JOBS.c.id != job.id,
    )
    return connection.execute(others).first() is not None


def select_state(connection: sa.Connection, tenant: str, key: str) -> SessionState:
    """Read a session.

    Raises:
        SessionNotFound: it has no rows.
    """
    newest = select_newest(connection, tenant, key)
    if newest is None:
        raise SessionNotFound(key)
    row = _newest_row(connection, tenant, key, JobStatus.SUCCEEDED.value)
    job = newest[0]
    return SessionState(job.coalesce_seq or 0, select_pending(connection, tenant, key), job, job_of_row(row) if row else None)


def insert_latest(connection: sa.Connection, new: NewJob, file: FileRecord, now: float) -> Job:
    """Store a new job of a session with its picture."""
    job = insert_job(connection, new, now)
    insert_file(connection, file)
    return job


def overwrite(connection: sa.Connection, waiting: Job, new: NewJob, file: FileRecord) -> tuple[str, ...]:
    """Give a waiting job the content of a newer request and return the object keys of the files that it no longer needs."""
    dropped = select_keys(connection, [waiting.id])
    connection.execute(FILES.delete().where(FILES.c.job_id == waiting.id))
    changed = {name: getattr(new, name) for name in OVERWRITTEN}
    connection.execute(JOBS.update().where(JOBS.c.id == waiting.id).values(**changed))
    insert_file(connection, file)
    return dropped


def select_expired(connection: sa.Connection, rows_before: float, results_before: float, limit: int) -> ExpiredJobs:
    """Return ended jobs of sessions that ended before a time, but for the newest result of each session that is not too old itself."""
    newer = JOBS.alias()
    is_outdone = (
        sa.select(newer.c.id)
        .where(
            newer.c.tenant == JOBS.c.tenant,
            newer.c.coalesce_key == JOBS.c.coalesce_key,
            newer.c.coalesce_seq > JOBS.c.coalesce_seq,
            newer.c.status == JobStatus.SUCCEEDED.value,
        )
        .exists()
    )
    goes = sa.or_(JOBS.c.status != JobStatus.SUCCEEDED.value, JOBS.c.finished_at < results_before, is_outdone)
    ended = (
        sa.select(JOBS.c.id)
        .where(JOBS.c.coalesce_key.is_not(None), JOBS.c.status.in_(ENDED), JOBS.c.finished_at < rows_before, goes)
        .order_by(JOBS.c.finished_at)
        .limit(limit)
    )
    job_ids = tuple(connection.execute(ended).scalars())
    return ExpiredJobs(job_ids, select_keys(connection, job_ids))


def delete_jobs(connection: sa.Connection, job_ids: Sequence[str]) -> None:
    """Remove ended jobs of sessions with their events, labels and file records."""
    ended = sa.select(JOBS.c.id).where(JOBS.c.id.in_(list(job_ids)), JOBS.c.coalesce_key.is_not(None), JOBS.c.status.in_(ENDED))
    found = list(connection.execute(ended).scalars())
    for table, column in ((FILES, FILES.c.job_id), (EVENTS, EVENTS.c.job_id), (JOB_LABELS, JOB_LABELS.c.job_id), (JOBS, JOBS.c.id)):
        connection.execute(table.delete().where(column.in_(found)))


def _newest_row(connection: sa.Connection, tenant: str, key: str, *statuses: str) -> sa.RowMapping | None:
    rows = _session(tenant, key).order_by(JOBS.c.coalesce_seq.desc()).limit(1)
    return connection.execute(rows.where(JOBS.c.status.in_(statuses)) if statuses else rows).mappings().first()


def _session(tenant: str, key: str) -> sa.Select[tuple[object]]:
    return sa.select(JOBS).where(JOBS.c.tenant == tenant, JOBS.c.coalesce_key == key)
