"""One attempt against a real store: success, failure, cancel, a lost lease and a store that goes away."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from deployments.jobs.config import RunnerConfig
from deployments.jobs.errors import MarkingFailed, NoFaceDetected, StoreUnavailable
from deployments.jobs.model import Claim, JobStatus, Progress, Stage
from deployments.jobs.ports import LocalMedia, NoMetrics, OutputFile, StoredObject
from deployments.jobs.runner import JobRunner
from deployments.jobs.threads import ThreadedEngine

TENANT = "default"
FAST = RunnerConfig(heartbeat_s=0.05, progress_s=0.01, store_retry_s=0.01)


class Inputs:
    async def materialise(self, tenant, reference, directory):
        return LocalMedia(Path("unused"), "image/png", "0" * 64, 1)


class Uploads:
    """Remembers what lies in the object store."""

    def __init__(self):
        self.objects = {}

    async def upload(self, _uploader, path, key, media_type):
        self.objects[key] = path.read_bytes()
        return StoredObject(key, f"local://{key}", path.stat().st_size, "0" * 64)

    async def delete(self, key):
        self.objects.pop(key, None)


class StepEngine:
    """Takes a step whenever the test lets it, and notes that it was closed."""

    def __init__(self, steps=2, error=None):
        self.steps, self.error = steps, error
        self.let_go, self.entered, self.closed = threading.Event(), threading.Event(), threading.Event()

    def references(self, spec):
        return {"source": spec["source"]}

    def run(self, task):
        try:
            for step in range(self.steps):
                self.entered.set()
                assert self.let_go.wait(10)
                yield Progress(Stage.COMPUTING, step / self.steps, frame=step, frames=self.steps)
            if self.error is not None:
                raise self.error
            path = task.work_dir / "result.png"
            path.write_bytes(b"png")
            yield OutputFile(path, "result.png", "image/png", 4, 2)
        finally:
            self.closed.set()


@pytest.fixture
def database_url(tmp_path):
    return f"sqlite:///{tmp_path / 'jobs.db'}"  # the runner does not care which database


@pytest.fixture
def uploads():
    return Uploads()


@pytest.fixture
def build(store, uploads, tmp_path):
    executor = ThreadPoolExecutor(2)
    (tmp_path / "work").mkdir()

    def make(engine, store=store):
        return JobRunner(
            store=store, previews=store, inputs=Inputs(), uploader=uploads, upload_file=uploads.upload, engine=ThreadedEngine(engine, executor),
            work_folder=SimpleNamespace(path=tmp_path / "work"), config=FAST, metrics=NoMetrics(),
        )  # fmt: skip

    yield make
    executor.shutdown()


@pytest.fixture
async def job(store, new_job):
    await store.create(new_job(spec={"kind": "faceswap", "source": {"file_id": "x"}}))
    return await store.claim(Claim("c1", "faceswap", "replica-1", wait_s=0))


def nothing() -> None:
    pass


async def test_run_job_ends_succeeded_with_its_output(store, build, job, uploads, tmp_path):
    engine = StepEngine()
    engine.let_go.set()
    computed = []
    await build(engine).run(job, lambda: computed.append(dict(uploads.objects)))
    done = await store.get(TENANT, job.id)
    assert done.status is JobStatus.SUCCEEDED
    assert list(uploads.objects) == [f"artifacts/default/{job.id}/1/result.png"]
    assert [(o.width, o.height, o.size_bytes) for o in done.outputs] == [(4, 2, 3)]
    assert computed == [{}]  # the slot was free before the upload began
    assert list(done.timings) == ["fetching", "computing", "uploading"]
    assert list((tmp_path / "work").iterdir()) == []


async def test_run_job_marks_failed_when_no_face(store, build, job):
    engine = StepEngine(error=NoFaceDetected("source"))
    engine.let_go.set()
    await build(engine).run(job, nothing)
    failed = await store.get(TENANT, job.id)
    assert (failed.status, failed.error.code) == (JobStatus.FAILED, "no_face_detected")


async def test_run_job_hides_what_an_engine_broke_on_and_tries_again(store, build, job):
    engine = StepEngine(error=ZeroDivisionError("secret path /etc"))
    engine.let_go.set()
    await build(engine).run(job, nothing)
    queued = await store.get(TENANT, job.id)
    assert (queued.status, queued.attempts[0].outcome) == (JobStatus.QUEUED, "engine_failed")
    assert "secret" not in queued.attempts[0].message


async def test_run_job_stops_between_steps_when_cancelled(store, build, job, uploads):
    engine = StepEngine(steps=1000)
    run = asyncio.create_task(build(engine).run(job, nothing))
    await asyncio.to_thread(engine.entered.wait, 10)
    await store.cancel(TENANT, job.id)
    engine.let_go.set()
    await asyncio.wait_for(run, 10)
    assert (await store.get(TENANT, job.id)).status is JobStatus.CANCELLED
    assert engine.closed.is_set()
    assert uploads.objects == {}


async def test_a_runner_tells_how_long_a_stopped_engine_stays_away(store, build, job):
    engine = StepEngine()
    runner = build(engine)
    run = asyncio.create_task(runner.run(job, nothing))
    await asyncio.to_thread(engine.entered.wait, 10)
    assert runner.stopping_s() == 0
    run.cancel()
    while runner.stopping_s() == 0:
        await asyncio.sleep(0)
    assert not run.done()
    engine.let_go.set()
    await asyncio.wait({run})
    assert runner.stopping_s() == 0


async def test_run_job_stops_and_writes_nothing_when_its_lease_is_lost(store, build, job, clock, uploads):
    engine = StepEngine(steps=1000)
    run = asyncio.create_task(build(engine).run(job, nothing))
    await asyncio.to_thread(engine.entered.wait, 10)
    clock.advance(3600)
    await store.sweep()
    engine.let_go.set()
    await asyncio.wait_for(run, 10)
    assert (await store.get(TENANT, job.id)).status is not JobStatus.SUCCEEDED
    assert uploads.objects == {}


async def test_run_job_hands_the_job_back_when_its_replica_goes(store, build, job):
    engine = StepEngine(steps=1000)
    run = asyncio.create_task(build(engine).run(job, nothing))
    await asyncio.to_thread(engine.entered.wait, 10)
    run.cancel()
    engine.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(run, 10)
    back = await store.get(TENANT, job.id)
    assert (back.status, back.attempts[0].outcome) == (JobStatus.QUEUED, "released")


class AwayStore:
    """A store whose every call fails a number of times first."""

    def __init__(self, store, failures):
        self._store, self.failures = store, failures

    def __getattr__(self, name):
        async def call(*args):
            if self.failures > 0:
                self.failures -= 1
                raise StoreUnavailable("restarting")
            return await getattr(self._store, name)(*args)

        return call


async def test_run_job_goes_on_computing_while_the_store_is_away(store, build, job):
    engine = StepEngine()
    engine.let_go.set()
    away = AwayStore(store, failures=5)
    await asyncio.wait_for(build(engine, away).run(job, nothing), 10)
    assert away.failures == 0
    assert (await store.get(TENANT, job.id)).status is JobStatus.SUCCEEDED


async def test_run_job_removes_its_artifact_when_it_may_not_publish(store, build, job, uploads, clock):
    engine = StepEngine()
    runner = build(engine)
    upload = uploads.upload

    async def upload_then_lose(*args):
        stored = await upload(*args)
        await store.cancel(TENANT, job.id)
        return stored

    runner._upload_file = upload_then_lose
    runner._config = RunnerConfig(heartbeat_s=60, progress_s=60)
    engine.let_go.set()
    await runner.run(job, nothing)
    assert (await store.get(TENANT, job.id)).status is JobStatus.CANCELLED
    assert uploads.objects == {}


class Marks:
    """Writes into a file that it was marked, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def mark(self, job, file, inputs):
        if self.error:
            raise self.error
        file.path.write_bytes(file.path.read_bytes() + b" marked")
        return {"aigc": "a chunk"}


async def test_run_job_stores_a_result_as_it_is_after_marking(store, build, uploads, new_job):
    consent = {"who": "A. Example", "reference": "contract 1"}
    await store.create(new_job(spec={"kind": "faceswap", "source": {"file_id": "x"}, "consent": consent}))
    job = await store.claim(Claim("c1", "faceswap", "replica-1", wait_s=0))
    engine = StepEngine()
    engine.let_go.set()
    runner = build(engine)
    runner._marker = Marks()
    await runner.run(job, nothing)
    done = await store.get(TENANT, job.id)
    assert list(uploads.objects.values()) == [b"png marked"]
    assert done.outputs[0].size_bytes == len(b"png marked")
    assert done.attempts[0].facts == {"marks": {"result.png": {"aigc": "a chunk"}}, "consent": consent}


async def test_run_job_publishes_nothing_that_could_not_be_marked(store, build, job, uploads):
    engine = StepEngine()
    engine.let_go.set()
    runner = build(engine)
    runner._marker = Marks(MarkingFailed("result.png", "no PNG"))
    await runner.run(job, nothing)
    failed = await store.get(TENANT, job.id)
    assert (failed.status, failed.error.code, failed.outputs) == (JobStatus.FAILED, "marking_failed", ())
    assert uploads.objects == {}
