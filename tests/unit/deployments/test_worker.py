"""Claim loops: slots, draining, health."""

from __future__ import annotations

import asyncio

import pytest

from deployments.jobs.config import WorkerConfig
from deployments.jobs.errors import StoreUnavailable
from deployments.jobs.slots import FixedSlots
from deployments.worker import Worker


class Queue:
    """A store that hands out names; a claim waits until there is one or its owner withdrew."""

    def __init__(self, *jobs):
        self.jobs, self.withdrawn, self.failures = list(jobs), asyncio.Event(), 0
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
            await self.let_go.wait()
            self.ended.append(job)
        except asyncio.CancelledError:
            self.cancelled.append(job)
            raise

    async def wait_for(self, count):
        while len(self.started) < count:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 5)


def build(store, runner, **config) -> Worker:
    settings = WorkerConfig(**({"store_retry_s": 0.01} | config))
    return Worker(store=store, runner=runner, pool="p", owner="me", slots=FixedSlots(settings.slots, frozenset({"mesh"})), config=settings)


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
    runner.let_go.set()
    await runner.wait_for(4)
    await worker.drain()
    assert runner.ended == ["a", "b", "c", "d"]


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
