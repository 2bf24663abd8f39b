"""The event feed over a real store."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.jobs import feed as feed_module
from deployments.jobs.errors import JobNotFound, StoreUnavailable
from deployments.jobs.events import EventBatch, EventId, EventType, JobEvent
from deployments.jobs.feed import EventFeed, Subscription
from deployments.jobs.model import FileRecord, JobError, JobStatus, Progress, Stage
from deployments.jobs.store import SqlJobStore

TENANT = "default"


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.db'}"


class FlakyStore:
    """A store whose answers a test can withhold or cut short."""

    def __init__(self, store: SqlJobStore) -> None:
        self._store = store
        self.down = False
        self.forgetful = False  # answers the next poll with a gap
        self.histories = 0

    async def events(self, after: EventId | None, wait_s: float) -> EventBatch:
        if self.down:
            raise StoreUnavailable("away")
        if self.forgetful and after is not None:
            self.forgetful = False
            batch = await self._store.events(None, 0)
            return EventBatch((), batch.last_id, gap=True)
        return await self._store.events(after, wait_s)

    async def history(self, tenant: str, job_id: str) -> tuple[JobEvent, ...]:
        self.histories += 1
        return await self._store.history(tenant, job_id)

    def __getattr__(self, name: str):
        return getattr(self._store, name)


@pytest.fixture
def flaky(store):
    return FlakyStore(store)


@pytest.fixture
async def feed(flaky, monkeypatch):
    monkeypatch.setattr(feed_module, "BACKOFF_S", (0.01, 0.02))
    feed = EventFeed(flaky, poll_s=0.05)
    feed.start()
    yield feed
    await feed.close()


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def collect(subscription, into: list[JobEvent]) -> None:
    async for event in subscription:
        into.append(event)


def state(n: int, status: JobStatus = JobStatus.RUNNING, job_id: str = "a", tenant: str = TENANT) -> JobEvent:
    return JobEvent(EventId(1, n), EventType.STATE, job_id, tenant, 0.0, status, 1)


def progress(n: int, fraction: float, job_id: str = "a") -> JobEvent:
    return JobEvent(EventId(1, n), EventType.PROGRESS, job_id, TENANT, 0.0, JobStatus.RUNNING, 1, Progress(Stage.COMPUTING, fraction))


async def run_to_end(store, claim, job) -> None:
    claimed = await store.claim(claim())
    assert claimed.id == job.id
    await store.heartbeat(job.id, 1, Progress(Stage.COMPUTING, 0.5))
    await store.finish(job.id, 1, (), {})


async def test_subscription_hears_a_job_from_its_beginning_to_its_end(feed, store, new_job, claim):
    job, _ = await store.create(new_job())
    heard: list[JobEvent] = []
    async with asyncio.timeout(5), feed.subscribe(TENANT, [job.id]) as subscription:
        reading = asyncio.create_task(collect(subscription, heard))
        await until(lambda: len(heard) == 1)
        await run_to_end(store, claim, job)
        await reading
    states = [e.status for e in heard if e.type is EventType.STATE]
    assert states == [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED]
    assert [e.id for e in heard] == sorted(e.id for e in heard)


async def test_subscription_replays_only_what_came_after_the_given_event(feed, store, new_job, claim):
    job, _ = await store.create(new_job())
    await run_to_end(store, claim, job)
    queued, running, ended = await store.history(TENANT, job.id)
    async with asyncio.timeout(5), feed.subscribe(TENANT, [job.id], after=queued.id) as subscription:
        assert [e async for e in subscription] == [running, ended]


async def test_subscription_after_the_last_event_of_an_ended_job_is_over_at_once(feed, store, new_job, claim):
    job, _ = await store.create(new_job())
    await run_to_end(store, claim, job)
    ended = (await store.history(TENANT, job.id))[-1]
    async with feed.subscribe(TENANT, [job.id], after=ended.id) as subscription:
        assert subscription.ended
        assert [e async for e in subscription] == []


async def test_subscription_to_several_jobs_ends_with_the_last_of_them(feed, store, new_job):
    first, _ = await store.create(new_job())
    second, _ = await store.create(new_job())
    heard: list[JobEvent] = []
    async with asyncio.timeout(5), feed.subscribe(TENANT, [first.id, second.id]) as subscription:
        reading = asyncio.create_task(collect(subscription, heard))
        await store.cancel(TENANT, first.id)
        await until(lambda: any(e.terminal for e in heard))
        assert not reading.done()
        await store.cancel(TENANT, second.id)
        await reading
    assert {e.job_id for e in heard if e.terminal} == {first.id, second.id}


async def test_subscription_to_an_unknown_job_is_refused(feed):
    with pytest.raises(JobNotFound):
        async with feed.subscribe(TENANT, [str(uuid.uuid4())]):
            pass


async def test_subscription_to_all_jobs_hears_from_now_on_and_only_its_tenant(feed, store, new_job):
    async with asyncio.timeout(5), feed.subscribe(TENANT) as subscription:
        await store.create(new_job(tenant="other"))
        ours, _ = await store.create(new_job())
        assert (await anext(subscription)).job_id == ours.id


async def test_subscription_to_all_jobs_resumes_after_an_event(feed, store, new_job):
    seen, _ = await store.create(new_job())
    position = (await store.history(TENANT, seen.id))[-1].id
    missed, _ = await store.create(new_job())
    async with asyncio.timeout(5), feed.subscribe(TENANT, after=position) as subscription:
        assert (await anext(subscription)).job_id == missed.id


async def test_feed_tells_the_end_of_a_job_that_it_missed_in_a_gap(feed, flaky, store, new_job, claim):
    job, _ = await store.create(new_job())
    heard: list[JobEvent] = []
    async with asyncio.timeout(5), feed.subscribe(TENANT, [job.id]) as subscription:
        reading = asyncio.create_task(collect(subscription, heard))
        await until(lambda: heard)
        flaky.down = True
        await until(lambda: not feed.connected)
        await run_to_end(store, claim, job)
        flaky.forgetful, flaky.down = True, False
        await reading
    assert [e.status for e in heard if e.type is EventType.STATE] == [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED]


async def test_feed_goes_on_after_an_outage_without_a_gap(feed, flaky, store, new_job):
    job, _ = await store.create(new_job())
    async with asyncio.timeout(5), feed.subscribe(TENANT, [job.id]) as subscription:
        flaky.down = True
        await until(lambda: not feed.connected)
        await store.cancel(TENANT, job.id)
        flaky.down = False
        assert [e.status async for e in subscription] == [JobStatus.QUEUED, JobStatus.CANCELLED]
    assert feed.connected


async def test_feed_reads_a_history_once_for_many_readers_after_a_gap(feed, flaky, store, new_job):
    job, _ = await store.create(new_job())
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(feed.subscribe(TENANT, [job.id]))
        before = flaky.histories
        flaky.forgetful = True
        await until(lambda: not flaky.forgetful and flaky.histories > before)
        assert flaky.histories == before + 1


async def test_feed_ends_the_wait_for_a_job_that_was_deleted_in_a_gap(feed, flaky, store, new_job):
    job, _ = await store.create(new_job())
    async with asyncio.timeout(5), feed.subscribe(TENANT, [job.id]) as subscription:
        await anext(subscription)
        flaky.down = True
        await until(lambda: not feed.connected)
        await store.cancel(TENANT, job.id)
        await store.delete(TENANT, job.id)
        flaky.forgetful, flaky.down = True, False
        assert [e async for e in subscription] == []


async def test_feed_survives_the_restart_of_the_store(store_config, clock, new_job, monkeypatch):
    monkeypatch.setattr(feed_module, "BACKOFF_S", (0.01, 0.02))
    first = SqlJobStore(store_config, clock)
    await first.start()
    job, _ = await first.create(new_job())
    flaky = FlakyStore(first)
    feed = EventFeed(flaky, poll_s=0.05)
    feed.start()
    heard: list[JobEvent] = []
    async with asyncio.timeout(10), feed.subscribe(TENANT, [job.id]) as subscription:
        reading = asyncio.create_task(collect(subscription, heard))
        await until(lambda: heard)
        flaky.down = True
        await until(lambda: not feed.connected)
        await first.close()
        second = SqlJobStore(store_config, clock)
        await second.start()
        await second.cancel(TENANT, job.id)
        flaky._store, flaky.down = second, False
        await reading
    await feed.close()
    await second.close()
    assert [e.status for e in heard] == [JobStatus.QUEUED, JobStatus.CANCELLED]
    assert heard[0].id.epoch < heard[1].id.epoch


async def test_feed_close_ends_subscriptions_and_says_so(feed, store, new_job):
    job, _ = await store.create(new_job())
    async with asyncio.timeout(5), feed.subscribe(TENANT, [job.id]) as subscription:
        await anext(subscription)
        await feed.close()
        assert [e async for e in subscription] == []
        assert subscription.cut_off


async def test_feed_without_a_store_refuses_subscriptions(flaky, monkeypatch):
    monkeypatch.setattr(feed_module, "FIRST_POSITION_S", 0.05)
    flaky.down = True
    feed = EventFeed(flaky)
    feed.start()
    with pytest.raises(StoreUnavailable):
        async with feed.subscribe(TENANT):
            pass
    await feed.close()


async def test_feed_outlives_a_store_that_answers_nonsense(feed, flaky, store, new_job, monkeypatch):
    async def nonsense(after, wait_s):
        raise RuntimeError("bug")

    original = flaky.events
    monkeypatch.setattr(flaky, "events", nonsense)
    await until(lambda: not feed.connected)
    monkeypatch.setattr(flaky, "events", original)
    await until(lambda: feed.connected)


async def test_subscription_gives_a_slow_reader_the_newest_progress_and_every_state():
    subscription = Subscription(TENANT, frozenset({"a", "b"}))
    subscription.offer(state(1))
    for n in range(2, 1000):
        subscription.offer(progress(n, n / 1000))
    subscription.offer(progress(1000, 0.1, "b"))
    subscription.offer(state(1001, JobStatus.SUCCEEDED))
    subscription.offer(state(1002, JobStatus.FAILED, "b"))
    assert [(e.job_id, e.id.n) async for e in subscription] == [("a", 1), ("a", 1001), ("b", 1002)]


async def test_subscription_delivers_in_the_order_of_the_ids():
    subscription = Subscription(TENANT, None)
    for event in (progress(1, 0.1), progress(2, 0.1, "b"), progress(3, 0.2), state(4, job_id="c")):
        subscription.offer(event)
    heard = [(await anext(subscription)).id.n for _ in range(3)]
    assert heard == [2, 3, 4]


async def test_subscription_lets_a_reader_go_that_is_too_far_behind(monkeypatch):
    monkeypatch.setattr(feed_module, "MAX_WAITING_STATES", 10)
    subscription = Subscription(TENANT, None)
    for n in range(11):
        subscription.offer(state(n + 1, job_id=str(n)))
    assert subscription.cut_off
    assert [e async for e in subscription] == []


async def test_subscription_takes_no_event_twice_from_history_and_feed():
    subscription = Subscription(TENANT, frozenset({"a"}))
    subscription.offer(state(1, JobStatus.QUEUED))
    subscription.replay([state(1, JobStatus.QUEUED), state(2)], after=None)
    subscription.offer(state(2))
    subscription.offer(state(3, JobStatus.FAILED))
    assert [e.id.n async for e in subscription] == [1, 2, 3]


def test_job_error_of_a_failed_attempt_is_part_of_the_event():
    event = JobEvent(
        EventId(1, 1), EventType.STATE, "a", TENANT, 0.0, JobStatus.QUEUED, 1, error=JobError("fetch_failed", "…", retryable=True)
    )
    assert not event.terminal


class SessionEar:
    """Hears of one session."""

    def __init__(self):
        self.heard, self.missed, self.closed = [], 0, False

    def hear(self, event):
        self.heard.append((event.coalesce_key, event.coalesce_seq, event.status.value))

    def miss(self):
        self.missed += 1

    def close(self):
        self.closed = True


async def test_a_session_is_heard_of_by_its_key_alone(store, feed, new_job, claim, clock):
    ear = SessionEar()
    file = FileRecord("f1", TENANT, "k", "n", "image/png", 1, "0" * 64, clock.time())
    async with feed.follow_session(TENANT, "mine", ear):
        await store.create(new_job())
        await store.create_latest(new_job(coalesce_key="another", fingerprint="1"), replace(file, id="f2"), None)
        await store.create_latest(new_job(coalesce_key="mine", fingerprint="2", pool="comfyui"), file, None)
        left = feed.left
        await store.claim(claim(pool="comfyui"))
        async with asyncio.timeout(5):
            await feed.until_left(left + 1)
        assert ear.heard == [("mine", 1, "queued"), ("mine", 1, "running")]
        await feed.close()
        assert ear.closed
    assert feed._sessions == {}
