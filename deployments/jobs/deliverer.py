"""Takes webhook deliveries out of the outbox and sends them: at least once, in order for each job, again after a failure.

What it was doing when it dies is in the store under a lease, and another deliverer takes it when that runs out.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import Mapping, Sequence

from deployments.jobs.config import WebhookConfig
from deployments.jobs.errors import ServiceError, Unavailable, UrlNotAllowed
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.ports import Clock, WebhookAnswer, WebhookOutbox, WebhookSender
from deployments.jobs.webhook import Delivery, Outcome, WebhookEvent, retry_in_s, signed_headers

log = get_logger(__name__)

WAIT_S = 10.0  # long poll of an idle deliverer
STORE_RETRY_S = 1.0
GONE = 410
OK = range(200, 300)


class Deliverer:
    """Delivers until it is closed."""

    def __init__(
        self, outbox: WebhookOutbox, sender: WebhookSender, secrets: Mapping[str, Sequence[str]], config: WebhookConfig, clock: Clock
    ) -> None:
        """Take the parts.

        Args:
            outbox: where deliveries are.
            sender: the guarded way to receivers.
            secrets: by name, those that sign.
            config: of deliveries.
            clock: of signatures.
        """
        self._outbox = outbox
        self._sender = sender
        self._secrets = secrets
        self._config = config
        self._clock = clock
        self._owner = str(uuid.uuid4())
        self._sending: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to deliver."""
        self._loop = asyncio.get_running_loop().create_task(self._run())

    @property
    def running(self) -> bool:
        """Whether it delivers."""
        return self._loop is not None and not self._loop.done()

    async def close(self) -> None:
        """Take no more, and let those under way end."""
        if self._loop is not None:
            self._loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop
        await asyncio.gather(*self._sending)

    async def _run(self) -> None:
        while True:
            free = self._config.parallel - len(self._sending)
            if free <= 0:
                await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
                continue
            try:
                taken = await self._outbox.take_deliveries(self._owner, free, self._config.lease_s, WAIT_S)
            except Unavailable:
                await asyncio.sleep(STORE_RETRY_S)
                continue
            for delivery in taken:
                task = asyncio.get_running_loop().create_task(self._deliver(delivery))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    async def _deliver(self, delivery: Delivery) -> None:
        outcome = await self._try(delivery)
        try:
            settled = await self._outbox.settle_delivery(delivery, self._owner, outcome)
        except ServiceError as error:  # the lease runs out, and it is sent again
            log.warning("delivery not settled", extra=fields(action="webhook_not_settled", delivery=delivery.id, reason=str(error)))
            return
        log.info(
            "webhook tried",
            extra=fields(action="webhook_tried", delivery=delivery.id, job_id=delivery.job_id, status=outcome.status_code, settled=settled),
        )

    async def _try(self, delivery: Delivery) -> Outcome:
        secrets = self._secrets.get(delivery.secret)
        if not secrets:
            return self._failed(delivery, WebhookAnswer(None, f"there is no signing secret named {delivery.secret}"))
        headers = signed_headers(delivery, secrets, self._clock.time())
        try:
            answer = await self._sender.send(delivery.url, headers, delivery.body.encode())
        except UrlNotAllowed as error:
            return self._failed(delivery, WebhookAnswer(None, str(error)))
        except Exception as error:  # whatever broke: the delivery must get its next try, and the deliverer must live
            log.exception("webhook broke", extra=fields(action="webhook_broke", delivery=delivery.id))
            return self._failed(delivery, WebhookAnswer(None, f"sending failed ({type(error).__name__})"))
        if answer.status_code in OK:
            return Outcome(answer.status_code)
        if answer.status_code == GONE:
            return Outcome(GONE, "the receiver answered 410: it wants no more", gone=True)
        return self._failed(delivery, answer)

    def _failed(self, delivery: Delivery, answer: WebhookAnswer) -> Outcome:
        began = delivery.first_try_at if delivery.first_try_at is not None else self._clock.time()
        jitter = random.random()  # noqa: S311 -- spreads load, hides nothing
        if delivery.event is WebhookEvent.TEST:  # whoever asked looks now
            return Outcome(answer.status_code, answer.error or f"the receiver answered {answer.status_code}")
        wait = retry_in_s(self._config, delivery.tries, self._clock.time() - began, answer.retry_after_s, jitter)
        return Outcome(answer.status_code, answer.error or f"the receiver answered {answer.status_code}", wait)
