"""What is left of an attempt that does not simply succeed: its partial outputs, its facts, its error, and its engine closed."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from deployments.jobs.config import RunnerConfig
from deployments.jobs.errors import (
    BackendLost,
    BackendUnavailable,
    ComfyNodeFailed,
    FetchFailed,
    NodeProblem,
    NoFaceDetected,
    UploadFailed,
    WorkflowInvalid,
)
from deployments.jobs.model import Claim, JobStatus, Progress, Stage
from deployments.jobs.ports import LocalMedia, NoMetrics, OutputFile, PreviewPicture, RunFacts, StoredObject
from deployments.jobs.runner import JobRunner

TENANT = "default"
FAST = RunnerConfig(heartbeat_s=0.05, progress_s=0.001, store_retry_s=0.001)
SILENT = RunnerConfig(heartbeat_s=60, progress_s=60)  # hears of nothing before its end


class Inputs:
    """Hands out the paths that it was asked for; one role may be refused or hang."""

    def __init__(self):
        self.asked, self.given_up = [], []
        self.errors = {}

    async def materialise(self, tenant, reference, directory):
        self.asked.append(reference["url"])
        error = self.errors.get(reference["url"])
        if error is asyncio.Event:
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up.append(reference["url"])
        if error is not None:
            raise error
        return LocalMedia(directory / "in", "image/png", "0" * 64, 1)


class Uploads:
    """Remembers what lies in the object store; can fail at one name, or call something after each upload."""

    def __init__(self):
        self.objects, self.removed = {}, []
        self.fails_at = None
        self.after = None

    async def upload(self, _uploader, path, key, media_type):
        if path.name == self.fails_at:
            raise UploadFailed("the store is full")
        self.objects[key] = path.read_bytes()
        if self.after is not None:
            await self.after()
        return StoredObject(key, f"local://{key}", path.stat().st_size, "0" * 64)

    async def delete(self, key):
        self.removed.append(key)
        del self.objects[key]

    @property
    def names(self):
        return [key.rpartition("/")[2] for key in self.objects]


class ScriptedEngine:
    """Yields items, names standing for output files, and raises or waits at the end."""

    def __init__(self, *items, error=None, references=None):
        self.items, self.error = items, error
        self.roles = references or {}
        self.waits = False
        self.waiting, self.cleaned = asyncio.Event(), False
        self.inputs = None

    def references(self, spec):
        return self.roles

    async def run(self, task):
        self.inputs = dict(task.inputs)
        try:
            for item in self.items:
                yield output(task.work_dir, item) if isinstance(item, str) else item
            if self.error is not None:
                raise self.error
            if self.waits:
                self.waiting.set()
                await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # as an engine does that tells a server to stop
            await asyncio.to_thread(lambda: None)
            self.cleaned = True


def output(folder, name):
    path = folder / name
    path.write_bytes(name.encode())
    return OutputFile(path, name, "image/png", 4, 2, comfy_node="9", temporary=name.startswith("t"))


@pytest.fixture
def database_url(tmp_path):
    return f"sqlite:///{tmp_path / 'jobs.db'}"  # the runner does not care which database


@pytest.fixture
def uploads():
    return Uploads()


@pytest.fixture
def inputs():
    return Inputs()


@pytest.fixture
def build(store, uploads, inputs, tmp_path):
    (tmp_path / "work").mkdir()

    def make(engine, config=FAST):
        return JobRunner(
            store=store, previews=store, inputs=inputs, uploader=uploads, upload_file=uploads.upload, engine=engine,
            work_folder=SimpleNamespace(path=tmp_path / "work"), config=config, metrics=NoMetrics(),
        )  # fmt: skip

    return make


@pytest.fixture
async def job(store, new_job):
    await store.create(new_job(max_attempts=2))
    return await store.claim(Claim("c1", "faceswap", "replica-1", wait_s=0))


@pytest.fixture
def run(store, build, job):
    """Run the job's attempt and return the job after it."""

    async def running(engine, config=FAST):
        computed = []
        await asyncio.wait_for(build(engine, config).run(job, lambda: computed.append(True)), 10)
        return await store.get(TENANT, job.id)

    return running


async def test_outputs_before_a_failure_for_good_are_published_with_it(run, store, uploads):
    failed = await run(ScriptedEngine("a.png", "t.png", error=ComfyNodeFailed("3", "KSampler", "Sampler", "out of memory")))
    assert (failed.status, failed.error.code) == (JobStatus.FAILED, "comfy_node_failed")
    assert [(made.name, made.comfy_node, made.temporary) for made in failed.outputs] == [("a.png", "9", False), ("t.png", "9", True)]
    assert uploads.names == ["a.png", "t.png"]
    assert (await store.get_file(TENANT, failed.outputs[0].file_id)).job_id == failed.id
    assert list(failed.timings) == ["fetching", "computing", "uploading"]


async def test_outputs_before_an_error_that_may_pass_are_not_uploaded(run, uploads):
    queued = await run(ScriptedEngine("a.png", error=BackendLost("gone")))
    assert (queued.status, queued.attempts[0].outcome, queued.outputs) == (JobStatus.QUEUED, "backend_lost", ())
    assert (uploads.objects, uploads.removed) == ({}, [])


async def test_outputs_of_a_failure_are_removed_when_the_job_was_cancelled_meanwhile(run, store, uploads, job):
    async def cancel():
        await store.cancel(TENANT, job.id)

    uploads.after = cancel
    ended = await run(ScriptedEngine("a.png", "b.png", error=NoFaceDetected("source")), SILENT)
    assert (ended.status, ended.outputs) == (JobStatus.CANCELLED, ())
    assert (uploads.objects, len(uploads.removed)) == ({}, 2)


async def test_what_can_be_salvaged_is_when_a_later_output_cannot(run, uploads):
    uploads.fails_at = "b.png"
    failed = await run(ScriptedEngine("a.png", "b.png", "c.png", error=NoFaceDetected("source")))
    assert (failed.status, failed.error.code) == (JobStatus.FAILED, "no_face_detected")
    assert ([made.name for made in failed.outputs], uploads.names) == (["a.png", "c.png"], ["a.png", "c.png"])


async def test_an_upload_that_fails_leaves_nothing_behind(run, uploads):
    uploads.fails_at = "b.png"
    queued = await run(ScriptedEngine("a.png", "b.png"))
    assert (queued.status, queued.attempts[0].outcome) == (JobStatus.QUEUED, "upload_failed")
    assert (uploads.objects, len(uploads.removed)) == ({}, 1)


@pytest.mark.parametrize("draining", [False, True])
async def test_an_upload_that_is_stopped_leaves_nothing_behind(build, store, uploads, job, draining):
    stored = asyncio.Event()

    async def hang():
        if len(uploads.objects) == 2:
            uploads.objects.popitem()  # an upload that is cancelled is aborted: nothing appears under its key
            stored.set()
            await asyncio.Event().wait()

    uploads.after = hang
    running = asyncio.create_task(build(ScriptedEngine("a.png", "b.png")).run(job, lambda: None))
    await asyncio.wait_for(stored.wait(), 5)
    assert uploads.names == ["a.png"]
    await (store.cancel(TENANT, job.id) if not draining else asyncio.sleep(0))
    if draining:
        running.cancel()
    await asyncio.wait({running}, timeout=5)
    assert running.cancelled() == draining
    ended = await store.get(TENANT, job.id)
    assert ended.status is (JobStatus.QUEUED if draining else JobStatus.CANCELLED)
    assert uploads.objects == {}


async def test_the_slot_is_free_before_partial_outputs_are_uploaded(build, job, uploads):
    engine, seen = ScriptedEngine("a.png", error=NoFaceDetected("source")), []
    await build(engine).run(job, lambda: seen.append(dict(uploads.objects)))
    assert (seen, uploads.names) == ([{}], ["a.png"])


async def test_no_backend_hands_the_job_back_and_costs_no_try(run, store, job):
    back = await run(ScriptedEngine(RunFacts({"backend": "b"}), error=BackendUnavailable("none is free")))
    assert (back.status, back.attempts[0].outcome, back.not_before) == (JobStatus.QUEUED, "released", None)
    for number in (2, 3, 4):  # more often than it may fail
        again = await store.claim(Claim(f"c{number}", "faceswap", "replica-1", wait_s=0))
        assert again.attempt == number
        await store.release(again.id, again.attempt)


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (None, JobStatus.SUCCEEDED, "succeeded"),
        (NoFaceDetected("source"), JobStatus.FAILED, "no_face_detected"),
        (BackendLost("gone"), JobStatus.QUEUED, "backend_lost"),
        (ZeroDivisionError("by us"), JobStatus.QUEUED, "engine_failed"),
    ],
)
async def test_facts_end_in_the_attempts_record_the_newer_ones_over_the_older(run, error, status, outcome):
    items = RunFacts({"backend": "a", "prompt_id": "1"}), Progress(Stage.COMPUTING, 0.5), RunFacts({"prompt_id": "2"})
    ended = await run(ScriptedEngine(*items, error=error))
    assert (ended.status, ended.attempts[0].outcome) == (status, outcome)
    assert ended.attempts[0].facts == {"backend": "a", "prompt_id": "2"}


PROBLEMS = (
    NodeProblem("3", "Sampler", "steps", "value_bigger_than_max", "steps is 20000", 20000, {"min": 1, "max": 10000}),
    NodeProblem("9", "", "", "missing_node_type", "there is no such node"),
)


@pytest.mark.parametrize(
    ("error", "nodes"),
    [
        (WorkflowInvalid("refused", PROBLEMS), PROBLEMS),
        (
            ComfyNodeFailed("12.0", "KSampler", "Sampler", "out of memory"),
            [NodeProblem("12.0", "Sampler", "", "execution_error", "out of memory")],
        ),
    ],
)
async def test_an_error_names_its_nodes_for_programs(run, error, nodes):
    failed = await run(ScriptedEngine(error=error))
    assert (failed.error.message, failed.error.details) == (str(error), {"nodes": [asdict(node) for node in nodes]})


@pytest.mark.parametrize("error", [WorkflowInvalid("it holds no node"), NoFaceDetected("source")])
async def test_an_error_without_nodes_has_no_details(run, error):
    assert (await run(ScriptedEngine(error=error))).error.details is None


@pytest.mark.parametrize("draining", [False, True])
async def test_an_engine_that_is_stopped_is_closed_and_may_await_in_its_end(build, store, job, uploads, draining):
    engine = ScriptedEngine("a.png")
    engine.waits = True
    running = asyncio.create_task(build(engine).run(job, lambda: None))
    await asyncio.wait_for(engine.waiting.wait(), 5)
    if draining:
        running.cancel()
    else:
        await store.cancel(TENANT, job.id)
    await asyncio.wait({running}, timeout=5)
    ended = await store.get(TENANT, job.id)
    assert (engine.cleaned, running.cancelled(), uploads.objects) == (True, draining, {})
    assert ended.status is (JobStatus.QUEUED if draining else JobStatus.CANCELLED)


async def test_an_engine_that_raises_while_it_is_stopped_does_not_keep_the_job(build, store, job):
    engine = ScriptedEngine()
    engine.waits = True
    runner = build(engine)
    run = engine.run

    async def fails_to_stop(task):
        try:
            async for item in run(task):
                yield item
        finally:
            raise BackendLost("it does not answer")

    engine.run = fails_to_stop
    running = asyncio.create_task(runner.run(job, lambda: None))
    await asyncio.wait_for(engine.waiting.wait(), 5)
    await store.cancel(TENANT, job.id)
    await asyncio.wait_for(running, 5)
    assert (await store.get(TENANT, job.id)).status is JobStatus.CANCELLED


async def test_a_job_without_media_fetches_nothing(run, inputs):
    engine = ScriptedEngine("a.png")
    assert (await run(engine)).status is JobStatus.SUCCEEDED
    assert (engine.inputs, inputs.asked) == ({}, [])


async def test_media_are_fetched_by_role_and_given_up_when_one_fails(run, inputs):
    engine = ScriptedEngine("a.png", references={"1.image": {"url": "slow"}, "2.image": {"url": "gone"}})
    inputs.errors = {"slow": asyncio.Event, "gone": FetchFailed("404")}
    queued = await run(engine)
    assert (queued.status, queued.attempts[0].outcome) == (JobStatus.QUEUED, "fetch_failed")
    assert (sorted(inputs.asked), inputs.given_up, engine.inputs) == (["gone", "slow"], ["slow"], None)


async def test_previews_go_to_whoever_looks(build, store, job):
    engine = ScriptedEngine(PreviewPicture("image/jpeg", b"latent", "3"))
    engine.waits = True
    looking = asyncio.create_task(store.previews([job.id], 0, 5.0))
    await asyncio.sleep(0)
    running = asyncio.create_task(build(engine).run(job, lambda: None))
    (preview,) = await asyncio.wait_for(looking, 5)
    assert (preview.job_id, preview.attempt, preview.media_type, preview.data, preview.comfy_node) == (
        job.id,
        1,
        "image/jpeg",
        b"latent",
        "3",
    )
    running.cancel()
    await asyncio.wait({running}, timeout=5)
