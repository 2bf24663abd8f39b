"""Webhooks: the outbox on SQLite and PostgreSQL, and the deliverer over it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections import Counter, defaultdict

import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from deployments.jobs.config import StoreConfig, WebhookConfig
from deployments.jobs.deliverer import Deliverer
from deployments.jobs.errors import DeliveryNotFound, UrlNotAllowed, WebhookRefused
from deployments.jobs.model import JobError, Progress, Stage
from deployments.jobs.ports import SystemClock, WebhookAnswer
from deployments.jobs.store import SqlJobStore
from deployments.jobs.webhook import DeliveryQuery, DeliveryState, Outcome, WebhookEvent, WebhookTarget, retry_in_s, signed_headers
from deployments.jobs.webhook_desk import WebhookDesk

TENANT = "default"
SECRETS = {"default": tuple("whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))}
EVERY = ["job.started", "job.progress", "job.succeeded", "job.failed", "job.cancelled"]
HOOK = {"url": "https://example.com/hooks", "events": EVERY, "secret": "default"}


async def run_one(store, new_job, claim, **changes):
    await store.create(new_job(**({"webhook": HOOK} | changes)))
    return await store.claim(claim())


async def take(store, owner="d1", limit=10):
    return await store.take_deliveries(owner, limit, lease_s=60.0, wait_s=0.0)


async def events_of(store, job_id=None):
    page = await store.list_deliveries(DeliveryQuery(TENANT, job_id))
    return [(d.event.value, d.state.value) for d in reversed(page.deliveries)]


async def test_every_state_of_a_job_is_put_into_the_outbox_once(store, new_job, claim):
    job = await run_one(store, new_job, claim)
    await store.finish(job.id, 1, [], {})
    await store.finish(job.id, 1, [], {})
    assert await events_of(store) == [("job.started", "pending"), ("job.succeeded", "pending")]


async def test_only_the_events_that_were_asked_for_are_sent(store, new_job, claim):
    job = await run_one(store, new_job, claim, webhook=HOOK | {"events": ["job.failed"]})
    await store.fail(job.id, 1, JobError("no_face_detected", "no face"), {})
    (delivery,) = await take(store)
    assert json.loads(delivery.body)["data"]["error"]["code"] == "no_face_detected"


async def test_a_job_cancelled_while_it_waits_tells_so(store, new_job):
    job, _ = await store.create(new_job(webhook=HOOK))
    await store.cancel(TENANT, job.id)
    assert await events_of(store) == [("job.cancelled", "pending")]


async def test_progress_is_throttled_and_the_newest_replaces_what_waits(store, new_job, claim, clock):
    job = await run_one(store, new_job, claim)
    for n in range(10):
        clock.advance(1.0)
        await store.heartbeat(job.id, 1, Progress(Stage.COMPUTING, n / 10))
    assert await events_of(store) == [("job.started", "pending"), ("job.progress", "pending")]
    await store.finish(job.id, 1, [], {})
    assert await events_of(store) == [("job.started", "pending"), ("job.succeeded", "pending")]


async def test_deliveries_of_a_job_leave_one_after_the_other(store, new_job, claim):
    job = await run_one(store, new_job, claim)
    await store.finish(job.id, 1, [], {})
    (started,) = await take(store)
    assert await take(store, "d2") == ()
    assert await store.settle_delivery(started, "d1", Outcome(503, "busy", retry_in_s=10.0))
    assert await take(store) == ()  # a failed one is not overtaken


async def test_a_dead_deliverers_work_is_taken_over_and_its_answer_refused(store, new_job, claim, clock):
    await run_one(store, new_job, claim)
    (first,) = await take(store)
    clock.advance(61.0)
    (again,) = await take(store, "d2")
    assert (again.id, again.tries) == (first.id, 2)
    assert not await store.settle_delivery(first, "d1", Outcome(200))
    assert await store.settle_delivery(again, "d2", Outcome(200))


async def test_a_receiver_that_is_gone_hears_nothing_more_of_the_job(store, new_job, claim):
    job = await run_one(store, new_job, claim)
    await store.finish(job.id, 1, [], {})
    (started,) = await take(store)
    await store.settle_delivery(started, "d1", Outcome(410, "gone", gone=True))
    assert await events_of(store) == [("job.started", "dead"), ("job.succeeded", "dead")]


async def test_a_dead_delivery_is_sent_again_under_its_id_and_for_its_tenant_alone(store, new_job, claim):
    await run_one(store, new_job, claim)
    (delivery,) = await take(store)
    await store.settle_delivery(delivery, "d1", Outcome(500, "broken"))
    assert len((await store.list_deliveries(DeliveryQuery(TENANT, state=DeliveryState.DEAD))).deliveries) == 1
    assert (await store.list_deliveries(DeliveryQuery("other"))).deliveries == ()
    with pytest.raises(DeliveryNotFound):
        await store.redeliver("other", delivery.id)
    await store.redeliver(TENANT, delivery.id)
    (again,) = await take(store)
    assert (again.id, again.body, again.tries) == (delivery.id, delivery.body, 1)


async def test_ended_deliveries_are_swept_by_age(store, new_job, claim, clock):
    await run_one(store, new_job, claim, webhook=HOOK | {"events": ["job.started"]})
    (delivery,) = await take(store)
    await store.settle_delivery(delivery, "d1", Outcome(200))
    clock.advance(8 * 86400.0)
    await store.sweep()
    assert await events_of(store) == []


async def test_signatures_verify_with_each_of_the_secrets(store, new_job, claim):
    await run_one(store, new_job, claim)
    (delivery,) = await take(store)
    headers = signed_headers(delivery, SECRETS["default"], SystemClock().time())
    for secret in SECRETS["default"]:
        assert Webhook(secret).verify(delivery.body, headers)["type"] == "job.started"
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(b"x" * 32).decode()).verify(delivery.body, headers)


async def test_a_test_is_sent_once_and_waits_for_nothing(store, new_job, claim, clock):
    await run_one(store, new_job, claim)
    test = await store.add_test(TENANT, "https://example.com/hooks?key=1", "default")
    assert (test.event, test.job_id, test.state) == (WebhookEvent.TEST, test.id, DeliveryState.PENDING)
    assert [delivery.event for delivery in await take(store)] == [WebhookEvent.STARTED, WebhookEvent.TEST]
    assert json.loads(test.body)["type"] == "webhook.test"

    class Broken:
        async def send(self, _url, _headers, _body):
            return WebhookAnswer(503)

    deliverer = Deliverer(store, Broken(), SECRETS, WebhookConfig(secrets={"default": ("A", "B")}), clock)
    assert (await deliverer._try(test)).retry_in_s is None


def test_a_job_cannot_ask_for_tests():
    with pytest.raises(ValidationError, match="POST /v1/webhooks/test"):
        WebhookTarget(url="https://example.com", events=("webhook.test",))


def test_retries_back_off_honour_the_receiver_and_end():
    config = WebhookConfig()
    assert [retry_in_s(config, n, 0.0, None, 1.0) for n in (1, 2, 3, 99)] == [5.0, 10.0, 20.0, 3600.0]
    assert retry_in_s(config, 1, 0.0, None, 0.0) == 2.5
    assert retry_in_s(config, 1, 0.0, 120.0, 1.0) == 120.0
    assert retry_in_s(config, 9, config.give_up_s, None, 1.0) is None


def test_the_desk_refuses_what_could_not_be_signed_or_reached(store):
    def refuse(_url):
        raise UrlNotAllowed("private")

    target = WebhookTarget(url="http://10.0.0.1/")
    with pytest.raises(WebhookRefused):
        WebhookDesk(store, print, ()).check(target)
    with pytest.raises(UrlNotAllowed):
        WebhookDesk(store, refuse, ("default",)).check(target)


class FlakyReceiver:
    """Fails three tries in ten, and all of them for a while; keeps what it took, in order, and checks every signature."""

    def __init__(self, dead: range) -> None:
        self.tries = itertools.count()
        self.dead = dead
        self.taken = defaultdict(list)
        self.ids = Counter()

    async def send(self, _url, headers, body):
        n = next(self.tries)
        event = Webhook(SECRETS["default"][n % 2]).verify(body.decode(), headers)  # raises when unsigned
        if n in self.dead or n % 10 < 3:
            took_it_all_the_same = n % 20 == 0
            if not took_it_all_the_same:
                return WebhookAnswer(503 if n % 2 else None, "no answer")
        job, kind = event["data"]["id"], event["type"]
        self.taken[job].append(kind)
        self.ids[headers["webhook-id"]] += 1
        return WebhookAnswer(500 if n % 20 == 0 else 200, "broken after it took it" if n % 20 == 0 else None)


@pytest.mark.slow
async def test_a_thousand_jobs_are_told_to_a_receiver_that_fails_and_dies(tmp_path, new_job, claim):
    store = SqlJobStore(StoreConfig(database_url=f"sqlite:///{tmp_path}/jobs.sqlite3", lease_s=600))  # all are claimed before one ends
    await store.start()
    receiver = FlakyReceiver(dead=range(300, 1500))
    config = WebhookConfig(secrets={"default": ("A", "B")}, first_retry_s=0.01, max_retry_s=0.2)
    deliverers = [Deliverer(store, receiver, SECRETS, config, SystemClock()) for _ in range(2)]
    for deliverer in deliverers:
        deliverer.start()

    await asyncio.gather(*(store.create(new_job(webhook=HOOK)) for _ in range(1000)))
    jobs = await asyncio.gather(*(store.claim(claim()) for _ in range(1000)))
    await asyncio.gather(*(store.finish(job.id, 1, [], {}) for job in jobs))
    while (await store.list_deliveries(DeliveryQuery(TENANT, state=DeliveryState.PENDING, limit=1))).deliveries:
        await asyncio.sleep(0.05)
    for deliverer in deliverers:
        await deliverer.close()
    dead = await store.list_deliveries(DeliveryQuery(TENANT, state=DeliveryState.DEAD, limit=1))
    await store.close()

    assert dead.deliveries == ()
    assert len(receiver.taken) == 1000
    for told in receiver.taken.values():
        kinds = [kind for kind, _ in itertools.groupby(told)]
        assert kinds == ["job.started", "job.succeeded"]  # at least once each, none after what came later
    assert len(receiver.ids) == 2000
    assert max(receiver.ids.values()) > 1  # some were told twice: under the same id
