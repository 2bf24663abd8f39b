"""A blocking generator seen from a loop: order, errors, and that nothing is left running."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from deployments.jobs.threads import iterate_in_thread


@pytest.fixture
def executor():
    with ThreadPoolExecutor(1) as pool:
        yield pool


async def test_yields_in_order(executor):
    assert [n async for n in iterate_in_thread(iter(range(4)), executor)] == [0, 1, 2, 3]


async def test_hands_on_errors(executor):
    def steps():
        yield 1
        raise ValueError("no")

    seen = []
    with pytest.raises(ValueError, match="no"):
        async for n in iterate_in_thread(steps(), executor):
            seen.append(n)
    assert seen == [1]


async def test_a_cancel_waits_for_the_step_and_closes_the_generator(executor):
    entered, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def steps():
        try:
            entered.set()
            assert go_on.wait(10)
            yield 1
        finally:
            closed.set()

    async def consume():
        async with contextlib.aclosing(iterate_in_thread(steps(), executor)) as items:
            async for _ in items:
                pass

    task = asyncio.create_task(consume())
    await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()
