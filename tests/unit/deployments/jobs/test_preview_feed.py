"""The preview feed over a fake store, and what a reader gets who is slow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import pytest

from deployments.jobs import preview_feed as preview_feed_module
from deployments.jobs.errors import InvalidInput, StoreUnavailable
from deployments.jobs.events import EventId, EventType, JobEvent
from deployments.jobs.feed import EventFeed, Subscription
from deployments.jobs.model import JobStatus, Preview, Progress, Stage
from deployments.jobs.preview_feed import PreviewFeed, Viewing

TENANT = "default"


@pytest.fixture
def database_url(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.db'}"


class FakePreviews:
    """Implements the reading half of ``Previews``."""

    def __init__(self) -> None:
        self.newest: dict[str, Preview] = {}
        self.asked: list[tuple[tuple[str, ...], int, float]] = []
        self.down = False
        self.refused = 0
        self._news = asyncio.Event()

    def show(self, job_id: str, n: int) -> None:
        self.newest[job_id] = picture(job_id, n)
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def previews(self, job_ids: Sequence[str], after: int, wait_s: float) -> tuple[Preview, ...]:
        if self.down:
            self.refused += 1
            raise StoreUnavailable("away")
        self.asked.append((tuple(job_ids), after, wait_s))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while not (found := tuple(p for j, p in self.newest.items() if j in job_ids and p.n > after)):
                    await self._news.wait()
                return found
        return ()


@pytest.fixture
def source() -> FakePreviews:
    return FakePreviews()


@pytest.fixture
async def previews(source, monkeypatch):
    monkeypatch.setattr(preview_feed_module, "BACKOFF_S", (0.01, 0.02))
    monkeypatch.setattr(preview_feed_module, "PACE_S", 0.001)
    feed = PreviewFeed(source, poll_s=0.05)
    feed.start()
    yield feed
    await feed.close()


def picture(job_id: str, n: int) -> Preview:
    return Preview(job_id, 1, n, "image/jpeg", str(n).encode())


def state(n: int, status: JobStatus = JobStatus.RUNNING, job_id: str = "a") -> JobEvent:
    return JobEvent(EventId(1, n), EventType.STATE, job_id, TENANT, 0.0, status, 1)


def progress(n: int, job_id: str = "a") -> JobEvent:
    return JobEvent(EventId(1, n), EventType.PROGRESS, job_id, TENANT, 0.0, JobStatus.RUNNING, 1, Progress(Stage.COMPUTING, 0.5))


def events_of(*job_ids: str) -> Subscription:
    return Subscription(TENANT, frozenset(job_ids))


async def shown(viewing: Viewing) -> JobEvent | Preview:
    async with asyncio.timeout(5):
        return await anext(viewing)


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


async def test_viewing_gives_waiting_events_first_then_the_newest_picture_of_each_job():
    events = events_of("a", "b")
    viewing = Viewing(events, frozenset({"a", "b"}))
    for n in range(1, 100):
        viewing.offer_preview(picture("a", n))
        viewing.offer_preview(picture("b", 100 + n))
    events.offer(state(1))
    events.offer(progress(2))
    got = [await shown(viewing) for _ in range(4)]
    assert got == [state(1), progress(2), picture("a", 99), picture("b", 199)]


async def test_viewing_lets_an_event_overtake_a_picture_that_waited_before_it():
    events = events_of("a")
    viewing = Viewing(events, frozenset({"a"}))
    viewing.offer_preview(picture("a", 1))
    events.offer(state(1))
    assert [await shown(viewing), await shown(viewing)] == [state(1), picture("a", 1)]


async def test_viewing_never_shows_an_older_picture_after_a_newer_one():
    viewing = Viewing(events_of("a"), frozenset({"a"}))
    viewing.offer_preview(picture("a", 2))
    assert await shown(viewing) == picture("a", 2)
    for n in (1, 2, 3):
        viewing.offer_preview(picture("a", n))
    assert await shown(viewing) == picture("a", 3)


async def test_viewing_lets_no_job_starve_whose_pictures_change_while_they_wait():
    viewing = Viewing(events_of("a", "b"), frozenset({"a", "b"}))
    got = []
    for n in range(1, 9):
        viewing.offer_preview(picture("a", 2 * n))
        viewing.offer_preview(picture("b", 2 * n + 1))
        got.append((await shown(viewing)).job_id)
    assert got == ["a", "b"] * 4


async def test_viewing_shows_no_picture_of_a_job_that_has_ended():
    events = events_of("a", "b")
    viewing = Viewing(events, frozenset({"a", "b"}))
    viewing.offer_preview(picture("a", 1))
    events.offer(state(1, JobStatus.SUCCEEDED))
    assert await shown(viewing) == state(1, JobStatus.SUCCEEDED)
    viewing.offer_preview(picture("a", 2))
    viewing.offer_preview(picture("b", 3))
    assert await shown(viewing) == picture("b", 3)
    assert set(viewing.job_ids) == {"b"}


async def test_viewing_ends_with_the_last_job_and_when_it_is_cut_off():
    events = events_of("a")
    viewing = Viewing(events, frozenset({"a"}))
    events.offer(state(1, JobStatus.FAILED))
    assert [item async for item in viewing] == [state(1, JobStatus.FAILED)]
    assert not viewing.cut_off
    other = Viewing(events := events_of("b"), frozenset({"b"}))
    other.offer_preview(picture("b", 1))
    events.close()
    assert [item async for item in other] == []
    assert other.cut_off


async def test_viewing_by_request_shows_one_picture_at_a_time_and_every_event():
    events = events_of("a")
    viewing = Viewing(events, frozenset({"a"}), by_request=True)
    viewing.offer_preview(picture("a", 1))
    assert await shown(viewing) == picture("a", 1)
    viewing.offer_preview(picture("a", 2))
    events.offer(state(1))
    viewing.offer_preview(picture("a", 3))
    assert await shown(viewing) == state(1)
    waiting = asyncio.create_task(shown(viewing))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    viewing.request()
    assert await waiting == picture("a", 3)


async def test_viewing_wakes_a_reader_that_waits():
    viewing = Viewing(events_of("a"), frozenset({"a"}))
    waiting = asyncio.create_task(shown(viewing))
    await asyncio.sleep(0)
    viewing.offer_preview(picture("a", 1))
    assert await waiting == picture("a", 1)


async def test_feed_asks_nothing_while_nobody_looks(previews, source):
    with previews.view(events_of("a")):
        await until(lambda: source.asked)
    await until(lambda: not previews._somebody.is_set())
    asked = len(source.asked)
    source.show("a", 1)
    await asyncio.sleep(0.1)  # two polls, if there were any
    assert len(source.asked) == asked


async def test_feed_asks_once_for_all_readers_and_shows_all_of_them(previews, source):
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(previews.view(events_of("a", "b"))) for _ in range(20)]
        await until(lambda: any(wait_s > 0 for *_, wait_s in source.asked))
        source.show("b", 7)
        assert [await shown(viewing) for viewing in readers] == [picture("b", 7)] * 20
    assert {job_ids for job_ids, *_ in source.asked} == {("a", "b")}
    assert len(source.asked) < 10


async def test_feed_shows_a_newcomer_the_picture_that_others_have_seen(previews, source):
    with previews.view(events_of("a")) as first:
        source.show("a", 3)
        assert await shown(first) == picture("a", 3)
        source.show("z", 9)  # of a job that nobody looks at
        with previews.view(events_of("a")) as second:
            assert await shown(second) == picture("a", 3)
        with previews.view(events_of("z")) as third:
            assert await shown(third) == picture("z", 9)
        source.show("a", 10)
        assert await shown(first) == picture("a", 10)


async def test_feed_survives_a_store_that_is_away(previews, source):
    with previews.view(events_of("a")) as viewing:
        source.down = True
        await until(lambda: source.refused > 1)
        source.show("a", 1)
        source.down = False
        assert await shown(viewing) == picture("a", 1)


async def test_feed_outlives_a_store_that_answers_nonsense(previews, source, monkeypatch):
    async def nonsense(*_):
        calls.append(_)
        raise RuntimeError("bug")

    calls: list[object] = []
    with monkeypatch.context() as patch, previews.view(events_of("a")) as viewing:
        patch.setattr(source, "previews", nonsense)
        await until(lambda: len(calls) > 1)
        patch.undo()
        source.show("a", 1)
        assert await shown(viewing) == picture("a", 1)


async def test_feed_refuses_a_subscription_to_all_jobs(previews):
    with pytest.raises(InvalidInput, match="job_id"), previews.view(Subscription(TENANT, None)):
        pytest.fail("was let in")


async def test_feed_close_stops_it_whatever_it_does(source):
    for looked_at in (False, True):
        feed = PreviewFeed(source, poll_s=60)
        feed.start()
        with contextlib.ExitStack() as stack:
            if looked_at:
                stack.enter_context(feed.view(events_of("a")))
                await until(lambda: any(wait_s > 0 for *_, wait_s in source.asked))
            async with asyncio.timeout(5):
                await feed.close()
        assert feed._task.done()


async def test_five_hundred_readers_of_one_job_are_not_held_up_by_one_that_never_reads(store, new_job, claim):
    feed, previews = EventFeed(store, poll_s=0.05), PreviewFeed(store, poll_s=0.05)
    feed.start()
    previews.start()
    job, _ = await store.create(new_job())
    await store.claim(claim())
    async with asyncio.timeout(30), contextlib.AsyncExitStack() as stack:
        viewings = []
        for _ in range(500):
            subscription = await stack.enter_async_context(feed.subscribe(TENANT, [job.id]))
            viewings.append(stack.enter_context(previews.view(subscription)))
        deaf, *readers = viewings
        seen: list[list[JobEvent | Preview]] = [[] for _ in readers]

        async def read(viewing: Viewing, into: list[JobEvent | Preview]) -> None:
            async for item in viewing:
                into.append(item)

        reading = [asyncio.create_task(read(viewing, into)) for viewing, into in zip(readers, seen, strict=True)]
        while not await store.put_preview(Preview(job.id, 1, 0, "image/jpeg", b"0")):
            await asyncio.sleep(0.005)
        for n in range(1, 40):
            await store.heartbeat(job.id, 1, Progress(Stage.COMPUTING, n / 40))
            await store.put_preview(Preview(job.id, 1, 0, "image/jpeg", str(n).encode()))
            await asyncio.sleep(0.005)
        await until(lambda: all(isinstance(got[-1], Preview) and got[-1].data == b"39" for got in seen))
        await store.finish(job.id, 1, (), {})
        await asyncio.gather(*reading)
        assert all(got[-1].status is JobStatus.SUCCEEDED for got in seen)
        for got in seen:
            pictures = [item.n for item in got if isinstance(item, Preview)]
            assert pictures == sorted(set(pictures))
        await until(lambda: any(event.terminal for event in deaf._events._states))
        assert (len(deaf._newest), len(deaf._events._progress), len(deaf._events._states)) == (1, 0, 3)
    await previews.close()
    await feed.close()


class Looker:
    """A reader whose jobs change, as a drawing session's do."""

    def __init__(self, *job_ids):
        self.job_ids, self.seen = set(job_ids), []

    def offer_preview(self, preview):
        self.seen.append((preview.job_id, preview.n))


async def test_another_job_is_looked_at_at_once(source, monkeypatch):
    feed = PreviewFeed(source, poll_s=3600)
    feed.start()
    looker = Looker("a")
    with feed.show(looker):
        feed.look(["a"])
        while not any(wait_s for _, _, wait_s in source.asked):
            await asyncio.sleep(0)
        looker.job_ids = {"a", "b"}
        feed.look(["b"])  # the poll that is open, which would last an hour, does not know of it
        async with asyncio.timeout(5):
            while not any("b" in job_ids and wait_s for job_ids, _, wait_s in source.asked):
                await asyncio.sleep(0)
            source.show("b", 7)
            while ("b", 7) not in looker.seen:
                await asyncio.sleep(0)
    await feed.close()
    assert feed._asking == set()
