"""The tables of the job store and the way from a row to a value. Changed only together with a migration."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from deployments.jobs.errors import WorkerLost
from deployments.jobs.events import EventId, EventType, JobEvent
from deployments.jobs.model import Artifact, AttemptRecord, FileRecord, Job, JobError, JobStatus, JsonObject, NewJob

METADATA = sa.MetaData()

META = sa.Table(
    "store_meta",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),  # always 1
    sa.Column("epoch", sa.Integer, nullable=False),  # rises at every start; only the newest store writes
)

_OF_SESSIONS = sa.text("coalesce_key IS NOT NULL")
_WAITING = sa.text("coalesce_key IS NOT NULL AND status = 'queued'")

JOBS = sa.Table(
    "jobs",
    METADATA,
    # Age decides between equal priorities, and two jobs may share a timestamp. SQLite only autoincrements an INTEGER.
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("pool", sa.String(64), nullable=False),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("requires", sa.String(255)),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("max_attempts", sa.Integer, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("timeout_s", sa.Float, nullable=False),
    sa.Column("created_at", sa.Float(53), nullable=False),
    sa.Column("not_before", sa.Float(53)),
    sa.Column("started_at", sa.Float(53)),
    sa.Column("finished_at", sa.Float(53)),
    sa.Column("idempotency_key", sa.String(255)),
    sa.Column("coalesce_key", sa.String(255)),
    sa.Column("coalesce_seq", sa.BigInteger),
    sa.Column("parent_id", sa.String(36)),
    sa.Column("retry_of", sa.String(36)),
    sa.Column("estimate_s", sa.Float),
    sa.Column("webhook", sa.JSON(none_as_null=True)),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("owner", sa.String(128)),
    sa.Column("claim_id", sa.String(36)),
    sa.Column("lease_until", sa.Float(53)),
    sa.Column("outputs", sa.JSON, nullable=False),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("attempts", sa.JSON, nullable=False),
    sa.Column("workers_lost", sa.Integer, nullable=False),  # of attempts, so that it can be summed in SQL
    sa.Column("timings", sa.JSON, nullable=False),
    sa.UniqueConstraint("tenant", "idempotency_key", name="uq_jobs_tenant_idempotency_key"),
    sa.Index("ix_jobs_queue", "pool", "status", sa.text("priority DESC"), "seq"),
    sa.Index("ix_jobs_listing", "tenant", "seq"),
    sa.Index("ix_jobs_listing_by_status", "tenant", "status", "seq"),
    sa.Index("ix_jobs_claim_id", "claim_id"),
    sa.Index("ix_jobs_session", "tenant", "coalesce_key", "coalesce_seq", sqlite_where=_OF_SESSIONS, postgresql_where=_OF_SESSIONS),
    sa.Index("ix_jobs_session_ended", "finished_at", sqlite_where=_OF_SESSIONS, postgresql_where=_OF_SESSIONS),
    sa.Index("uq_jobs_session_waiting", "tenant", "coalesce_key", unique=True, sqlite_where=_WAITING, postgresql_where=_WAITING),
    sqlite_autoincrement=True,  # a deleted job's number is never used again, or a cursor would show a new job in an old place
)

EVENTS = sa.Table(
    "job_events",
    METADATA,
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("n", sa.BigInteger, primary_key=True),
    sa.Column("job_id", sa.String(36), nullable=False),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Index("ix_job_events_job", "job_id", "epoch", "n"),
)

FILES = sa.Table(
    "files",
    METADATA,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("key", sa.String(1024), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("media_type", sa.String(100), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("created_at", sa.Float(53), nullable=False),
    sa.Column("job_id", sa.String(36)),
    sa.Index("ix_files_job", "job_id"),
    sa.Index("ix_files_name", "tenant", "name", "created_at"),
)

LEFT_OVER = sa.Table("left_over_objects", METADATA, sa.Column("key", sa.String(1024), primary_key=True))  # nothing names them any more

JOB_LABELS = sa.Table(
    "job_labels",
    METADATA,
    sa.Column("job_id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.String(255), nullable=False),
    sa.Index("ix_job_labels_value", "name", "value"),
)

WORKFLOWS = sa.Table(
    "workflows",
    METADATA,
    sa.Column("tenant", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("graph", sa.JSON, nullable=False),
    sa.Column("meta", sa.JSON, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("created_at", sa.Float(53), nullable=False),
)

COMFY_BACKENDS = sa.Table(
    "comfy_backends",
    METADATA,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("url", sa.String(1024), nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("weight", sa.Float(53), nullable=False),
    sa.Column("in_flight", sa.Integer, nullable=False),
    sa.Column("configured", sa.Boolean, nullable=False),
    sa.Column("draining", sa.Boolean, nullable=False),
    sa.Column("owner", sa.String(128)),
    sa.Column("lease_until", sa.Float(53), nullable=False),  # on the store's clock; 0 without an owner
    sa.UniqueConstraint("url", name="uq_comfy_backends_url"),
)

_PENDING = sa.text("state = 'pending'")

WEBHOOK_DELIVERIES = sa.Table(
    "webhook_deliveries",
    METADATA,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),  # order of a job's events
    sa.Column("id", sa.String(36), nullable=False, unique=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("job_id", sa.String(36), nullable=False),
    sa.Column("event", sa.String(32), nullable=False),
    sa.Column("url", sa.String(2048), nullable=False),
    sa.Column("secret", sa.String(64), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float(53), nullable=False),
    sa.Column("first_try_at", sa.Float(53)),
    sa.Column("next_at", sa.Float(53), nullable=False),  # under a lease: its end
    sa.Column("ended_at", sa.Float(53)),
    sa.Column("owner", sa.String(64)),
    sa.Column("status_code", sa.Integer),
    sa.Column("error", sa.Text),
    sa.Index("ix_webhook_deliveries_due", "next_at", sqlite_where=_PENDING, postgresql_where=_PENDING),
    sa.Index("ix_webhook_deliveries_job", "job_id", "seq"),
    sa.Index("ix_webhook_deliveries_listing", "tenant", "seq"),
    sa.Index("ix_webhook_deliveries_ended", "state", "ended_at"),
    sqlite_autoincrement=True,
)

# Columns that a transition may change; the rest is fixed when the job is accepted.
_MUTABLE = ("attempt", "not_before", "started_at", "finished_at", "cancel_requested", "owner", "lease_until")


def row_of_new_job(new: NewJob, now: float) -> dict[str, Any]:
    """Return the row of a job that has just been accepted."""
    row = asdict(new)
    row["labels"] = dict(new.labels)
    return row | {
        "status": JobStatus.QUEUED.value,
        "attempt": 0,
        "created_at": now,
        "cancel_requested": False,
        "outputs": [],
        "attempts": [],
        "workers_lost": 0,
        "timings": {},
    }


def changes_of(job: Job) -> dict[str, Any]:
    """Return the columns that a transition may have changed."""
    changes: dict[str, Any] = {name: getattr(job, name) for name in _MUTABLE}
    return changes | {
        "status": job.status.value,
        "outputs": [asdict(a) for a in job.outputs],
        "error": asdict(job.error) if job.error else None,
        "attempts": [asdict(a) for a in job.attempts],
        "workers_lost": sum(a.outcome == WorkerLost.code for a in job.attempts),
        "timings": dict(job.timings),
    }


def job_of_row(row: sa.RowMapping) -> Job:
    """Read a job; its progress is not in the table."""
    return Job(
        id=row["id"],
        tenant=row["tenant"],
        kind=row["kind"],
        pool=row["pool"],
        spec=row["spec"],
        requires=row["requires"],
        status=JobStatus(row["status"]),
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        priority=row["priority"],
        timeout_s=row["timeout_s"],
        created_at=row["created_at"],
        not_before=row["not_before"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        idempotency_key=row["idempotency_key"],
        coalesce_key=row["coalesce_key"],
        coalesce_seq=row["coalesce_seq"],
        parent_id=row["parent_id"],
        retry_of=row["retry_of"],
        estimate_s=row["estimate_s"],
        webhook=row["webhook"],
        labels=row["labels"],
        cancel_requested=row["cancel_requested"],
        owner=row["owner"],
        lease_until=row["lease_until"],
        progress=None,
        outputs=tuple(Artifact(**a) for a in row["outputs"]),
        error=_error_of(row["error"]),
        attempts=tuple(AttemptRecord(**a) for a in row["attempts"]),
        timings=row["timings"],
    )


def row_of_event(event: JobEvent) -> dict[str, Any]:
    """Return the row of a state event."""
    return {
        "epoch": event.id.epoch,
        "n": event.id.n,
        "job_id": event.job_id,
        "tenant": event.tenant,
        "at": event.at,
        "status": event.status.value,
        "attempt": event.attempt,
        "error": asdict(event.error) if event.error else None,
    }


def event_of_row(row: sa.RowMapping) -> JobEvent:
    """Read a state event."""
    return JobEvent(
        id=EventId(row["epoch"], row["n"]),
        type=EventType.STATE,
        job_id=row["job_id"],
        tenant=row["tenant"],
        at=row["at"],
        status=JobStatus(row["status"]),
        attempt=row["attempt"],
        error=_error_of(row["error"]),
    )


def file_of_row(row: sa.RowMapping) -> FileRecord:
    """Read a file's record."""
    return FileRecord(**row)


def file_of_artifact(job: Job, artifact: Artifact, now: float) -> FileRecord:
    """Return the record that publishes an artifact."""
    _, _, key = artifact.uri.partition("://")
    return FileRecord(
        id=artifact.file_id,
        tenant=job.tenant,
        key=key,
        name=artifact.name,
        media_type=artifact.media_type,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        created_at=now,
        job_id=job.id,
    )


def _error_of(stored: JsonObject | None) -> JobError | None:
    return JobError(**stored) if stored else None
