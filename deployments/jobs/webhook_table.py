"""The SQL of the webhooks' outbox: one function a statement, each on a connection that the caller opened."""

from __future__ import annotations

import uuid
from dataclasses import fields

import sqlalchemy as sa

from deployments.jobs.errors import DeliveryNotFound, InvalidInput
from deployments.jobs.model import Job, Progress
from deployments.jobs.tables import JOBS, WEBHOOK_DELIVERIES
from deployments.jobs.webhook import (
    EVENT_OF_STATUS,
    Delivery,
    DeliveryPage,
    DeliveryQuery,
    DeliveryState,
    Outcome,
    WebhookEvent,
    body_of,
    body_of_test,
    wants,
)

D = WEBHOOK_DELIVERIES
_FIELDS = tuple(D.c[field.name] for field in fields(Delivery))
_IS_PENDING = D.c.state == DeliveryState.PENDING.value


def insert_state_event(connection: sa.Connection, job: Job, now: float) -> bool:
    """Put a job's new state into the outbox, if its receiver wants to hear of it; tells whether it did."""
    event = EVENT_OF_STATUS.get(job.status)
    if event is None:
        return False
    _drop_progress(connection, job.id)  # older than this state
    if not wants(job.webhook, event):
        return False
    _insert(connection, event, job, now, body_of(event, job, now))
    return True


def insert_progress(connection: sa.Connection, job: Job, progress: Progress, now: float) -> bool:
    """Put progress in the place of what waits; nothing once the attempt has ended."""
    row = connection.execute(sa.select(JOBS.c.status, JOBS.c.attempt).where(JOBS.c.id == job.id)).first()
    if row is None or (row.status, row.attempt) != (job.status.value, job.attempt):
        return False
    _drop_progress(connection, job.id)
    _insert(connection, WebhookEvent.PROGRESS, job, now, body_of(WebhookEvent.PROGRESS, job, now, progress))
    return True


def take(connection: sa.Connection, owner: str, limit: int, now: float, lease_until: float) -> tuple[Delivery, ...]:
    """Lease deliveries that are due: of each job the oldest that has not ended, and none while that one is under way."""
    earlier = D.alias()
    is_first = ~sa.exists().where(earlier.c.job_id == D.c.job_id, earlier.c.state == DeliveryState.PENDING.value, earlier.c.seq < D.c.seq)
    due = sa.select(D.c.seq).where(_IS_PENDING, D.c.next_at <= now, is_first).order_by(D.c.next_at, D.c.seq).limit(limit)
    chosen = list(connection.execute(due).scalars())
    if not chosen:
        return ()
    first_try_at = sa.func.coalesce(D.c.first_try_at, now)
    changes = {"owner": owner, "next_at": lease_until, "tries": D.c.tries + 1, "first_try_at": first_try_at}
    connection.execute(D.update().where(D.c.seq.in_(chosen)).values(changes))
    rows = connection.execute(sa.select(*_FIELDS).where(D.c.seq.in_(chosen)).order_by(D.c.seq)).mappings()
    return tuple(_delivery(row) for row in rows)


def next_due(connection: sa.Connection, now: float) -> float | None:
    """Return when the next try or the end of a lease is due. What is due already waits for an earlier one of its job."""
    due: float | None = connection.execute(sa.select(sa.func.min(D.c.next_at)).where(_IS_PENDING, D.c.next_at > now)).scalar()
    return due


def settle(connection: sa.Connection, delivery: Delivery, owner: str, outcome: Outcome, now: float) -> bool:
    """Write how a try went; False when another deliverer has taken it over since."""
    held = sa.and_(D.c.id == delivery.id, D.c.owner == owner, D.c.tries == delivery.tries, _IS_PENDING)
    changes: dict[str, object] = {"owner": None, "status_code": outcome.status_code, "error": outcome.error}
    if outcome.error is not None and outcome.retry_in_s is not None:
        changes["next_at"] = now + outcome.retry_in_s
    else:
        ended = DeliveryState.DEAD if outcome.error is not None else DeliveryState.DELIVERED
        changes |= {"state": ended.value, "ended_at": now}
    settled = connection.execute(D.update().where(held).values(changes)).rowcount == 1
    if settled and outcome.gone:
        rest = {"state": DeliveryState.DEAD.value, "ended_at": now, "error": outcome.error, "status_code": outcome.status_code}
        connection.execute(D.update().where(D.c.job_id == delivery.job_id, _IS_PENDING).values(rest))
    return settled


def select_page(connection: sa.Connection, query: DeliveryQuery) -> DeliveryPage:
    """List a tenant's deliveries, newest first.

    Raises:
        InvalidInput: a cursor that is none of ours.
    """
    statement = sa.select(D.c.seq, *_FIELDS).where(D.c.tenant == query.tenant).order_by(D.c.seq.desc()).limit(query.limit + 1)
    if query.job_id is not None:
        statement = statement.where(D.c.job_id == query.job_id)
    if query.state is not None:
        statement = statement.where(D.c.state == query.state.value)
    if query.cursor is not None:
        if not (query.cursor.isascii() and query.cursor.isdigit() and len(query.cursor) <= 18):
            raise InvalidInput("this cursor was not made by this API: take next_cursor from the page before")
        statement = statement.where(D.c.seq < int(query.cursor))
    rows = connection.execute(statement).mappings().all()
    shown = rows[: query.limit]
    return DeliveryPage(tuple(_delivery(row) for row in shown), str(shown[-1]["seq"]) if len(rows) > query.limit else None)


def redeliver(connection: sa.Connection, tenant: str, delivery_id: str, now: float) -> Delivery:
    """Send an ended delivery again, under the same id; one that is under way stays as it is.

    Raises:
        DeliveryNotFound: no such delivery for this tenant.
    """
    fresh = {"state": DeliveryState.PENDING.value, "tries": 0, "first_try_at": None, "next_at": now, "ended_at": None, "owner": None}
    own = sa.and_(D.c.id == delivery_id, D.c.tenant == tenant)
    connection.execute(D.update().where(own, ~_IS_PENDING).values(fresh))
    row = connection.execute(sa.select(*_FIELDS).where(own)).mappings().first()
    if row is None:
        raise DeliveryNotFound(delivery_id)
    return _delivery(row)


def lag_s(connection: sa.Connection, now: float) -> tuple[int, float]:
    """Return how many deliveries wait and how old the oldest is."""
    count, oldest = connection.execute(sa.select(sa.func.count(), sa.func.min(D.c.created_at)).where(_IS_PENDING)).one()
    return count, max(0.0, now - oldest) if oldest is not None else 0.0


def forget_ended(connection: sa.Connection, before: float, kept: int) -> int:
    """Remove ended deliveries that are old, or more than are kept; returns how many."""
    beyond = sa.select(D.c.seq).where(~_IS_PENDING).order_by(D.c.seq.desc()).offset(kept).limit(1).scalar_subquery()
    stale = sa.or_(D.c.ended_at < before, D.c.seq <= beyond)
    return connection.execute(D.delete().where(~_IS_PENDING, stale)).rowcount


def insert_test(connection: sa.Connection, tenant: str, url: str, secret: str, now: float) -> Delivery:
    """Put a test into the outbox: nothing waits for it, and it waits for nothing."""
    delivery_id = str(uuid.uuid4())
    row = {
        "id": delivery_id,
        "tenant": tenant,
        "job_id": delivery_id,
        "event": WebhookEvent.TEST.value,
        "body": body_of_test(now),
        "tries": 0,
    }
    to = {"url": url, "secret": secret}
    connection.execute(D.insert().values(row | to | {"state": DeliveryState.PENDING.value, "created_at": now, "next_at": now}))
    return _delivery(connection.execute(sa.select(*_FIELDS).where(D.c.id == delivery_id)).mappings().one())


def _insert(connection: sa.Connection, event: WebhookEvent, job: Job, now: float, body: str) -> None:
    assert job.webhook is not None, "wants() was asked"
    row = {"id": str(uuid.uuid4()), "tenant": job.tenant, "job_id": job.id, "event": event.value, "body": body, "tries": 0}
    to = {"url": job.webhook["url"], "secret": job.webhook["secret"]}
    connection.execute(D.insert().values(row | to | {"state": DeliveryState.PENDING.value, "created_at": now, "next_at": now}))


def _drop_progress(connection: sa.Connection, job_id: str) -> None:
    """Remove progress that nobody sends right now: a receiver that was away needs only the newest."""
    connection.execute(D.delete().where(D.c.job_id == job_id, D.c.event == WebhookEvent.PROGRESS.value, _IS_PENDING, D.c.owner.is_(None)))


def _delivery(row: sa.RowMapping) -> Delivery:
    values = {field.name: row[field.name] for field in fields(Delivery)}
    return Delivery(**values | {"event": WebhookEvent(row["event"]), "state": DeliveryState(row["state"])})
