"""What a series of measured calls says: how many a second, and how long they took.

Scripts compare two things on one machine in one run, taking turns (A B A B ...), because a shared machine changes from minute to
minute: each turn's ratio is taken against its neighbour, and the median of the ratios is the figure.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Series:
    """The calls of one turn."""

    durations_s: tuple[float, ...]
    elapsed_s: float

    @property
    def rate(self) -> float:
        """Calls a second."""
        return len(self.durations_s) / self.elapsed_s

    def percentile_ms(self, q: float) -> float:
        """Return the duration in milliseconds that ``q`` percent of the calls did not exceed."""
        return float(np.percentile(self.durations_s, q)) * 1e3


async def measure_load(call: Callable[[], Awaitable[None]], *, concurrency: int, seconds: float) -> Series:
    """Repeat a call for a while: ``concurrency`` callers, each waiting for its answer before it calls again.

    Args:
        call: raises when its answer is not the one expected, which ends the measurement.
        concurrency: callers.
        seconds: how long new calls are begun.
    """
    durations: list[float] = []
    began = time.perf_counter()

    async def caller() -> None:
        while (start := time.perf_counter()) - began < seconds:
            await call()
            durations.append(time.perf_counter() - start)

    async with asyncio.TaskGroup() as callers:
        for _ in range(concurrency):
            callers.create_task(caller())
    return Series(tuple(durations), time.perf_counter() - began)


async def measure_calls(call: Callable[[], Awaitable[None]], *, count: int, concurrency: int) -> Series:
    """Call ``count`` times, with never more than ``concurrency`` calls open.

    A call's duration is from its own beginning, not from when it began to wait for its turn.
    """
    durations: list[float] = []
    todo = iter(range(count))
    began = time.perf_counter()

    async def caller() -> None:
        for _ in todo:
            start = time.perf_counter()
            await call()
            durations.append(time.perf_counter() - start)

    async with asyncio.TaskGroup() as callers:
        for _ in range(concurrency):
            callers.create_task(caller())
    return Series(tuple(durations), time.perf_counter() - began)


def merge(turns: Sequence[Series]) -> Series:
    """Put the calls of several turns together."""
    return Series(tuple(d for turn in turns for d in turn.durations_s), sum(turn.elapsed_s for turn in turns))


def show_load(name: str, turns: Sequence[Series]) -> None:
    """Print one line of calls under load: the median rate of the turns and its range, percentiles over all calls."""
    rates = [turn.rate for turn in turns]
    print(f"{name:40} {np.median(rates):7.1f}/s ({min(rates):.1f}-{max(rates):.1f})  {_percentiles(turns)}")


def show_durations(name: str, turns: Sequence[Series]) -> None:
    """Print one line of calls made one at a time: percentiles over all of them."""
    print(f"{name:40} {_percentiles(turns)}")


def show_ratio(name: str, ratios: Sequence[float]) -> None:
    """Print the median of the ratios of neighbouring turns, and their range."""
    print(f"{name:40} {np.median(ratios):7.2f}   ({min(ratios):.2f}-{max(ratios):.2f} in {len(ratios)} turns)")


def show_added_ms(name: str, added_ms: Sequence[float]) -> None:
    """Print the median of what neighbouring turns differ by, and its range."""
    print(f"{name:40} {np.median(added_ms):7.1f} ms ({min(added_ms):.1f} to {max(added_ms):.1f} in {len(added_ms)} turns)")


def _percentiles(turns: Sequence[Series]) -> str:
    calls = merge(turns)
    return "  ".join(f"p{q} {calls.percentile_ms(q):6.2f}" for q in (50, 95, 99)) + f" ms  n={len(calls.durations_s)}"
