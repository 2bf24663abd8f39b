"""The job store's rules, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
import uuid

import pytest
import sqlalchemy as sa

from deployments.jobs.config import StoreConfig
from deployments.jobs.database import Database
from deployments.jobs.errors import (
    FileNotFound,
    IdempotencyConflict,
    InvalidInput,
    JobExists,
    JobNotFound,
    JobNotTerminal,
    QueueFull,
    StoreSuperseded,
    StoreUnavailable,
)
from deployments.jobs.events import EventId, EventType
from deployments.jobs.model import Artifact, FileRecord, JobError, JobQuery, JobStatus, Progress, ScalingDecision, Stage, Verdict
from deployments.jobs.store import SqlJobStore

TENANT = "default"
FLAKY = JobError("fetch_failed", "the server hung up", retryable=True)


def artifact(**changes):
    values = {
        "file_id": str(uuid.uuid4()),
        "name": "result.png",
        "media_type": "image/png",
        "uri": "local://a/b.png",
        "size_bytes": 3,
        "sha256": "0" * 64,
    }
    return Artifact(**(values | changes))


async def test_create_is_idempotent_by_id(store, new_job):
    new = new_job()
    first, created = await store.create(new)
    again, created_again = await store.create(new)
    assert (created, created_again) == (True, False)
    assert first == again
    assert first.status is JobStatus.QUEUED


async def test_create_refuses_the_id_of_another_payload(store, new_job):
    new = new_job()
    await store.create(new)
    with pytest.raises(JobExists):
        await store.create(new_job(id=new.id, fingerprint="other"))


async def test_create_refuses_an_id_of_another_tenant(store, new_job):
    new = new_job()
    await store.create(new)
    with pytest.raises(JobExists):
        await store.create(new_job(id=new.id, tenant="other"))


async def test_create_finds_the_job_of_an_idempotency_key(store, new_job):
    first, _ = await store.create(new_job(idempotency_key="k"))
    again, created = await store.create(new_job(idempotency_key="k"))
    elsewhere, created_elsewhere = await store.create(new_job(idempotency_key="k", tenant="other"))
    assert (again.id, created) == (first.id, False)
    assert created_elsewhere
    assert elsewhere.id != first.id


async def test_create_refuses_an_idempotency_key_with_another_payload(store, new_job):
    await store.create(new_job(idempotency_key="k"))
    with pytest.raises(IdempotencyConflict):
        await store.create(new_job(idempotency_key="k", fingerprint="other"))


async def test_create_refuses_when_the_queue_is_full(database_url, clock, new_job):
    store = SqlJobStore(StoreConfig(database_url=database_url, max_queued=2), clock)
    await store.start()
    await store.create(new_job())
    await store.create(new_job())
    with pytest.raises(QueueFull) as caught:
        await store.create(new_job())
    await store.close()
    assert caught.value.limit == 2


async def test_get_hides_another_tenants_job(store, new_job):
    job, _ = await store.create(new_job())
    with pytest.raises(JobNotFound):
        await store.get("other", job.id)


async def test_list_pages_newest_first_and_filters(store, new_job):
    made = [(await store.create(new_job(labels={"n": str(n % 2)})))[0] for n in range(5)]
    first = await store.list_jobs(JobQuery(limit=3))
    second = await store.list_jobs(JobQuery(limit=3, cursor=first.next_cursor))
    odd = await store.list_jobs(JobQuery(label=("n", "1")))
    none = await store.list_jobs(JobQuery(status=JobStatus.FAILED))
    newest_first = [job.id for job in reversed(made)]
    assert [job.id for job in first.jobs + second.jobs] == newest_first
    assert second.next_cursor is None
    assert [job.id for job in odd.jobs] == [made[3].id, made[1].id]
    assert none.jobs == ()


async def test_list_refuses_a_foreign_cursor(store):
    with pytest.raises(InvalidInput):
        await store.list_jobs(JobQuery(cursor="not ours"))


async def test_claim_takes_priority_then_age(store, new_job, claim):
    ids = {}
    for priority in (0, 5, 0, 5):
        job, _ = await store.create(new_job(priority=priority))
        ids.setdefault(priority, []).append(job.id)
    taken = [(await store.claim(claim())).id for _ in range(4)]
    assert taken == ids[5] + ids[0]


async def test_claim_gives_a_repeated_call_the_same_job(store, new_job, claim):
    await store.create(new_job())
    await store.create(new_job())
    offer = claim()
    first = await store.claim(offer)
    again = await store.claim(offer)
    assert again.id == first.id
    assert again.attempt == 1


async def test_claim_leaves_jobs_that_need_another_capability(store, new_job, claim):
    await store.create(new_job(requires="inswapper"))
    assert await store.claim(claim(capabilities=frozenset({"mesh"}))) is None
    assert await store.claim(claim(capabilities=frozenset({"inswapper"}))) is not None


async def test_claim_waits_for_the_next_job(store, new_job, claim):
    waiting = asyncio.create_task(store.claim(claim(wait_s=30)))
    await asyncio.sleep(0)  # lets the claim begin; the order of the two does not matter to the result
    job, _ = await store.create(new_job())
    assert (await asyncio.wait_for(waiting, 10)).id == job.id


async def test_many_waiting_claims_get_one_job_each(store, new_job, claim):
    waiting = [asyncio.create_task(store.claim(claim(owner=f"r{n}", wait_s=30))) for n in range(5)]
    made = await asyncio.gather(*(store.create(new_job()) for _ in range(5)))
    taken = await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert sorted(job.id for job in taken) == sorted(job.id for job, _ in made)


async def test_an_arrival_costs_one_look_and_not_one_for_each_open_claim(store, new_job, claim, monkeypatch):
    looks, take = [], store._take

    def counted(tx, offered):
        looks.append(offered.claim_id)
        return take(tx, offered)

    monkeypatch.setattr(store, "_take", counted)
    waiting = [asyncio.create_task(store.claim(claim(wait_s=10))) for _ in range(20)]
    while len(looks) < 20:  # each has looked once by itself
        await asyncio.sleep(0.01)
    job, _ = await store.create(new_job())
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result().id for task in done] == [job.id]
    await store.create(new_job(requires="other"))  # fits none of them: one looks, and the others take its word
    await store.create(new_job(pool="elsewhere"))
    while len(looks) < 20 + 2:
        await asyncio.sleep(0.01)
    assert len(looks) <= 20 + 4
    await store.withdraw("replica-1")
    assert set(await asyncio.gather(*(task for task in waiting if task not in done))) == {None}


async def test_claims_that_offer_more_are_not_told_that_there_is_nothing(store, new_job, claim):
    plain = asyncio.create_task(store.claim(claim(wait_s=10)))
    tagged = asyncio.create_task(store.claim(claim(wait_s=10, capabilities=frozenset({"tags:a"}))))
    await asyncio.sleep(0)
    job, _ = await store.create(new_job(requires="tags:a"))
    assert (await tagged).id == job.id
    other, _ = await store.create(new_job())
    assert (await plain).id == other.id


async def test_a_job_that_becomes_due_is_found_by_a_waiting_claim(store, new_job, claim, clock):
    await store.create(new_job(not_before=clock.now + 0.2))
    waiting = [asyncio.create_task(store.claim(claim(wait_s=5))) for _ in range(3)]
    while not all(turn.due for turn in store._turns._turns.values()) or not store._turns._turns:
        await asyncio.sleep(0.01)
    clock.advance(0.3)
    done, pending = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    for task in pending:
        task.cancel()


async def test_withdraw_ends_the_open_claims_of_an_owner(store, new_job, claim):
    waiting = asyncio.create_task(store.claim(claim(owner="leaving", wait_s=600)))
    await asyncio.sleep(0)
    await store.withdraw("leaving")
    assert await asyncio.wait_for(waiting, 10) is None
    await store.create(new_job())
    assert await store.claim(claim(owner="leaving")) is None
    assert await store.claim(claim(owner="staying")) is not None


async def test_finish_publishes_the_outputs(store, new_job, claim):
    await store.create(new_job())
    job = await store.claim(claim())
    output = artifact()
    with pytest.raises(FileNotFound):
        await store.get_file(TENANT, output.file_id)
    assert await store.finish(job.id, 1, [output], {"computing": 1.5}) is Verdict.OK
    done = await store.get(TENANT, job.id)
    published = await store.get_file(TENANT, output.file_id)
    assert (done.status, done.outputs, done.timings) == (JobStatus.SUCCEEDED, (output,), {"computing": 1.5})
    assert (published.key, published.job_id) == ("a/b.png", job.id)


async def test_finish_said_twice_is_ok_twice(store, new_job, claim):
    await store.create(new_job())
    job = await store.claim(claim())
    output = artifact()
    assert await store.finish(job.id, 1, [output], {}) is Verdict.OK
    assert await store.finish(job.id, 1, [output], {}) is Verdict.OK
    assert len((await store.get(TENANT, job.id)).attempts) == 1


async def test_a_lost_attempt_writes_nothing(store, new_job, claim, clock):
    await store.create(new_job())
    first = await store.claim(claim())
    clock.advance(16)
    await store.sweep()
    second = await store.claim(claim(owner="replica-2"))
    late = artifact()
    assert second.attempt == 2
    assert await store.heartbeat(first.id, 1, None) is Verdict.LOST
    assert await store.finish(first.id, 1, [late], {}) is Verdict.LOST
    assert await store.fail(first.id, 1, FLAKY, {}) is Verdict.LOST
    with pytest.raises(FileNotFound):
        await store.get_file(TENANT, late.file_id)
    assert (await store.get(TENANT, first.id)).status is JobStatus.RUNNING


async def test_heartbeats_keep_a_lease(store, new_job, claim, clock):
    await store.create(new_job())
    job = await store.claim(claim())
    for step in range(4):
        clock.advance(10)
        assert await store.heartbeat(job.id, 1, Progress(Stage.COMPUTING, step / 10)) is Verdict.OK
        await store.sweep()
    running = await store.get(TENANT, job.id)
    assert (running.status, running.attempt, running.progress) == (JobStatus.RUNNING, 1, Progress(Stage.COMPUTING, 0.3))


async def test_a_poison_job_fails_after_max_attempts(store, new_job, claim, clock):
    job, _ = await store.create(new_job(max_attempts=3))
    for attempt in (1, 2, 3):
        assert await store.claim(claim()) is not None
        await store.heartbeat(job.id, attempt, None)
        clock.advance(16)
        await store.sweep()
    ended = await store.get(TENANT, job.id)
    assert (ended.status, ended.error.code, ended.attempt) == (JobStatus.FAILED, "worker_lost", 3)
    assert (await store.stats(TENANT)).workers_lost_total == 3


async def test_fail_retries_after_a_back_off(store, new_job, claim, clock):
    await store.create(new_job())
    job = await store.claim(claim())
    await store.fail(job.id, 1, FLAKY, {})
    assert await store.claim(claim()) is None
    assert (await store.depth("faceswap")).queued == 0
    clock.advance(2.1)
    again = await store.claim(claim())
    assert (again.id, again.attempt) == (job.id, 2)


async def test_fail_is_final_when_not_retryable(store, new_job, claim):
    await store.create(new_job())
    job = await store.claim(claim())
    await store.fail(job.id, 1, JobError("no_face_detected", "none"), {"fetching": 0.1})
    ended = await store.get(TENANT, job.id)
    assert (ended.status, ended.error.code, ended.timings) == (JobStatus.FAILED, "no_face_detected", {"fetching": 0.1})


async def test_fail_publishes_what_was_made_before_the_end(store, new_job, claim):
    await store.create(new_job())
    job = await store.claim(claim())
    outputs = [artifact(), artifact(name="second.png", duration_s=0.1)]
    error = JobError("comfy_node_failed", "node 9 failed")
    assert await store.fail(job.id, 1, error, {"computing": 1.5}, outputs) is Verdict.OK
    assert await store.fail(job.id, 1, error, {"computing": 1.5}, outputs) is Verdict.OK  # the answer got lost
    ended = await store.get(TENANT, job.id)
    assert (ended.status, ended.error, ended.outputs, len(ended.attempts)) == (JobStatus.FAILED, error, tuple(outputs), 1)
    assert [(await store.get_file(TENANT, output.file_id)).job_id for output in outputs] == [job.id] * 2
    await store.delete(TENANT, job.id)
    with pytest.raises(FileNotFound):
        await store.get_file(TENANT, outputs[0].file_id)


@pytest.mark.parametrize("end", ["queued again", "cancelled", "ended by another", "failed without them"])
async def test_fail_says_that_outputs_were_not_published_and_says_it_again(store, new_job, claim, clock, end):
    await store.create(new_job())
    job = await store.claim(claim())
    output, error = artifact(), JobError("comfy_node_failed", "node 9 failed")
    if end == "queued again":
        error = FLAKY
    elif end == "cancelled":
        await store.cancel(TENANT, job.id)
    elif end == "ended by another":
        clock.advance(16)
        await store.sweep()
    else:
        await store.fail(job.id, 1, error, {})
    for _ in range(2):
        assert await store.fail(job.id, 1, error, {}, [output]) is Verdict.LOST
    assert (await store.get(TENANT, job.id)).outputs == ()
    with pytest.raises(FileNotFound):
        await store.get_file(TENANT, output.file_id)


async def test_an_ending_that_a_cancel_overtook_is_told_the_same_again(store, new_job, claim):
    for end in (lambda job: store.fail(job.id, 1, FLAKY, {}), lambda job: store.release(job.id, 1)):
        await store.create(new_job())
        job = await store.claim(claim())
        await store.cancel(TENANT, job.id)
        assert [await end(job), await end(job), await store.finish(job.id, 1, [], {})] == [Verdict.OK, Verdict.OK, Verdict.LOST]
        assert (await store.get(TENANT, job.id)).status is JobStatus.CANCELLED


async def test_a_lost_backend_is_tried_again_at_once_but_not_for_ever(store, new_job, claim):
    job, _ = await store.create(new_job(max_attempts=2))
    lost = JobError("backend_lost", "the server forgot the prompt", retryable=True)
    for attempt in (1, 2):
        assert (await store.claim(claim())).attempt == attempt
        assert await store.fail(job.id, attempt, lost, {}) is Verdict.OK
    ended = await store.get(TENANT, job.id)
    assert (ended.status, ended.error, (await store.stats(TENANT)).workers_lost_total) == (JobStatus.FAILED, lost, 0)


async def test_a_claim_may_offer_every_combination_of_a_backends_tags(store, new_job, claim):
    tags = ["cuda", "flux-dev", "high-memory", "sdxl", "video", "wan-2.1"]
    offered = frozenset("tags:" + "+".join(c) for n in range(len(tags) + 1) for c in itertools.combinations(tags, n)) | {
        "comfyui",
        "a",
        "b",
    }
    assert len(offered) == 67
    for requires in ("tags:" + "+".join(tags), None, "tags:sdxl+wan-2.1", "tags:" + "x" * 250, "tags:sdxl+rocm"):
        await store.create(new_job(requires=requires))
    taken = [await store.claim(claim(capabilities=offered)) for _ in range(4)]
    assert [job and job.requires for job in taken] == ["tags:" + "+".join(tags), None, "tags:sdxl+wan-2.1", None]
    assert taken[3] is None


async def test_release_does_not_count_as_a_failure(store, new_job, claim):
    job, _ = await store.create(new_job(max_attempts=1))
    for attempt in range(1, 4):
        await store.claim(claim())
        assert await store.release(job.id, attempt) is Verdict.OK
    assert (await store.get(TENANT, job.id)).status is JobStatus.QUEUED


async def test_cancel_ends_a_queued_job_at_once(store, new_job, claim):
    job, _ = await store.create(new_job())
    assert (await store.cancel(TENANT, job.id)).status is JobStatus.CANCELLED
    assert await store.claim(claim()) is None


async def test_cancel_reaches_a_running_job_by_its_heartbeat(store, new_job, claim):
    await store.create(new_job())
    job = await store.claim(claim())
    assert (await store.cancel(TENANT, job.id)).cancel_requested
    assert await store.heartbeat(job.id, 1, None) is Verdict.CANCELLED
    assert await store.finish(job.id, 1, [artifact()], {}) is Verdict.CANCELLED
    assert await store.acknowledge_cancel(job.id, 1) is Verdict.OK
    assert (await store.get(TENANT, job.id)).status is JobStatus.CANCELLED


async def test_cancel_of_a_job_whose_worker_died_ends_it_without_an_error(store, new_job, claim, clock):
    await store.create(new_job())
    job = await store.claim(claim())
    await store.heartbeat(job.id, 1, None)
    await store.cancel(TENANT, job.id)
    clock.advance(16)
    await store.sweep()
    assert (await store.get(TENANT, job.id)).status is JobStatus.CANCELLED
    assert [event.error for event in await store.history(TENANT, job.id)] == [None, None, None]


async def test_cancel_of_an_ended_job_changes_nothing(store, new_job, claim):
    await store.create(new_job())
    job = await store.claim(claim())
    await store.finish(job.id, 1, [], {})
    assert (await store.cancel(TENANT, job.id)).status is JobStatus.SUCCEEDED


async def test_a_job_past_its_timeout_fails_though_its_heart_beats(store, new_job, claim, clock):
    await store.create(new_job(timeout_s=30))
    job = await store.claim(claim())
    for step in range(4):
        clock.advance(10)
        await store.heartbeat(job.id, 1, Progress(Stage.COMPUTING, step / 10))
        await store.sweep()
    ended = await store.get(TENANT, job.id)
    assert (ended.status, ended.error.code) == (JobStatus.FAILED, "job_timed_out")
    assert await store.heartbeat(job.id, 1, None) is Verdict.LOST


async def test_a_job_that_stands_still_fails_though_its_heart_beats(store, new_job, claim, clock):
    await store.create(new_job())
    job = await store.claim(claim())
    for _ in range(8):
        clock.advance(10)
        await store.heartbeat(job.id, 1, Progress(Stage.COMPUTING, 0.5))
        await store.sweep()
    ended = await store.get(TENANT, job.id)
    assert (ended.status, ended.error.code) == (JobStatus.FAILED, "job_stalled")


async def test_a_long_download_does_not_count_as_standing_still(store, new_job, claim, clock):
    await store.create(new_job())
    job = await store.claim(claim())
    for _ in range(8):
        clock.advance(10)
        await store.heartbeat(job.id, 1, Progress(Stage.FETCHING, 0.0))
        await store.sweep()
    assert (await store.get(TENANT, job.id)).status is JobStatus.RUNNING


async def test_delete_forgets_an_ended_job_and_its_files(store, new_job, claim):
    await store.create(new_job(labels={"a": "b"}))
    job = await store.claim(claim())
    with pytest.raises(JobNotTerminal):
        await store.delete(TENANT, job.id)
    output = artifact()
    await store.finish(job.id, 1, [output], {})
    await store.delete(TENANT, job.id)
    with pytest.raises(JobNotFound):
        await store.get(TENANT, job.id)
    with pytest.raises(FileNotFound):
        await store.get_file(TENANT, output.file_id)


async def test_add_file_publishes_an_upload(store):
    record = FileRecord(str(uuid.uuid4()), TENANT, "uploads/x", "x.png", "image/png", 5, "0" * 64, 1.0)
    assert await store.add_file(record) == await store.add_file(record) == await store.get_file(TENANT, record.id)


async def test_history_tells_every_state_in_order(store, new_job, claim, clock):
    await store.create(new_job())
    job = await store.claim(claim())
    await store.fail(job.id, 1, FLAKY, {})
    clock.advance(3)
    await store.claim(claim())
    await store.finish(job.id, 2, [], {})
    told = await store.history(TENANT, job.id)
    assert [event.status.value for event in told] == ["queued", "running", "queued", "running", "succeeded"]
    assert [event.error.code if event.error else None for event in told] == [None, None, "fetch_failed", None, None]
    assert [event.id for event in told] == sorted(event.id for event in told)


async def test_events_give_states_and_only_the_newest_progress(store, new_job, claim):
    start = (await store.events(None, 0)).last_id
    await store.create(new_job())
    job = await store.claim(claim())
    for step in range(5):
        await store.heartbeat(job.id, 1, Progress(Stage.COMPUTING, step / 10))
    batch = await store.events(start, 0)
    assert [event.type for event in batch.events] == [EventType.STATE, EventType.STATE, EventType.PROGRESS]
    assert batch.events[-1].progress.fraction == 0.4
    assert (await store.events(batch.last_id, 0)).events == ()


async def test_events_wait_for_news(store, new_job):
    start = (await store.events(None, 0)).last_id
    waiting = asyncio.create_task(store.events(start, 30))
    await asyncio.sleep(0)
    job, _ = await store.create(new_job())
    batch = await asyncio.wait_for(waiting, 10)
    assert [event.job_id for event in batch.events] == [job.id]


async def test_events_of_another_epoch_are_a_gap(store):
    assert (await store.events(EventId(99, 1), 0)).gap


async def test_a_restarted_store_knows_everything_and_gives_running_jobs_a_fresh_lease(store_config, clock, new_job, claim):
    first = SqlJobStore(store_config, clock)
    await first.start()
    queued, _ = await first.create(new_job(priority=-1))
    await first.create(new_job())
    running = await first.claim(claim())
    last = (await first.events(None, 0)).last_id
    await first.close()
    clock.advance(3600)
    second = SqlJobStore(store_config, clock)
    await second.start()
    await second.sweep()
    assert (await second.heartbeat(running.id, 1, None)) is Verdict.OK
    assert (await second.get(TENANT, queued.id)).status is JobStatus.QUEUED
    assert (await second.events(last, 0)).gap
    assert (await second.events(None, 0)).last_id > last
    await second.close()


async def test_an_older_store_may_not_write_any_more(postgres_database_url, clock, new_job):
    config = StoreConfig(database_url=postgres_database_url)  # SQLite does not let a second store open at all, see the next test
    older, newer = SqlJobStore(config, clock), SqlJobStore(config, clock)
    await older.start()
    await newer.start()
    with pytest.raises(StoreSuperseded):
        await older.create(new_job())
    assert (await newer.create(new_job()))[1]
    await older.close()
    await newer.close()


async def test_a_second_store_on_the_same_file_does_not_open(tmp_path, clock, monkeypatch):
    monkeypatch.setattr("deployments.jobs.database.LOCK_WAIT_S", 0.2)
    config = StoreConfig(database_url=f"sqlite:///{tmp_path / 'one.db'}")
    first = SqlJobStore(config, clock)
    await first.start()
    with pytest.raises(StoreUnavailable, match="another job store"):
        await SqlJobStore(config, clock).start()
    await first.close()


async def test_a_claim_that_its_worker_did_not_live_to_hear_costs_no_try(store, new_job, claim, clock):
    job, _ = await store.create(new_job(max_attempts=1))
    await store.claim(claim())
    clock.advance(16)
    await store.sweep()
    again = await store.claim(claim(owner="replica-2"))
    assert (again.id, again.attempt, again.attempts[0].outcome) == (job.id, 2, "not_started")


async def test_a_store_that_was_paused_does_not_blame_the_workers(database_url, clock, new_job, claim):
    store = SqlJobStore(StoreConfig(database_url=database_url, lease_s=15, janitor_period_s=1), clock)
    await store.start()
    await store.create(new_job())
    job = await store.claim(claim())
    clock.advance(60)  # the process did not run meanwhile
    await store.sweep()
    assert await store.heartbeat(job.id, 1, None) is Verdict.OK
    for _ in range(20):
        clock.advance(1)
        await store.sweep()
    assert await store.heartbeat(job.id, 1, None) is Verdict.LOST
    await store.close()


async def test_a_caller_that_goes_away_leaves_no_cancel_half_done(store, new_job, claim):
    await store.create(new_job())
    job = await store.claim(claim())
    call = asyncio.create_task(store.cancel(TENANT, job.id))
    await asyncio.sleep(0)  # its operation is queued
    call.cancel()
    await asyncio.wait({call})
    async with asyncio.timeout(10):  # the disk has it before the memory, by a turn of the loop
        while await store.heartbeat(job.id, 1, None) is not Verdict.CANCELLED:
            await asyncio.sleep(0)


async def test_a_submit_whose_caller_goes_away_still_wakes_a_worker(store, new_job, claim):
    waiting = asyncio.create_task(store.claim(claim(wait_s=600)))
    await asyncio.sleep(0)
    call = asyncio.create_task(store.create(new_job()))
    await asyncio.sleep(0)
    call.cancel()
    assert await asyncio.wait_for(waiting, 10) is not None


@pytest.fixture
def broken_after_commit(monkeypatch):
    """Let the next transaction reach the disk and then fail, as a connection that breaks during COMMIT does."""

    def break_next():
        commit = Database._commit

        def broken(self, operations):
            monkeypatch.setattr(Database, "_commit", commit)
            commit(self, operations)
            raise sa.exc.OperationalError("COMMIT", None, ConnectionError("gone"))

        monkeypatch.setattr(Database, "_commit", broken)

    return break_next


async def test_an_ending_of_unknown_outcome_is_told_again_and_readers_look(store, new_job, claim, broken_after_commit):
    await store.create(new_job())
    job = await store.claim(claim())
    last = (await store.events(None, 0)).last_id
    broken_after_commit()
    with pytest.raises(StoreUnavailable):
        await store.finish(job.id, 1, [], {})
    assert (await store.events(last, 0)).gap
    assert await store.finish(job.id, 1, [], {}) is Verdict.OK
    assert (await store.depth("faceswap")).running == 0


async def test_leases_follow_the_rows_after_a_commit_of_unknown_outcome(store, new_job, claim, clock, broken_after_commit):
    await store.create(new_job())
    broken_after_commit()
    with pytest.raises(StoreUnavailable):
        await store.claim(claim())
    await store.sweep()
    assert (await store.depth("faceswap")).running == 1
    clock.advance(16)
    await store.sweep()
    assert (await store.depth("faceswap")).queued == 1


async def test_no_progress_is_told_after_the_end(store, new_job, claim):
    await store.create(new_job())
    job = await store.claim(claim())
    start = (await store.events(None, 0)).last_id
    ending = asyncio.create_task(store.finish(job.id, 1, [], {}))
    await asyncio.sleep(0)  # the commit is under way
    await store.heartbeat(job.id, 1, Progress(Stage.COMPUTING, 0.9))
    await ending
    assert [event.type for event in (await store.events(start, 0)).events] == [EventType.STATE]


async def test_a_claim_sleeps_while_others_jobs_are_overdue(store, new_job, claim, monkeypatch):
    await store.create(new_job(requires="inswapper", not_before=1.0))
    takes = []
    take = store._take

    def counted(tx, offer):
        takes.append(offer)
        return take(tx, offer)

    monkeypatch.setattr(store, "_take", counted)
    waiting = asyncio.create_task(store.claim(claim(wait_s=600)))
    for _ in range(5):
        await store.depth("faceswap")  # time enough for a claim that does not sleep
    await store.withdraw("replica-1")
    assert await asyncio.wait_for(waiting, 10) is None
    assert len(takes) == 1


async def test_one_bad_operation_does_not_hurt_its_neighbours(store, new_job):
    clash = new_job()
    await store.create(clash)
    results = await asyncio.gather(
        store.create(new_job()), store.create(new_job(id=clash.id, fingerprint="other")), store.create(new_job()), return_exceptions=True
    )
    assert [type(r).__name__ for r in results] == ["tuple", "JobExists", "tuple"]
    assert len((await store.list_jobs(JobQuery())).jobs) == 3


async def test_depth_leaves_uploading_jobs_out_of_what_needs_a_slot(store, new_job, claim, clock):
    for _ in range(3):
        await store.create(new_job(estimate_s=4.0))
    job = await store.claim(claim())
    await store.heartbeat(job.id, 1, Progress(Stage.UPLOADING, 0.95))
    clock.advance(7)
    depth = await store.depth("faceswap")
    assert (depth.queued, depth.running, depth.uploading, depth.oldest_age_s, depth.estimated, depth.estimate_s) == (2, 1, 1, 7.0, 2, 8.0)


async def test_scaling_keeps_decisions_that_differ(store):
    def decision(at, desired):
        return ScalingDecision("faceswap", at, 0, desired, "why", 1, 0)

    for at, desired in ((1.0, 1), (2.0, 1), (3.0, 2)):
        await store.record_scaling(decision(at, desired))
    assert await store.scaling() == (decision(3.0, 2), decision(1.0, 1))


@pytest.mark.parametrize("place", ["me:secret@db/atelier", "me@db/atelier?password=secret"])
def test_a_password_in_the_database_url_is_refused(place):
    with pytest.raises(ValueError, match="PGPASSWORD"):
        StoreConfig(database_url=f"postgresql+psycopg://{place}")


async def test_the_migrations_make_what_the_tables_say(store, database_url):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from deployments.jobs.tables import METADATA

    engine = sa.create_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        differences = [
            d for d in compare_metadata(context, METADATA) if "ix_jobs_queue" not in str(d)
        ]  # SQLite cannot reflect an expression
    engine.dispose()
    assert differences == []


async def test_the_migrations_go_back_and_forth_with_the_jobs_in_place(store, store_config, database_url, clock, new_job):
    from alembic import command
    from alembic.config import Config

    from deployments.jobs.database import MIGRATIONS

    job, _ = await store.create(new_job())
    await store.close()
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        assert not sa.inspect(connection).has_table("comfy_backends")
    engine.dispose()
    upgraded = SqlJobStore(store_config, clock)
    await upgraded.start()
    assert await upgraded.get(TENANT, job.id) == job
    assert await upgraded.backends() == ()
    await upgraded.close()
