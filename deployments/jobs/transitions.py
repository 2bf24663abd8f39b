"""The legal moves of a job, as pure functions from a job to the job after it.

::

    queued ──claim──▶ running ──succeed──▶ succeeded
      ▲  │               │ ├────fail──────▶ failed
      │  └──cancel──┐    │ └──cancelled───▶ cancelled
      └─────────────┼────┘                     ▲
        retry, lost,└──────────────────────────┘
        release

Terminal states never change. A machine that died (the worker, or the ComfyUI server that had the job) and an error of the job are
counted apart: each kind may use up ``max_attempts`` by itself, so that a bad night of the machines does not spend the tries that a
flaky download needs, yet a poison job still ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from deployments.jobs.errors import BackendLost, Conflict, WorkerLost
from deployments.jobs.model import Artifact, AttemptRecord, Job, JobError, JobStatus, JsonObject

# Outcomes that count as nobody's failure: handed back by a draining replica; claimed by a replica that was dead already.
RELEASED, NOT_STARTED = "released", "not_started"
MAX_NOT_STARTED = 5  # then the job itself may be what kills its workers at once

# Error codes that blame the machines: tried again at once, and counted apart from the errors of the job.
INFRASTRUCTURE_LOSSES = frozenset({WorkerLost.code, BackendLost.code})

LEGAL: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset({JobStatus.QUEUED, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}


def claim(job: Job, *, owner: str, now: float, lease_until: float) -> Job:
    """Lease a queued job to a replica under the next attempt number."""
    _check(job, JobStatus.RUNNING)
    return replace(
        job, status=JobStatus.RUNNING, attempt=job.attempt + 1, owner=owner, lease_until=lease_until, started_at=now, not_before=None
    )


def succeed(job: Job, *, outputs: Sequence[Artifact], timings: Mapping[str, float], now: float, facts: JsonObject | None = None) -> Job:
    """End a running job with its outputs."""
    done = _end(job, JobStatus.SUCCEEDED, _record(job, now, JobStatus.SUCCEEDED, facts=facts), now)
    return replace(done, outputs=tuple(outputs), timings=dict(timings))


def cancel(job: Job, *, now: float) -> Job:
    """End a queued job, or a running one whose worker has stopped, as cancelled."""
    record = _record(job, now, JobStatus.CANCELLED) if job.status is JobStatus.RUNNING else None
    return _end(job, JobStatus.CANCELLED, record, now)


def request_cancel(job: Job) -> Job:
    """Ask the worker of a running job to stop."""
    return replace(job, cancel_requested=True)


def release(job: Job, *, now: float) -> Job:
    """Put a running job back because its replica drains."""
    return _requeue(job, _record(job, now, RELEASED), not_before=None)


def fail(
    job: Job,
    error: JobError,
    *,
    timings: Mapping[str, float],
    now: float,
    backoff_s: float,
    outputs: Sequence[Artifact] = (),
    facts: JsonObject | None = None,
) -> Job:
    """End an attempt with an error: queued again while the error is retryable and tries are left, else failed.

    Args:
        job: a running job.
        error: why.
        timings: seconds by stage of this attempt.
        now: store's time.
        backoff_s: wait before the first retry; doubles with each failed try, up to a minute.
        outputs: made before the failure; the job gets them when it has failed for good.
        facts: for the attempt's record.
    """
    if job.cancel_requested:
        return cancel(job, now=now)
    record = _record(job, now, error.code, error.message, facts)
    tries = _tries_like(job, error.code) + 1
    if error.retryable and tries < job.max_attempts:
        delay = 0.0 if error.code in INFRASTRUCTURE_LOSSES else min(60.0, backoff_s * 2 ** (tries - 1))
        return _requeue(job, record, not_before=now + delay if delay else None)
    return replace(_end(job, JobStatus.FAILED, record, now), error=error, timings=dict(timings), outputs=tuple(outputs))


def supersede(job: Job, *, now: float) -> Job:
    """End a job that goes back to the queue where a newer one of its session waits already."""
    return _end(job, JobStatus.CANCELLED, None, now)


def lose(job: Job, *, now: float, heard: bool) -> Job:
    """End an attempt whose lease ran out.

    Args:
        job: a running job.
        now: store's time.
        heard: whether its worker ever sent a heartbeat.
    """
    if not heard and [a.outcome for a in job.attempts].count(NOT_STARTED) < MAX_NOT_STARTED:
        return _requeue(job, _record(job, now, NOT_STARTED, "its worker was gone before it began"), not_before=None)
    error = JobError(WorkerLost.code, f"the worker of attempt {job.attempt} died or was cut off", retryable=True)
    return fail(job, error, timings={}, now=now, backoff_s=0.0)


def _check(job: Job, to: JobStatus) -> None:
    if to not in LEGAL[job.status]:
        raise Conflict(f"job {job.id} is {job.status} and cannot become {to}")


def _record(job: Job, now: float, outcome: str, message: str | None = None, facts: JsonObject | None = None) -> AttemptRecord:
    return AttemptRecord(job.attempt, job.owner or "", job.started_at or now, now, str(outcome), message, facts or {})


def _tries_like(job: Job, code: str) -> int:
    failures = [a.outcome in INFRASTRUCTURE_LOSSES for a in job.attempts if a.outcome not in {RELEASED, NOT_STARTED}]
    return failures.count(code in INFRASTRUCTURE_LOSSES)


def _end(job: Job, status: JobStatus, record: AttemptRecord | None, now: float) -> Job:
    _check(job, status)
    attempts = (*job.attempts, record) if record else job.attempts
    return replace(job, status=status, finished_at=now, owner=None, lease_until=None, progress=None, attempts=attempts)


def _requeue(job: Job, record: AttemptRecord, *, not_before: float | None) -> Job:
    if job.cancel_requested:
        return cancel(job, now=record.ended_at)
    _check(job, JobStatus.QUEUED)
    attempts = (*job.attempts, record)
    return replace(job, status=JobStatus.QUEUED, owner=None, lease_until=None, progress=None, not_before=not_before, attempts=attempts)
