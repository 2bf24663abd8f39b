"""Claim loops: slots, draining, health."""

from __future__ import annotations

import asyncio

import pytest

from deployments.jobs.config import WorkerConfig
from deployments.jobs.errors import StoreUnavailable
from deployments.jobs.ports import Slot
from deployments.jobs.slots import FixedSlots
from deployments.worker import Worker


class Name(str):
    """All of a job that the claim loop looks at, equal to its name."""

    __slots__ = ()
    id = property(str)


class Number(int):
    """The same, of a number."""

    id = property(str)


class Queue:
    """A store that hands out names; a claim waits until there is one or its owner withdrew."""

    def __init__(self, *jobs):
        self.jobs = [Name(job) if isinstance(job, str) else Number(job) for job in jobs]
        self.withdrawn, self.failures = asyncio.Event(), 0
        self.claims = []

    async def claim(self, claim):
        self.claims.append(claim)
        if self.failures > 0:
            self.failures -= 1
            raise StoreUnavailable("restarting")
        if self.jobs:
            return self.jobs.pop(0)
        await self.withdrawn.wait()
        return None

    async def withdraw(self, owner):
        self.withdrawn.set()


class Runner:
    """Runs until told; a job may free its slot earlier."""

    def __init__(self):
        self.started, self.ended, self.cancelled = [], [], []
        self.let_go = asyncio.Event()
        self.gates = {}  # of jobs that end by themselves
        self.free_slots_early = False
        self.stopping = 0.0
        self.news = asyncio.Event()

    def stopping_s(self):
        return self.stopping

    async def run(self, job, computed):
        self.started.append(job)
        self.news.set()
        if self.free_slots_early:
            computed()
        try:
            await self.gates.get(job, self.let_go).wait()
            self.ended.append(job)
        except asyncio.CancelledError:
            self.cancelled.append(job)
            raise

    async def wait_for(self, count):
        while len(self.started) < count:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 5)


class ElasticSlots:
    """Room that grows and shrinks when the test says so, as a fleet's does."""

    def __init__(self, size):
        self.size, self.taken = size, 0
        self.changed = asyncio.Event()

    async def take(self):
        while self.taken >= self.size:
            self.changed.clear()
            await self.changed.wait()
        self.taken += 1
        return Slot(frozenset({f"room for {self.size}"}), self.give_back)

    def give_back(self):
        self.taken -= 1
        self.changed.set()

    def resize(self, size):
        self.size = size
        self.changed.set()


def build(store, runner, elastic=None, **config) -> Worker:
    settings = WorkerConfig(**({"store_retry_s": 0.01} | config))
    slots = elastic or FixedSlots(settings.slots, frozenset({"mesh"}))
    return Worker(store=store, runner=runner, pool="p", owner="me", slots=slots, config=settings)


async def until(condition):
    """Wait for a condition that other tasks of the loop bring about."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def settled():
    """Let everything run that can run by itself: nothing here waits for time."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_as_many_jobs_run_as_there_are_slots():
    store, runner = Queue("a", "b", "c"), Runner()
    worker = build(store, runner, slots=2)
    worker.start()
    await runner.wait_for(2)
    assert (runner.started, store.jobs) == (["a", "b"], ["c"])
    runner.let_go.set()
    await runner.wait_for(3)
    await worker.drain()
    assert runner.ended == ["a", "b", "c"]


async def test_an_uploading_job_frees_its_slot_but_only_so_many_may_upload():
    store, runner = Queue("a", "b", "c", "d"), Runner()
    runner.free_slots_early = True
    worker = build(store, runner, slots=1, uploads=2)
    worker.start()
    await runner.wait_for(3)
    assert store.jobs == ["d"]
    assert [claim.computed for claim in store.claims] == [frozenset(), {"a"}, {"a", "b"}]
    runner.let_go.set()
    await runner.wait_for(4)
    await worker.drain()
    assert runner.ended == ["a", "b", "c", "d"]


@pytest.mark.parametrize("slots", [1, 2, 8, 20])
async def test_a_slot_that_becomes_free_is_filled_while_all_others_compute(slots):
    store, runner = Queue(*range(slots + 1)), Runner()
    runner.gates[0] = asyncio.Event()
    worker = build(store, runner, slots=slots, uploads=1)
    worker.start()
    await runner.wait_for(slots)
    assert store.jobs == [slots]
    runner.gates[0].set()
    await runner.wait_for(slots + 1)
    assert runner.ended == [0]
    runner.let_go.set()
    await worker.drain()


async def test_uploads_are_bounded_beside_slots_that_compute():
    store, runner = Queue(*range(9)), Runner()
    worker = build(store, runner, slots=3, uploads=2)
    runner.free_slots_early = True
    worker.start()
    await runner.wait_for(3)
    await settled()
    assert len(runner.started) == 3  # one more than may upload: it was claimed before the others had computed
    runner.let_go.set()
    await runner.wait_for(9)
    await worker.drain()
    assert sorted(runner.ended) == list(range(9))


async def test_slots_that_appear_are_used_and_each_claim_offers_what_its_slot_has():
    store, runner, slots = Queue("a", "b", "c"), Runner(), ElasticSlots(0)
    worker = build(store, runner, slots)
    worker.start()
    await settled()
    assert store.claims == []
    slots.resize(2)
    await runner.wait_for(2)
    await settled()
    assert (runner.started, [claim.capabilities for claim in store.claims]) == (["a", "b"], [{"room for 2"}] * 2)
    slots.resize(3)
    await runner.wait_for(3)
    assert store.claims[2].capabilities == {"room for 3"}
    runner.let_go.set()
    await worker.drain()


async def test_slots_that_disappear_cost_no_running_job_and_are_not_filled_again():
    store, runner, slots = Queue("a", "b", "c"), Runner(), ElasticSlots(2)
    worker = build(store, runner, slots)
    worker.start()
    await runner.wait_for(2)
    slots.resize(0)
    runner.let_go.set()
    await until(lambda: len(runner.ended) == 2)
    await settled()
    assert (runner.cancelled, store.jobs, slots.taken) == ([], ["c"], 0)
    slots.resize(1)
    await runner.wait_for(3)
    await worker.drain()
    assert runner.ended == ["a", "b", "c"]


async def test_a_job_that_only_uploads_holds_no_slot():
    store, runner, slots = Queue("a"), Runner(), ElasticSlots(1)
    runner.free_slots_early = True
    worker = build(store, runner, slots, uploads=1)
    worker.start()
    await runner.wait_for(1)
    await until(lambda: len(store.claims) == 2)  # the slot waits for the next job while the first one uploads
    assert (runner.ended, slots.taken) == ([], 1)
    runner.let_go.set()
    await worker.drain()
    assert slots.taken == 0


async def test_drain_answers_a_claim_that_waits():
    store, runner, slots = Queue(), Runner(), ElasticSlots(2)
    worker = build(store, runner, slots)
    worker.start()
    await until(lambda: len(store.claims) == 2)
    await asyncio.wait_for(worker.drain(), 5)
    assert (runner.started, slots.taken, len(store.claims)) == ([], 0, 2)


async def test_drain_claims_no_more_while_the_store_is_away():
    store, runner = Queue("a"), Runner()
    store.failures = 10**6
    worker = build(store, runner)

    async def away(owner):
        raise StoreUnavailable("restarting")

    store.withdraw = away
    worker.start()
    await until(lambda: store.claims)
    await asyncio.wait_for(worker.drain(), 5)
    assert (runner.started, store.jobs) == ([], ["a"])


async def test_drain_lets_a_job_upload_that_a_claim_got_in_the_last_moment():
    store, runner = Queue(), Runner()
    withdrawal, answer = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def claim(_):
        return await answer

    async def withdraw(owner):
        withdrawal.set()

    store.claim, store.withdraw = claim, withdraw
    runner.free_slots_early = True
    worker = build(store, runner, drain_s=5)
    worker.start()
    await settled()
    drain = asyncio.create_task(worker.drain())
    await withdrawal.wait()
    await settled()
    answer.set_result("late")
    await runner.wait_for(1)
    await settled()
    assert (drain.done(), runner.cancelled) == (False, [])
    runner.let_go.set()
    await asyncio.wait_for(drain, 5)
    assert (runner.ended, runner.cancelled) == (["late"], [])


async def test_drain_waits_for_the_running_job():
    store, runner = Queue("a"), Runner()
    worker = build(store, runner)
    worker.start()
    await runner.wait_for(1)
    drain = asyncio.create_task(worker.drain())
    await store.withdrawn.wait()
    assert not drain.done()
    runner.let_go.set()
    await asyncio.wait_for(drain, 5)
    assert (runner.ended, runner.cancelled) == (["a"], [])


async def test_drain_cancels_what_does_not_end_in_time():
    store, runner = Queue("a"), Runner()
    worker = build(store, runner, drain_s=0.05)
    worker.start()
    await runner.wait_for(1)
    await asyncio.wait_for(worker.drain(), 5)
    assert runner.cancelled == ["a"]


async def test_a_claim_is_repeated_with_its_id_while_the_store_is_away():
    store, runner = Queue("a"), Runner()
    store.failures = 3
    worker = build(store, runner)
    worker.start()
    await runner.wait_for(1)
    assert len({claim.claim_id for claim in store.claims[:4]}) == 1
    runner.let_go.set()
    await worker.drain()


async def test_check_fails_when_a_claim_loop_is_dead():
    store, runner = Queue(), Runner()

    async def broken(claim):
        raise ValueError(claim.pool)

    store.claim = broken
    worker = build(store, runner)
    worker.start()
    await asyncio.wait({worker._taker})
    with pytest.raises(RuntimeError, match="claiming of pool p is dead"):
        worker.check()


async def test_check_is_content_while_draining():
    worker = build(Queue(), Runner())
    worker.start()
    await worker.drain()
    worker.check()


async def test_check_fails_when_an_engine_does_not_come_back():
    runner = Runner()
    worker = build(Queue(), runner, stuck_s=60)
    runner.stopping = 59.0
    worker.check()
    runner.stopping = 61.0
    with pytest.raises(RuntimeError, match="stuck"):
        worker.check()
