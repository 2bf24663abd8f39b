"""Listing by page and by turn, cancelling many, and files by name, on every database."""

from __future__ import annotations

import uuid

import pytest

from deployments.jobs import store as store_module
from deployments.jobs.model import DEFAULT_TENANT, FileRecord, JobQuery, JobStatus

ALL = {"count": True, "limit": 10}


@pytest.fixture
def three(store, new_job):
    """Three waiting workflows; the second has priority."""

    async def create():
        jobs = [new_job(kind="comfyui", pool="comfyui", priority=priority) for priority in (0, 5, 0)]
        for job in jobs:
            await store.create(job)
        return [job.id for job in jobs]

    return create


def ids(page):
    return [job.id for job in page.jobs]


async def test_list_pages_by_number_and_counts_all_that_fit(store, three, new_job):
    first, second, third = await three()
    await store.create(new_job())
    page = await store.list_jobs(JobQuery(kind="comfyui", offset=1, limit=1, count=True))
    assert (ids(page), page.total) == ([second], 3)
    assert ids(await store.list_jobs(JobQuery(kind="comfyui", limit=10))) == [third, second, first]
    assert (await store.list_jobs(JobQuery(limit=10))).total is None


async def test_list_by_turn_goes_by_priority_and_age(store, three):
    first, second, third = await three()
    page = await store.list_jobs(JobQuery(kind="comfyui", by_turn=True, limit=2))
    assert (ids(page), page.next_cursor) == ([second, first], None)
    assert ids(await store.list_jobs(JobQuery(by_turn=True, offset=2))) == [third]


async def test_list_of_ended_jobs_has_every_way_to_end(store, three, claim):
    first, second, third = await three()
    await store.cancel(DEFAULT_TENANT, first)
    job = await store.claim(claim(pool="comfyui"))
    await store.finish(job.id, job.attempt, (), {})
    page = await store.list_jobs(JobQuery(ended=True, count=True))
    assert (ids(page), page.total) == ([second, first], 2)
    assert third not in ids(page)


@pytest.mark.parametrize("at_once", [1, 500])
async def test_cancel_all_empties_the_queue_of_one_kind_and_tenant(store, three, new_job, monkeypatch, at_once):
    monkeypatch.setattr(store_module, "CANCELLED_AT_ONCE", at_once)
    waiting = await three()
    spared = [new_job(), new_job(kind="comfyui", pool="comfyui", tenant="other")]
    for job in spared:
        await store.create(job)
    assert await store.cancel_all(DEFAULT_TENANT, "comfyui", JobStatus.QUEUED) == tuple(waiting)
    assert {(await store.get(DEFAULT_TENANT, job_id)).status for job_id in waiting} == {JobStatus.CANCELLED}
    assert (await store.get(DEFAULT_TENANT, spared[0].id)).status is JobStatus.QUEUED
    assert (await store.get("other", spared[1].id)).status is JobStatus.QUEUED
    assert [event.status for event in await store.history(DEFAULT_TENANT, waiting[0])] == [JobStatus.QUEUED, JobStatus.CANCELLED]
    assert await store.cancel_all(DEFAULT_TENANT, "comfyui", JobStatus.QUEUED) == ()


async def test_cancel_all_asks_running_jobs_to_stop_once(store, three, claim):
    _, second, _ = await three()
    job = await store.claim(claim(pool="comfyui"))
    assert await store.cancel_all(DEFAULT_TENANT, "comfyui", JobStatus.RUNNING) == (second,)
    assert (await store.get(DEFAULT_TENANT, second)).cancel_requested
    assert await store.cancel_all(DEFAULT_TENANT, "comfyui", JobStatus.RUNNING) == ()
    await store.acknowledge_cancel(job.id, job.attempt)
    assert (await store.get(DEFAULT_TENANT, second)).status is JobStatus.CANCELLED


def file(name, at=0.0, tenant=DEFAULT_TENANT, job_id=None):
    return FileRecord(str(uuid.uuid4()), tenant, "key", name, "image/png", 1, "00", at, job_id)


async def test_find_files_returns_the_newest_of_each_name(store):
    old, new, other, foreign = file("a.png"), file("a.png", 1.0), file("b.png"), file("c.png", tenant="other")
    for record in (new, old, other, foreign):
        await store.add_file(record)
    found = await store.find_files(DEFAULT_TENANT, ["a.png", "b.png", "c.png", "A.png"], uploads_first=True)
    assert found == {"a.png": new, "b.png": other}


@pytest.mark.parametrize("uploads_first", [True, False])
async def test_find_files_prefers_the_kind_that_is_meant(store, uploads_first):
    upload, output = file("a.png", 1.0), file("a.png", 2.0, job_id=str(uuid.uuid4()))
    for record in (upload, output):
        await store.add_file(record)
    assert await store.find_files(DEFAULT_TENANT, ["a.png"], uploads_first=uploads_first) == {"a.png": upload if uploads_first else output}


async def test_stats_count_attempts_beyond_the_first(store, three, claim):
    await three()
    for _ in range(2):
        job = await store.claim(claim(pool="comfyui"))
        await store.release(job.id, job.attempt)
    stats = await store.stats(DEFAULT_TENANT)
    assert (stats.attempts_total, stats.retries_total) == (2, 1)
