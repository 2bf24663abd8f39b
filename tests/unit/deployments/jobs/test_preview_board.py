"""Previews: only for those who look, only of what runs, only the newest."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from deployments.jobs.model import JobError, Preview
from deployments.jobs.preview_board import NUMBERS_PER_EPOCH, PREVIEW_BYTES
from deployments.jobs.store import SqlJobStore


def preview(job, data=b"jpeg", **changes) -> Preview:
    return Preview(**({"job_id": job.id, "attempt": job.attempt, "n": 0, "media_type": "image/jpeg", "data": data} | changes))


@pytest.fixture
def database_url(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.db'}"  # previews never reach the database, so one is enough


@pytest.fixture
async def job(store, new_job, claim):
    await store.create(new_job())
    return await store.claim(claim())


async def test_a_preview_that_nobody_looks_at_is_dropped(store, job):
    assert not await store.put_preview(preview(job))
    assert await store.previews([job.id], 0, 0) == ()


async def test_previews_waits_for_the_next_picture(store, job):
    waiting = asyncio.create_task(store.previews([job.id], 0, 600))
    await asyncio.sleep(0)
    assert await store.put_preview(preview(job, comfy_node="3"))
    (shown,) = await asyncio.wait_for(waiting, 10)
    assert shown == preview(job, comfy_node="3", n=shown.n)


async def test_only_the_newest_is_kept_and_shown_once(store, job):
    await store.previews([job.id], 0, 0)
    for data in (b"1", b"2", b"3"):
        assert await store.put_preview(preview(job, data))
    (newest,) = await store.previews([job.id, job.id], 0, 0)
    assert newest.data == b"3"
    assert await store.previews([job.id], newest.n, 0) == ()


async def test_a_reader_sleeps_through_the_pictures_of_others(store, job, new_job, claim):
    await store.create(new_job())
    other = await store.claim(claim())
    await store.previews([other.id], 0, 0)
    waiting = asyncio.create_task(store.previews([job.id], 0, 600))
    await asyncio.sleep(0)
    await store.put_preview(preview(other))
    await store.put_preview(preview(job))
    shown = await asyncio.wait_for(waiting, 10)
    assert [p.job_id for p in shown] == [job.id]
    assert {p.job_id for p in await store.previews([job.id, other.id], 0, 0)} == {job.id, other.id}


async def test_a_look_lasts_until_the_reader_must_have_come_again(store, job, clock):
    reading = asyncio.create_task(store.previews([job.id], 0, 10))
    await asyncio.sleep(0)
    clock.advance(100)  # of a wait that goes on
    assert await store.put_preview(preview(job))
    await asyncio.wait_for(reading, 10)
    clock.advance(14.9)
    assert await store.put_preview(preview(job))
    clock.advance(0.2)
    assert not await store.put_preview(preview(job))


async def test_a_reader_that_goes_away_is_forgotten(store, job, clock):
    reading = asyncio.create_task(store.previews([job.id], 0, 10))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait({reading})
    clock.advance(15.1)
    assert not await store.put_preview(preview(job))


@pytest.mark.parametrize("end", ["finish", "fail", "release", "lose"])
async def test_the_picture_goes_with_its_attempt(store, job, clock, end):
    await store.previews([job.id], 0, 0)
    assert await store.put_preview(preview(job))
    if end == "finish":
        await store.finish(job.id, 1, [], {})
    elif end == "fail":
        await store.fail(job.id, 1, JobError("engine_failed", "broke"), {})
    elif end == "release":
        await store.release(job.id, 1)
    else:
        clock.advance(16)
        await store.sweep()
    assert await store.previews([job.id], 0, 0) == ()
    assert store._board.previews._newest == {}
    assert not await store.put_preview(preview(job))


async def test_a_late_picture_of_an_ended_attempt_is_dropped(store, job, claim):
    await store.release(job.id, 1)
    again = await store.claim(claim(owner="replica-2"))
    await store.previews([job.id], 0, 0)
    assert not await store.put_preview(preview(job))
    assert await store.put_preview(preview(again))
    assert [p.attempt for p in await store.previews([job.id], 0, 0)] == [2]


async def test_a_picture_over_the_limit_is_dropped_though_somebody_looks(store, job):
    await store.previews([job.id], 0, 0)
    assert await store.put_preview(preview(job, bytes(PREVIEW_BYTES)))
    (shown,) = await store.previews([job.id], 0, 0)
    assert await store.put_preview(preview(job, bytes(PREVIEW_BYTES + 1)))
    assert await store.previews([job.id], shown.n, 0) == ()


async def test_the_numbers_rise_across_restarts(store, store_config, clock, job):
    await store.previews([job.id], 0, 0)
    await store.put_preview(preview(job))
    (before,) = await store.previews([job.id], 0, 0)
    await store.close()
    second = SqlJobStore(store_config, clock)
    await second.start()
    await second.previews([job.id], before.n, 0)
    await second.put_preview(preview(job))
    (after,) = await second.previews([job.id], before.n, 0)
    assert after == replace(before, n=before.n + NUMBERS_PER_EPOCH)
    await second.close()
