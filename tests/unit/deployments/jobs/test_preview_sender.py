"""Previews on their way: the newest only, one at a time, at a pace that follows whether anybody looks."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from deployments.jobs import preview_sender
from deployments.jobs.errors import StoreUnavailable
from deployments.jobs.model import Preview
from deployments.jobs.ports import PreviewPicture
from deployments.jobs.preview_board import PREVIEW_BYTES
from deployments.jobs.preview_sender import PreviewSender

NEVER_S = 3600.0  # longer than any test


class Store:
    """Takes previews when the test lets it, and says whether anybody looks."""

    def __init__(self):
        self.got, self.looked_at, self.away = [], True, 0
        self.open = asyncio.Event()
        self.open.set()
        self.under_way = self.most_under_way = 0

    async def put_preview(self, preview):
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.open.wait()
        finally:
            self.under_way -= 1
        if self.away:
            self.away -= 1
            raise StoreUnavailable("restarting")
        self.got.append(preview)
        return self.looked_at

    @property
    def pictures(self):
        return [preview.data for preview in self.got]


@pytest.fixture
def pace(monkeypatch):
    """Set the pauses after a picture that is looked at, and after one that is not."""

    def set_to(watched_s, unwatched_s):
        monkeypatch.setattr(preview_sender, "PERIOD_S", watched_s)
        monkeypatch.setattr(preview_sender, "UNWATCHED_PERIOD_S", unwatched_s)

    set_to(0.0, NEVER_S)
    return set_to


@pytest.fixture
def store(pace):
    return Store()


@pytest.fixture
async def sender(store):
    sender = PreviewSender(store, SimpleNamespace(id="job", attempt=3))
    yield sender
    await sender.close()


def picture(data):
    return PreviewPicture("image/jpeg", data, "7")


async def settled():
    """Let everything run that can run without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_picture_goes_out_under_its_job_and_attempt(sender, store):
    sender.offer(picture(b"a"))
    await settled()
    assert store.got == [Preview("job", 3, 0, "image/jpeg", b"a", "7")]


async def test_the_newest_wins_and_at_most_one_is_in_flight(sender, store):
    store.open.clear()
    sender.offer(picture(b"a"))
    await settled()
    for data in (b"b", b"c", b"d"):
        sender.offer(picture(data))
        await settled()
    assert store.under_way == 1
    store.open.set()
    await settled()
    assert (store.pictures, store.most_under_way) == ([b"a", b"d"], 1)


async def test_of_pictures_that_come_in_one_go_only_the_last_is_sent(sender, store):
    for data in (b"a", b"b", b"c"):
        sender.offer(picture(data))
    await settled()
    assert store.pictures == [b"c"]


async def test_while_somebody_looks_the_next_one_follows_after_the_period(sender, store):
    for data in (b"a", b"b"):
        sender.offer(picture(data))
        await settled()
    assert store.pictures == [b"a", b"b"]


async def test_the_period_is_kept(sender, store, pace):
    pace(NEVER_S, 0.0)
    for data in (b"a", b"b"):
        sender.offer(picture(data))
        await settled()
    assert store.pictures == [b"a"]


async def test_it_slows_down_when_nobody_looks(sender, store):
    store.looked_at = False
    for data in (b"a", b"b"):
        sender.offer(picture(data))
        await settled()
    assert store.pictures == [b"a"]


async def test_a_store_that_is_away_costs_the_picture_and_no_more(sender, store, pace):
    pace(NEVER_S, 0.0)  # one that is away is asked as rarely as one where nobody looks
    store.away = 1
    sender.offer(picture(b"lost"))
    await settled()
    assert store.pictures == []
    sender.offer(picture(b"a"))
    await settled()
    assert store.pictures == [b"a"]


async def test_close_drops_what_waits(sender, store, pace):
    pace(NEVER_S, NEVER_S)
    sender.offer(picture(b"a"))
    await settled()
    sender.offer(picture(b"waits"))
    await asyncio.wait_for(sender.close(), 5)
    await settled()
    assert (store.pictures, sender._task.done()) == ([b"a"], True)


async def test_close_gives_up_one_that_does_not_arrive(sender, store):
    store.open.clear()
    sender.offer(picture(b"a"))
    await settled()
    await asyncio.wait_for(sender.close(), 5)
    assert (store.under_way, store.got) == (0, [])


async def test_close_without_a_picture_is_nothing(sender):
    await sender.close()
    assert sender._task is None


async def test_one_that_the_store_would_drop_for_its_length_is_not_sent(sender, store):
    sender.offer(picture(bytes(PREVIEW_BYTES + 1)))
    await settled()
    assert store.got == []
    sender.offer(picture(bytes(PREVIEW_BYTES)))
    await settled()
    assert len(store.got) == 1
