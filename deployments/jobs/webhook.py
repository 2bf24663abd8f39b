"""What a job tells its webhook: which events, their bodies, and when a delivery is tried again.

Bodies and signatures are those of Standard Webhooks (https://www.standardwebhooks.com): the id stays the same over all tries, so that a
receiver can drop what it has seen, and the signature covers id, time and body.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum

from pydantic import Field, field_validator
from standardwebhooks import Webhook

from deployments.jobs.config import WebhookConfig
from deployments.jobs.model import Job, JobStatus, JsonObject, Progress
from deployments.jobs.spec import StrictModel

URL_LENGTH = 2048


class WebhookEvent(StrEnum):
    """What a receiver may be told."""

    STARTED = "job.started"  # of every attempt
    PROGRESS = "job.progress"
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELLED = "job.cancelled"
    TEST = "webhook.test"  # sent once, when somebody asks for it; no job has it


OF_JOBS = frozenset(WebhookEvent) - {WebhookEvent.TEST}
EVENT_OF_STATUS = {
    JobStatus.RUNNING: WebhookEvent.STARTED,
    JobStatus.SUCCEEDED: WebhookEvent.SUCCEEDED,
    JobStatus.FAILED: WebhookEvent.FAILED,
    JobStatus.CANCELLED: WebhookEvent.CANCELLED,
}


class WebhookTarget(StrictModel):
    """Who is told of a job's events."""

    url: str = Field(min_length=1, max_length=URL_LENGTH, description="public http(s) address", examples=["https://example.com/hooks"])
    events: tuple[WebhookEvent, ...] = Field(
        (WebhookEvent.SUCCEEDED, WebhookEvent.FAILED, WebhookEvent.CANCELLED), min_length=1, max_length=5, description="which to send"
    )
    secret: str = Field("default", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="name of the configured secret that signs")

    @field_validator("events")
    @classmethod
    def _events_of_jobs(cls, value: tuple[WebhookEvent, ...]) -> tuple[WebhookEvent, ...]:
        if not OF_JOBS.issuperset(value):
            raise ValueError("webhook.test is sent by POST /v1/webhooks/test alone")
        return value


class DeliveryState(StrEnum):
    """Where a delivery is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"  # given up: redelivered only when somebody asks


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one receiver."""

    id: str  # the header webhook-id, the same over all tries
    tenant: str
    job_id: str  # of a test, which has no job: its own id
    event: WebhookEvent
    url: str
    secret: str  # name
    body: str  # JSON, sent as it is
    state: DeliveryState
    tries: int  # those that have begun, since it was made or last asked for again
    created_at: float
    first_try_at: float | None  # of those tries
    next_at: float
    ended_at: float | None
    status_code: int | None  # of the newest answer
    error: str | None  # of the newest try


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one try of a delivery went."""

    status_code: int | None = None  # None: no answer
    error: str | None = None  # None: the receiver took it
    retry_in_s: float | None = None  # after an error; None: given up
    gone: bool = False  # the receiver wants nothing more of this job


@dataclass(frozen=True, slots=True)
class DeliveryQuery:
    """Which deliveries to list, newest first."""

    tenant: str
    job_id: str | None = None
    state: DeliveryState | None = None
    cursor: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """A slice of a listing."""

    deliveries: tuple[Delivery, ...]
    next_cursor: str | None


def wants(webhook: JsonObject | None, event: WebhookEvent) -> bool:
    """Tell whether a job's receiver asked for an event."""
    return webhook is not None and event.value in webhook["events"]


def body_of(event: WebhookEvent, job: Job, now: float, progress: Progress | None = None) -> str:
    """Return the JSON that a receiver gets; addresses in it are paths of the API."""
    data: JsonObject = {
        "id": job.id,
        "kind": job.kind,
        "status": job.status.value,
        "attempt": job.attempt,
        "labels": dict(job.labels),
        "progress": asdict(progress) if progress else None,
        "outputs": [{**asdict(artifact), "url": f"/v1/files/{artifact.file_id}"} for artifact in job.outputs],
        "error": asdict(job.error) if job.error else None,
        "url": f"/v1/jobs/{job.id}",
    }
    return json.dumps({"type": event.value, "timestamp": datetime.fromtimestamp(now, UTC).isoformat(), "data": data})


def body_of_test(now: float) -> str:
    """Return the JSON of a test."""
    at = datetime.fromtimestamp(now, UTC).isoformat()
    return json.dumps({"type": WebhookEvent.TEST.value, "timestamp": at, "data": {"message": "this receiver can be reached"}})


def shown_url(url: str) -> str:
    """Return a receiver's address as people may see it: what stands in its query is often a key."""
    return url.partition("?")[0].partition("#")[0]


def signed_headers(delivery: Delivery, secrets: Sequence[str], now: float) -> dict[str, str]:
    """Return the headers of one try, with a signature of each secret, so that a receiver may hold any of them.

    Args:
        delivery: what is sent.
        secrets: ``whsec_`` and base64; at least one.
        now: seconds since the epoch; receivers refuse what is off by minutes.
    """
    at = datetime.fromtimestamp(int(now), UTC)  # UTC: the library signs the wrong time for any other zone
    signatures = [Webhook(secret).sign(delivery.id, at, delivery.body) for secret in secrets]
    return {
        "Content-Type": "application/json",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": " ".join(signatures),
    }


def retry_in_s(config: WebhookConfig, tries: int, age_s: float, asked_s: float | None, jitter: float) -> float | None:
    """Return how long to wait before the next try, None to give up.

    Args:
        config: of deliveries.
        tries: made so far, 1 or more.
        age_s: since the first of them.
        asked_s: what the receiver's ``Retry-After`` said.
        jitter: 0..1, drawn anew each time, so that receivers which come back are not met by everything at once.
    """
    if age_s >= config.give_up_s:
        return None
    longest = min(config.max_retry_s, config.first_retry_s * 2.0 ** min(tries - 1, 30))
    return max(longest * (0.5 + jitter / 2), min(asked_s or 0.0, config.max_retry_s))
