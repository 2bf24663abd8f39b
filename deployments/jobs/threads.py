"""Drive a blocking generator from an event loop, one step at a time, without ever leaving it running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from concurrent.futures import Executor
from typing import TypeVar

from deployments.jobs.model import JsonObject
from deployments.jobs.ports import Engine, EngineItem, EngineTask

T = TypeVar("T")

_END = object()


class ThreadedEngine:
    """Implements :class:`deployments.jobs.ports.AsyncEngine` over a blocking engine, each job in a thread."""

    def __init__(self, engine: Engine, executor: Executor) -> None:
        self._engine = engine
        self._executor = executor

    def references(self, spec: JsonObject) -> Mapping[str, JsonObject]:
        """See the port."""
        return self._engine.references(spec)

    def run(self, task: EngineTask) -> AsyncGenerator[EngineItem, None]:
        """See the port; a cancelled run returns once the step under way has ended."""
        return iterate_in_thread(self._engine.run(task), self._executor)


async def iterate_in_thread(steps: Iterator[T], executor: Executor) -> AsyncGenerator[T, None]:
    """Yield what a blocking iterator yields; each step runs in ``executor`` while the loop goes on.

    When the consumer stops or is cancelled, the step under way is waited for (a thread cannot be killed) and a generator is closed
    in the executor, so that its ``finally`` blocks have run when this returns.
    """
    loop = asyncio.get_running_loop()
    step: asyncio.Future[object] | None = None
    try:
        while True:
            step = loop.run_in_executor(executor, next, steps, _END)
            item = await asyncio.shield(step)
            if item is _END:
                return
            yield item  # type: ignore[misc]  # next() with a default is typed by the iterator or the default
    finally:
        await _settle(step)
        if isinstance(steps, Generator):
            await loop.run_in_executor(executor, steps.close)


async def _settle(step: asyncio.Future[object] | None) -> None:
    if step is not None and not step.done():
        await asyncio.wait({step})
    if step is not None and step.done() and not step.cancelled():
        step.exception()  # looked at, or asyncio would report it as never retrieved
