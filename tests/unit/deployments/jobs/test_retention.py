"""What is old goes, whole; what a job still needs stays."""

from __future__ import annotations

import hashlib
import uuid

import pytest

from deployments.jobs.errors import FileNotFound, JobNotFound, Unavailable
from deployments.jobs.model import Artifact, FileRecord, Stage
from deployments.jobs.retention import Janitor, RetentionConfig
from deployments.storage.local import LocalStore

DAY = 86_400.0
T = "default"


@pytest.fixture
def objects(tmp_path):
    return LocalStore(tmp_path / "store")


@pytest.fixture
def stored(objects):
    async def put(key, data=b"x" * 10):
        await objects.put(key, "image/png", data, hashlib.sha256(data).hexdigest())
        return key

    return put


@pytest.fixture
def upload(store, stored, clock):
    async def make(age_s=0.0):
        file_id = str(uuid.uuid4())
        key = await stored(f"uploads/{T}/{file_id}")
        return await store.add_file(FileRecord(file_id, T, key, "a.png", "image/png", 10, "0" * 64, clock.now - age_s))

    return make


@pytest.fixture
def ended(store, new_job, claim, stored):
    async def make(**changes):
        job, _ = await store.create(new_job(**changes))
        taken = await store.claim(claim())
        key = await stored(f"artifacts/{T}/{job.id}/1/r.png")
        artifact = Artifact(str(uuid.uuid4()), "r.png", "image/png", f"local://{key}", 10, "0" * 64)
        await store.finish(taken.id, taken.attempt, (artifact,), {Stage.COMPUTING.value: 1.0}, {})
        return await store.get(T, job.id)

    return make


@pytest.fixture
def sweep(store, objects, clock, monkeypatch):
    monkeypatch.setattr("deployments.jobs.retention.time.time", clock.time)

    async def run(uploader=objects, **config):
        await Janitor(store, uploader, RetentionConfig(**config)).sweep()

    return run


async def left(objects, key):
    try:
        return await objects.size(key)
    except FileNotFound:
        return None


async def test_an_old_job_goes_with_its_results(store, objects, ended, sweep, clock):
    old = await ended(labels={"a": "b"})
    clock.advance(2 * DAY)
    young = await ended()
    await sweep(jobs_s=DAY)
    with pytest.raises(JobNotFound):
        await store.get(T, old.id)
    with pytest.raises(FileNotFound):
        await store.get_file(T, old.outputs[0].file_id)
    assert await left(objects, old.outputs[0].key) is None
    assert await store.get(T, young.id) == young
    assert await left(objects, young.outputs[0].key) == 10
    assert await store.left_over(10) == ()


async def test_nothing_goes_where_nothing_is_said(store, ended, upload, sweep, clock):
    job, file = await ended(), await upload()
    clock.advance(1000 * DAY)
    await sweep()
    assert await store.get(T, job.id) == job
    assert await store.get_file(T, file.id) == file


async def test_jobs_that_have_not_ended_stay(store, new_job, claim, sweep, clock):
    waiting, _ = await store.create(new_job())
    running, _ = await store.create(new_job(priority=9))
    assert (await store.claim(claim())).id == running.id
    clock.advance(1000 * DAY)
    await sweep(jobs_s=DAY)
    assert (await store.get(T, waiting.id)).id == waiting.id
    assert (await store.get(T, running.id)).id == running.id


async def test_an_upload_goes_when_no_job_needs_it_any_more(store, objects, new_job, upload, sweep, clock):
    needed, other, young = await upload(2 * DAY), await upload(2 * DAY), await upload()
    job, _ = await store.create(new_job(spec={"kind": "faceswap", "target": {"file_id": needed.id}}))
    await sweep(uploads_s=DAY)
    assert [await left(objects, file.key) for file in (needed, other, young)] == [10, None, 10]
    assert await store.get_file(T, needed.id) == needed
    await store.cancel(T, job.id)
    await sweep(uploads_s=DAY)
    assert await left(objects, needed.key) is None


async def test_a_result_that_another_job_reads_keeps_its_job(store, objects, new_job, ended, sweep, clock):
    first = await ended()
    clock.advance(2 * DAY)
    second, _ = await store.create(new_job(spec={"source": {"file_id": first.outputs[0].file_id}}))
    await sweep(jobs_s=DAY)
    assert await store.get(T, first.id) == first
    await store.cancel(T, second.id)
    await sweep(jobs_s=DAY)
    with pytest.raises(JobNotFound):
        await store.get(T, first.id)


async def test_jobs_of_drawing_sessions_have_their_own_rules(store, new_job, sweep, clock):
    job = new_job(coalesce_key="someone")
    await store.create_latest(job, FileRecord(str(uuid.uuid4()), T, "k", "s.png", "image/png", 1, "0" * 64, clock.now, job.id), None)
    await store.cancel(T, job.id)
    clock.advance(10 * DAY)
    await sweep(jobs_s=DAY)
    assert (await store.get(T, job.id)).id == job.id


class Away:
    """An object store that is away after some deletes."""

    def __init__(self, objects, deletes):
        self.objects, self.deletes = objects, deletes

    async def delete(self, key):
        if self.deletes == 0:
            raise Unavailable("the store is away")
        self.deletes -= 1
        await self.objects.delete(key)


async def test_what_could_not_be_deleted_is_deleted_later(store, objects, ended, sweep, clock):
    jobs = [await ended() for _ in range(3)]
    clock.advance(2 * DAY)
    with pytest.raises(ExceptionGroup):
        await sweep(Away(objects, 1), jobs_s=DAY)
    assert len(await store.left_over(10)) == 3
    await sweep()
    assert [await left(objects, job.outputs[0].key) for job in jobs] == [None] * 3
    assert await store.left_over(10) == ()


async def test_more_than_one_transaction_takes(store, ended, sweep, clock, monkeypatch):
    monkeypatch.setattr("deployments.jobs.retention.A_SWEEP", 2)
    for _ in range(5):
        await ended()
    clock.advance(2 * DAY)
    await sweep(jobs_s=DAY)
    assert sum((await store.stats(T)).by_status.values()) == 0


async def test_the_store_that_was_away_does_not_end_the_janitor(store, objects, ended, clock, monkeypatch):
    monkeypatch.setattr("deployments.jobs.retention.time.time", clock.time)
    job = await ended()
    clock.advance(2 * DAY)
    uploader = Away(objects, 0)
    janitor = Janitor(store, uploader, RetentionConfig(jobs_s=DAY, sweep_s=0.01))
    janitor.start()
    try:
        while not await store.left_over(1):
            pass
        uploader.deletes = 9
        while await store.left_over(1):
            pass
    finally:
        await janitor.close()
    assert await left(objects, job.outputs[0].key) is None
