"""The job store's part about webhooks: the outbox, and who delivers what is in it."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC
from functools import partial

from deployments.jobs import webhook_table
from deployments.jobs.config import StoreConfig
from deployments.jobs.database import Database, Transaction
from deployments.jobs.errors import StoreUnavailable
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import Job, Progress
from deployments.jobs.ports import Clock, Metrics
from deployments.jobs.webhook import Delivery, DeliveryPage, DeliveryQuery, Outcome, WebhookEvent, wants

log = get_logger(__name__)

SWEEP_PERIOD_S = 60.0


class WebhookShelf(ABC):
    """The part of the job store that implements :class:`deployments.jobs.ports.WebhookOutbox`."""

    _config: StoreConfig
    _clock: Clock
    _metrics: Metrics
    _db: Database
    _webhook_news: asyncio.Event  # a fresh one after each arrival
    _webhook_progress: dict[str, float]  # job -> when its newest progress was put into the outbox, monotonic
    _webhooks_swept_at: float

    async def take_deliveries(self, owner: str, limit: int, lease_s: float, wait_s: float) -> tuple[Delivery, ...]:
        """See the port."""
        deadline = self._clock.monotonic() + wait_s
        while True:
            news = self._webhook_news
            taken, due = await self._db.write(lambda tx: self._take_deliveries(tx, owner, limit, lease_s))
            remaining = deadline - self._clock.monotonic()
            if taken or remaining <= 0:
                return taken
            # What is due but waits for an earlier one of its job is let go by the news of that one's end.
            until_due = due - self._clock.time() if due is not None else remaining
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(remaining, until_due))):
                    await news.wait()

    async def settle_delivery(self, delivery: Delivery, owner: str, outcome: Outcome) -> bool:
        """See the port."""

        def operation(tx: Transaction) -> bool:
            tx.after_commit(self._wake_deliverers)
            return webhook_table.settle(tx.connection, delivery, owner, outcome, tx.now)

        settled = await self._db.write(operation)
        if settled and outcome.error is None:
            self._metrics.observe("webhook_delay_s", self._clock.time() - delivery.created_at)
        if settled:
            result = "delivered" if outcome.error is None else "failed" if outcome.retry_in_s is not None else "dead"
            self._metrics.count("webhook_tries", result=result)
        return settled

    async def list_deliveries(self, query: DeliveryQuery) -> DeliveryPage:
        """See the port."""
        return await self._db.read(lambda c: webhook_table.select_page(c, query))

    async def add_test(self, tenant: str, url: str, secret: str) -> Delivery:
        """See the port."""

        def operation(tx: Transaction) -> Delivery:
            tx.after_commit(self._wake_deliverers)
            return webhook_table.insert_test(tx.connection, tenant, url, secret, tx.now)

        return await self._db.write(operation)

    async def redeliver(self, tenant: str, delivery_id: str) -> Delivery:
        """See the port."""

        def operation(tx: Transaction) -> Delivery:
            tx.after_commit(self._wake_deliverers)
            return webhook_table.redeliver(tx.connection, tenant, delivery_id, tx.now)

        return await self._db.write(operation)

    def _take_deliveries(self, tx: Transaction, owner: str, limit: int, lease_s: float) -> tuple[tuple[Delivery, ...], float | None]:
        taken = webhook_table.take(tx.connection, owner, limit, tx.now, tx.now + lease_s)
        return taken, None if taken else webhook_table.next_due(tx.connection, tx.now)

    def _tell_webhook(self, tx: Transaction, job: Job) -> None:
        """Put a job's new state into the outbox, in the transaction that gives it that state."""
        if job.webhook is None:
            return
        if webhook_table.insert_state_event(tx.connection, job, tx.now):
            tx.after_commit(self._wake_deliverers)
        if job.status.terminal:
            tx.after_commit(partial(self._forget_progress, job.id))

    async def _tell_webhook_progress(self, job: Job, progress: Progress) -> None:
        """Put progress into the outbox, seldom; it is never worth a worker's heartbeat."""
        now = self._clock.monotonic()
        if not wants(job.webhook, WebhookEvent.PROGRESS):
            return
        if now - self._webhook_progress.get(job.id, float("-inf")) < self._config.webhook_progress_s:
            return
        self._webhook_progress[job.id] = now

        def operation(tx: Transaction) -> None:
            if webhook_table.insert_progress(tx.connection, job, progress, tx.now):
                tx.after_commit(self._wake_deliverers)
            else:
                tx.after_commit(partial(self._forget_progress, job.id))

        try:
            await self._db.write(operation)
        except StoreUnavailable as error:
            log.warning("progress not put into the outbox", extra=fields(action="webhook_progress_lost", reason=str(error)))

    async def _sweep_webhooks(self) -> None:
        now = self._clock.monotonic()
        if now - self._webhooks_swept_at < SWEEP_PERIOD_S:
            return
        self._webhooks_swept_at = now
        before = self._clock.time() - self._config.webhook_keep_s
        await self._db.write(lambda tx: webhook_table.forget_ended(tx.connection, before, self._config.webhooks_kept))
        waiting, lag_s = await self._db.read(lambda c: webhook_table.lag_s(c, self._clock.time()))
        self._metrics.gauge("webhooks_waiting", waiting)
        self._metrics.gauge("webhook_lag_s", lag_s)

    def _forget_progress(self, job_id: str) -> None:
        self._webhook_progress.pop(job_id, None)

    def _wake_deliverers(self) -> None:
        news, self._webhook_news = self._webhook_news, asyncio.Event()
        news.set()
