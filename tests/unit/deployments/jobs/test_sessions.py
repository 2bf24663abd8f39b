"""Of the requests of a session only the newest counts: the store's rules, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from deployments.jobs.config import StoreConfig
from deployments.jobs.errors import FileNotFound, JobNotFound, QueueFull, SessionNotFound, SessionsFull
from deployments.jobs.model import Artifact, FileRecord, JobError, JobStatus, Progress, Stage, Verdict
from deployments.jobs.sessions import Strokes
from deployments.jobs.store import SqlJobStore

TENANT = "default"


@pytest.fixture
def put(store, new_job, clock):
    """Send a sketch of a session, as an ingress does."""

    async def send(key="s1", *, seq=None, interrupt_after_s=None, **changes):
        file = record(clock)
        spec = {"kind": "sketch", "file_id": file.id}
        new = new_job(kind="sketch", coalesce_key=key, coalesce_seq=seq, spec=spec, fingerprint=file.id, **changes)
        return await store.create_latest(new, file, interrupt_after_s)

    return send


def record(clock):
    number = str(uuid.uuid4())
    return FileRecord(number, TENANT, f"sketches/{number}", f"{number}.png", "image/png", 1, "0" * 64, clock.time())


def picture(name="result.png"):
    key = f"artifacts/{uuid.uuid4()}"
    return Artifact(str(uuid.uuid4()), name, "image/png", f"local://{key}", 3, "0" * 64)


async def test_a_newer_sketch_takes_the_place_of_the_waiting_one(store, put, claim):
    first = await put()
    second = await put()
    assert (first.seq, second.seq) == (1, 2)
    assert second.job.id == first.job.id
    assert (first.replaced, second.replaced) == (False, True)
    assert second.dropped == (f"sketches/{first.job.spec['file_id']}",)
    with pytest.raises(FileNotFound):
        await store.get_file(TENANT, first.job.spec["file_id"])
    claimed = await store.claim(claim())
    assert claimed.spec == second.job.spec
    assert claimed.coalesce_seq == 2
    assert (await store.get_file(TENANT, claimed.spec["file_id"])).job_id == claimed.id


async def test_one_runs_and_one_waits(store, put, claim):
    await put()
    running = await store.claim(claim())
    waiting = [await put() for _ in range(5)][-1]
    assert {latest.id for latest in (await store.session(TENANT, "s1")).pending} == {running.id, waiting.job.id}
    assert await store.claim(claim()) is None, "a second job of the session may not run beside the first"
    assert (await store.depth("faceswap")).queued == 0, "the autoscaler need not start a replica for it"
    assert await store.finish(running.id, 1, [picture()], {}) is Verdict.OK
    assert (await store.claim(claim())).id == waiting.job.id


async def test_the_next_one_need_not_wait_for_the_upload_of_the_one_before(store, put, claim):
    await put()
    running = await store.claim(claim())
    await put()
    assert (await store.claim(claim(computed=frozenset({running.id})))).coalesce_seq == 2


async def test_a_claim_that_waits_hears_of_the_end_of_the_one_before(store, put, claim):
    await put()
    running = await store.claim(claim())
    await put()
    waiting = asyncio.create_task(store.claim(claim(wait_s=30)))
    await asyncio.sleep(0)
    await store.finish(running.id, 1, [picture()], {})
    async with asyncio.timeout(10):
        assert (await waiting).coalesce_seq == 2


async def test_sessions_take_turns(store, put, claim):
    for key in ("a", "b", "c"):
        await put(key)
    order = []
    for _ in range(9):
        job = await store.claim(claim())
        order.append(job.coalesce_key)
        for _ in range(3):
            await put(job.coalesce_key)  # whoever draws fastest has no larger share
        await store.finish(job.id, 1, [picture()], {})
    assert order == ["a", "b", "c"] * 3


async def test_an_older_number_changes_nothing(store, put):
    await put(seq=7)
    late = await put(seq=7)
    assert (late.job, late.seq) == (None, 7)
    assert (await put(seq=3)).job is None
    assert (await put()).seq == 8


async def test_the_same_call_again_is_the_same_sketch(store, new_job, clock):
    file, new = record(clock), new_job(coalesce_key="s1", fingerprint="once")
    first = await store.create_latest(new, file, None)
    again = await store.create_latest(new, file, None)
    assert (again.job, again.seq, again.dropped) == (first.job, 1, ())


async def test_a_running_one_is_interrupted_when_it_is_old_but_never_two_in_a_row(store, put, claim, clock):
    await put()
    running = await store.claim(claim())
    clock.advance(0.5)
    await put(interrupt_after_s=1)
    assert await store.heartbeat(running.id, 1, None) is Verdict.OK, "too young"
    clock.advance(0.6)
    await put(interrupt_after_s=1)
    assert await store.heartbeat(running.id, 1, None) is Verdict.CANCELLED
    await store.acknowledge_cancel(running.id, 1)
    second = await store.claim(claim())
    clock.advance(5)
    await put(interrupt_after_s=1)
    assert await store.heartbeat(second.id, 1, None) is Verdict.OK


@pytest.mark.parametrize("ending", ["release", "fail", "lose"])
async def test_an_attempt_that_would_be_repeated_is_not_when_a_newer_one_waits(store, put, claim, clock, ending):
    await put()
    running = await store.claim(claim())
    await store.heartbeat(running.id, 1, Progress(Stage.COMPUTING, 0.5))
    newer = await put()
    if ending == "release":
        await store.release(running.id, 1)
    elif ending == "fail":
        await store.fail(running.id, 1, JobError("fetch_failed", "gone", retryable=True), {})
    else:
        clock.advance(16)
        await store.sweep()
    assert (await store.get(TENANT, running.id)).status is JobStatus.CANCELLED
    assert (await store.claim(claim())).id == newer.job.id


async def test_a_retry_that_waits_gives_way_to_a_newer_one(store, put, claim):
    await put()
    running = await store.claim(claim())
    await store.fail(running.id, 1, JobError("fetch_failed", "gone", retryable=True), {})
    newer = await put()
    assert newer.replaced
    assert newer.job.id != running.id, "the history of another sketch is none of this one's"
    assert (await store.get(TENANT, running.id)).status is JobStatus.CANCELLED
    assert (await store.claim(claim())).id == newer.job.id


async def test_events_name_their_session(store, put, claim):
    start = (await store.events(None, 0)).last_id
    await put()
    job = await store.claim(claim())
    await store.heartbeat(job.id, 1, Progress(Stage.COMPUTING, 0.5))
    events = (await store.events(start, 0)).events
    assert [(e.coalesce_key, e.coalesce_seq) for e in events] == [("s1", 1)] * 3


async def test_a_session_is_what_its_jobs_tell(store, put, claim):
    with pytest.raises(SessionNotFound):
        await store.session(TENANT, "s1")
    await put()
    with pytest.raises(SessionNotFound):
        await store.session("somebody else", "s1")
    state = await store.session(TENANT, "s1")
    assert (state.newest_seq, state.result, len(state.pending)) == (1, None, 1)
    job = await store.claim(claim())
    await store.finish(job.id, 1, [picture()], {})
    await put()
    state = await store.session(TENANT, "s1")
    assert (state.newest_seq, state.result.id, state.newest.status) == (2, job.id, JobStatus.QUEUED)


async def test_rows_go_after_minutes_and_the_last_result_later(store, put, claim, clock):
    jobs = []
    for _ in range(3):
        await put()
        jobs.append(await store.claim(claim()))
        await store.finish(jobs[-1].id, 1, [picture()], {})
    await put()
    clock.advance(100)
    now = clock.time()
    assert (await store.expired_jobs(now - 200, now - 200, 10)).job_ids == ()
    expired = await store.expired_jobs(now, now - 200, 10)
    assert expired.job_ids == (jobs[0].id, jobs[1].id)
    assert len(expired.keys) == 4, "a sketch and a picture each"
    await store.forget_jobs([*expired.job_ids, (await store.session(TENANT, "s1")).newest.id])
    with pytest.raises(JobNotFound):
        await store.get(TENANT, jobs[0].id)
    state = await store.session(TENANT, "s1")
    assert (state.result.id, len(state.pending)) == (jobs[2].id, 1), "what has not ended is not forgotten"
    assert (await store.expired_jobs(now, now, 10)).job_ids == (jobs[2].id,)


@pytest.fixture
async def small(clock, tmp_path):
    """A store that admits two sessions and one waiting job."""
    url = f"sqlite:///{tmp_path / 'small.db'}"
    store = SqlJobStore(StoreConfig(database_url=url, sessions=2, max_queued=1, janitor_period_s=3600), clock)
    await store.start()
    yield store
    await store.close()


async def test_no_more_sessions_than_are_admitted(small, new_job, clock):
    async def enter(key, pool):
        await small.create_latest(new_job(coalesce_key=key, fingerprint=str(uuid.uuid4()), pool=pool), record(clock), None)

    await enter("a", "one")
    await enter("b", "two")
    for key, place in (("c", 1), ("d", 2), ("c", 1)):
        with pytest.raises(SessionsFull, match=f"number {place} in line") as caught:
            await enter(key, "three")
        assert caught.value.place == place
    clock.advance(25)
    await enter("a", "one")
    with pytest.raises(SessionsFull, match="number 1 in line"):
        await enter("d", "three")  # c has not asked for so long that it lost its place
    clock.advance(6)  # b has not drawn for half a minute
    await enter("d", "three")
    with pytest.raises(SessionsFull):
        await enter("b", "two")


async def test_a_full_pool_refuses_a_session_too(small, new_job, clock):
    await small.create_latest(new_job(coalesce_key="a", fingerprint="1"), record(clock), None)
    with pytest.raises(QueueFull):
        await small.create_latest(new_job(coalesce_key="b", fingerprint="2"), record(clock), None)
    newer = await small.create_latest(new_job(coalesce_key="a", fingerprint="3"), record(clock), None)
    assert newer.replaced, "it makes no new row"


async def test_figures_add_up_over_replicas(store):
    await store.report_strokes(Strokes(received=3, dropped=1, to_preview_s=(0.1,), to_result_s=(0.5, 0.7)))
    await store.report_strokes(Strokes(received=2, skipped=1, refused=1))
    drawing = (await store.stats(TENANT)).drawing
    assert (drawing.received, drawing.dropped, drawing.skipped, drawing.refused) == (5, 1, 1, 1)
    assert (drawing.to_preview_p50_s, drawing.to_result_p50_s) == (0.1, pytest.approx(0.6))
