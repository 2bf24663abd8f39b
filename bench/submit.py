"""Durable submits per second, against a no-op endpoint of the same Serve proxy in the same run.

    python -m bench.submit [--seconds 3] [--turns 4]

A submit is `POST /v1/jobs` answered 202, which is after the job was committed to disk. No worker runs, so nothing competes for the
cores but the client, which is this process. Below stand what the way to the disk costs without HTTP and Ray (the store in this
process) and without a database (an append and its fdatasync): the limits that the ratio is to be read against. Each turn starts with
an empty queue; what a long one costs is measured on the store alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from fastapi import FastAPI

from bench.support.local_ray import data_folder, local_ray
from bench.support.series import Series, measure_load, show_load, show_ratio

CONCURRENCIES = (1, 32)  # callers that each wait for their answer
POOL = "faceswap"
WARM_UP_S = 1.0
CORES_OF_NO_MACHINE = 1_000_000.0  # booked for one worker: the pool takes jobs, and none of its replicas ever starts
BACKLOG = 10_000  # as many as a pool admits by default
DISK_WRITE_BYTES = 4096  # a page of SQLite
JOB = {
    "kind": "faceswap",
    "source": {"url": "https://example.com/portrait.jpg"},
    "target": {"url": "https://example.com/holiday.mp4"},
    "output": {"resolution": "1280x720"},
    "labels": {"project": "bench"},
}

Call = Callable[[], Awaitable[None]]

noop_api = FastAPI()


class Noop:
    """Answers the same request as a submit, and does nothing."""

    @noop_api.post("/jobs", status_code=202)
    async def create(
        self, job: dict[str, object]
    ) -> dict[str, object]:  # builtins only: the replica reads the annotations, not our imports
        """Read the body as JSON and answer."""
        return {"kind": job["kind"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a turn")
    parser.add_argument("--turns", type=int, default=4, help="turns of each side at each concurrency")
    arguments = parser.parse_args()
    with data_folder() as folder:
        measure_disk(folder, arguments.seconds)
        asyncio.run(measure_store(folder, arguments.seconds))
        with local_ray(folder):
            asyncio.run(measure_endpoints(deploy(), arguments.seconds, arguments.turns))


def deploy() -> str:
    """Start Serve with the application and the no-op side by side; return the address of both."""
    from ray import serve  # after the environment is set, see support/local_ray.py

    from serve_app.main import APP_NAME, MAX_STREAMS, build_app
    from serve_app.placement import AppArgs, PoolOptions

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    pools = {POOL: PoolOptions(min_replicas=0, num_cpus=CORES_OF_NO_MACHINE)}
    serve.run(build_app(AppArgs(profile="cpu", pools=pools)), name=APP_NAME, route_prefix="/")
    noop = serve.deployment(name="Noop", max_ongoing_requests=MAX_STREAMS, ray_actor_options={"num_cpus": 0})
    serve.run(noop(serve.ingress(noop_api)(Noop)).bind(), name="noop", route_prefix="/noop")
    return f"http://127.0.0.1:{port}"


async def measure_endpoints(url: str, turn_s: float, turns: int) -> None:
    """Let the two endpoints take turns."""
    from deployments.handles import StoreHandle

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        noop, submit = poster(client, f"{url}/noop/jobs"), poster(client, f"{url}/v1/jobs")
        store = StoreHandle()
        for concurrency in CONCURRENCIES:
            pairs: list[tuple[Series, Series]] = []
            for seconds in (WARM_UP_S, *[turn_s] * turns):
                bare = await measure_load(noop, concurrency=concurrency, seconds=seconds)
                pairs.append((bare, await measure_load(submit, concurrency=concurrency, seconds=seconds)))
                await empty_queue(store)
            del pairs[0]  # the warm-up
            show_load(f"no-op endpoint, {concurrency} at once", [first for first, _ in pairs])
            show_load(f"durable submit, {concurrency} at once", [second for _, second in pairs])
            show_ratio("  submits / no-ops", [second.rate / first.rate for first, second in pairs])


async def empty_queue(store: Any) -> None:  # noqa: ANN401 -- a JobStore, imported once the environment is set
    """End every job that waits: the store counts its queue at each submit, so a turn would pay for the ones before it."""
    from deployments.jobs.model import Claim

    async def end_jobs() -> None:
        while (job := await store.claim(Claim(str(uuid.uuid4()), POOL, "bench", wait_s=0.0))) is not None:
            await store.finish(job.id, job.attempt, (), {})

    await asyncio.gather(*(end_jobs() for _ in range(max(CONCURRENCIES))))


def poster(client: aiohttp.ClientSession, url: str) -> Call:
    """Return a call that posts the job and expects 202."""

    async def post() -> None:
        async with client.post(url, json=JOB) as response:
            if response.status != 202:
                raise RuntimeError(f"{url} answered {response.status}: {await response.text()}")
            await response.read()

    return post


async def measure_store(folder: Path, seconds: float) -> None:
    """Measure the job store in this process: no HTTP, no Ray."""
    from deployments.jobs.config import StoreConfig
    from deployments.jobs.store import SqlJobStore

    store = SqlJobStore(StoreConfig(database_url=f"sqlite:///{folder}/alone.db", max_queued=1_000_000))
    await store.start()
    for backlog in (0, BACKLOG):
        for concurrency in CONCURRENCIES:
            await asyncio.gather(*(create_job(store) for _ in range(backlog - (await store.depth(POOL)).queued)))
            calls = await measure_load(lambda: create_job(store), concurrency=concurrency, seconds=seconds)
            show_load(f"store alone, {concurrency} at once, {backlog} waiting", [calls])
            if not backlog:
                await empty_queue(store)
    await store.close()


async def create_job(store: Any) -> None:  # noqa: ANN401 -- a JobStore, imported once the environment is set
    """Create another job."""
    from deployments.jobs.model import NewJob

    await store.create(NewJob(str(uuid.uuid4()), "faceswap", POOL, JOB, fingerprint="bench", labels={"project": "bench"}))


def measure_disk(folder: Path, seconds: float) -> None:
    """Measure the disk: append a page and wait until it is written."""
    durations: list[float] = []
    began = time.perf_counter()
    with (folder / "page").open("wb", buffering=0) as file:
        while (start := time.perf_counter()) - began < seconds:
            file.write(b"\1" * DISK_WRITE_BYTES)
            os.fdatasync(file.fileno())
            durations.append(time.perf_counter() - start)
    show_load("disk: append 4 KiB and fdatasync", [Series(tuple(durations), time.perf_counter() - began)])


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
