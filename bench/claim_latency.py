"""From a submit to the moment a waiting worker has the job, against a bare actor's round trip in the same run.

    python -m bench.claim_latency [--rounds 400]

Three processes, as in production: this one submits, an actor claims with a long poll as a worker replica does, and between them the
real store's actor with its database. The least this can cost is one way to the store, two commits (of the job and of its lease) and
one way to the worker, so the limit beside it is a round trip to an actor that does nothing. All times are of one machine's monotonic
clock, which its processes share.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
import uuid
from typing import Any

from bench.support.local_ray import data_folder, local_ray
from bench.support.series import Series, show_durations, show_ratio

TURNS = 4
WARM_UP_ROUNDS = 20
POOL = "bench"
LONG_POLL_S = 30.0
SETTLE_S = (0.01, 0.03)  # the claim gets so long to arrive at the store and to find nothing


class Claimer:
    """A worker as the store sees it: claims, and ends what it got."""

    def __init__(self) -> None:
        from deployments.handles import StoreHandle

        self._store = StoreHandle()

    async def take(self) -> tuple[str, float]:
        """Wait for a job; return its id and when it was here."""
        from deployments.jobs.model import Claim

        job = await self._store.claim(Claim(str(uuid.uuid4()), POOL, f"bench-{os.getpid()}", wait_s=LONG_POLL_S))
        got = time.monotonic()
        if job is None:
            raise RuntimeError("the claim ended without a job")
        await self._store.finish(job.id, job.attempt, (), {})
        return job.id, got


class Noop:
    """Does nothing, in a process of its own."""

    async def answer(self) -> None:
        """Answer."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400, help="jobs, in all turns together")
    arguments = parser.parse_args()
    with data_folder() as folder, local_ray(folder):
        asyncio.run(measure(f"sqlite:///{folder}/jobs.db", arguments.rounds // TURNS))


async def measure(database_url: str, rounds: int) -> None:
    """Let the bare round trip and the way of a job take turns."""
    import ray

    from deployments.handles import StoreHandle, ensure_store
    from deployments.jobs.config import StoreConfig

    await ensure_store(StoreConfig(database_url=database_url))
    store = StoreHandle()
    claimer = ray.remote(Claimer).options(num_cpus=0).remote()
    noop = ray.remote(Noop).options(num_cpus=0).remote()
    await asyncio.gather(round_trips(noop, WARM_UP_ROUNDS), submits(store, claimer, WARM_UP_ROUNDS))
    pairs = [(await round_trips(noop, rounds), await submits(store, claimer, rounds)) for _ in range(TURNS)]
    show_durations("bare actor, round trip", [bare for bare, _ in pairs])
    show_durations("submit until accepted", [accepted for _, (accepted, _) in pairs])
    show_durations("submit until claimed", [claimed for _, (_, claimed) in pairs])
    show_ratio("  p50: submit until claimed / round trip", [ways[1].percentile_ms(50) / bare.percentile_ms(50) for bare, ways in pairs])


async def round_trips(noop: Any, rounds: int) -> Series:  # noqa: ANN401 -- Ray's handles carry no type
    """Call the bare actor, with the same pauses as between submits."""
    durations: list[float] = []
    for _ in range(rounds):
        await settle()
        sent = time.monotonic()
        await noop.answer.remote()
        durations.append(time.monotonic() - sent)
    return Series(tuple(durations), sum(durations))


async def submits(store: Any, claimer: Any, rounds: int) -> tuple[Series, Series]:  # noqa: ANN401 -- see round_trips
    """Submit one job after another to a claimer that waits; return the times until accepted and until claimed."""
    from deployments.jobs.model import NewJob

    accepted: list[float] = []
    claimed: list[float] = []
    for _ in range(rounds):
        taken = claimer.take.remote()
        await settle()
        job_id, sent = str(uuid.uuid4()), time.monotonic()
        await store.create(NewJob(job_id, "bench", POOL, {}, fingerprint="bench"))
        accepted.append(time.monotonic() - sent)
        got_id, got = await taken
        if got_id != job_id:
            raise RuntimeError("the claimer got another job")
        claimed.append(got - sent)
    return Series(tuple(accepted), sum(accepted)), Series(tuple(claimed), sum(claimed))


async def settle() -> None:
    """Wait a random moment, so that nothing falls into step with a timer."""
    await asyncio.sleep(random.uniform(*SETTLE_S))


if __name__ == "__main__":
    main()
