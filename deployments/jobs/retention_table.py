"""SQL about what is too old."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from deployments.jobs.model import JobStatus
from deployments.jobs.retention import Forgotten
from deployments.jobs.tables import EVENTS, FILES, JOB_LABELS, JOBS, LEFT_OVER

ENDED = tuple(status.value for status in JobStatus if status.terminal)


def forget_old(connection: sa.Connection, jobs_before: float | None, uploads_before: float | None, limit: int) -> Forgotten:
    """Forget the oldest; see :meth:`deployments.jobs.retention.RetentionStore.forget_old`."""
    job_ids = _old_jobs(connection, jobs_before, limit) if jobs_before is not None else []
    going = sa.select(FILES).where(FILES.c.job_id.in_(job_ids))
    files = list(connection.execute(going).mappings())
    if uploads_before is not None:
        old = FILES.c.job_id.is_(None), FILES.c.created_at < uploads_before, ~_is_needed(FILES.c.id)
        files += connection.execute(sa.select(FILES).where(*old).order_by(FILES.c.created_at).limit(limit)).mappings()
    write_down(connection, [row["key"] for row in files])
    connection.execute(FILES.delete().where(FILES.c.id.in_([row["id"] for row in files])))
    for table, column in ((EVENTS, EVENTS.c.job_id), (JOB_LABELS, JOB_LABELS.c.job_id), (JOBS, JOBS.c.id)):
        connection.execute(table.delete().where(column.in_(job_ids)))
    return Forgotten(len(job_ids), len(files), sum(row["size_bytes"] for row in files))


def write_down(connection: sa.Connection, keys: Sequence[str]) -> None:
    """Remember objects that are to be deleted."""
    known = set(connection.execute(sa.select(LEFT_OVER.c.key).where(LEFT_OVER.c.key.in_(keys))).scalars())
    new = [{"key": key} for key in dict.fromkeys(keys) if key not in known]
    if new:
        connection.execute(LEFT_OVER.insert(), new)


def select_left_over(connection: sa.Connection, limit: int) -> tuple[str, ...]:
    """Return objects that are to be deleted."""
    return tuple(connection.execute(sa.select(LEFT_OVER.c.key).limit(limit)).scalars())


def strike_off(connection: sa.Connection, keys: Sequence[str]) -> None:
    """Forget objects that are gone."""
    connection.execute(LEFT_OVER.delete().where(LEFT_OVER.c.key.in_(list(keys))))


def _old_jobs(connection: sa.Connection, before: float, limit: int) -> list[str]:
    result = FILES.alias()
    is_needed = sa.select(result.c.id).where(result.c.job_id == JOBS.c.id, _is_needed(result.c.id)).exists()
    old = JOBS.c.coalesce_key.is_(None), JOBS.c.status.in_(ENDED), JOBS.c.finished_at < before, ~is_needed
    return list(connection.execute(sa.select(JOBS.c.id).where(*old).order_by(JOBS.c.finished_at).limit(limit)).scalars())


def _is_needed(file_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Whether a job that has not ended names a file."""
    open_job = JOBS.alias()
    names_it = sa.cast(open_job.c.spec, sa.Text).contains(file_id)
    return sa.select(open_job.c.id).where(open_job.c.status.not_in(ENDED), names_it).exists()
