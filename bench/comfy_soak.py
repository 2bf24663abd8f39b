"""Jobs over ComfyUI backends that fail in every way known, while processes are killed: each ends once, with its result.

    python -m bench.comfy_soak [--jobs 300] [--seed 1] [--data FOLDER]

Three fake backends run as processes with every hazard on at random; a second hand kills and restarts backends and the bridge's replica
(``kill -9``) all the time. Job ``n`` asks for a picture of one colour that no other job has, so that a wrong, lost or doubled result
shows. Everything random follows the seed. With ``--data`` the run is resumable: jobs have ids of their own, a submit that is repeated
finds its job, and what has ended is not run again.

Prints what was lost, wrong or doubled (the limit is none) and what was killed. Exit status 1: some job was not right.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import random
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from bench.support.local_ray import data_folder
from bench.support.service import running_service
from deployments.fake_comfyui.child import FakeChild

NAMESPACE = uuid.UUID("5f0b0c52-4a6c-4c55-9a53-0f1d8e6d7a10")  # of the jobs' ids; drawn once at random
BACKENDS = 3
SUBMITTERS = 8
AHEAD = 200  # jobs that wait: enough that no backend idles, and a resumed run has few to look at
SIDE_PX = 32  # no label of the fake fits into so small a picture
REPLICA = "ray::ServeReplica:atelier:ComfyUI"
KILLS_EVERY_S = (2.0, 6.0)  # pause between two kills
REPLICA_EVERY = 12  # of so many kills one is the bridge's replica: each stops all jobs until its lease has run out
DOWN_S = (0.0, 1.5)  # how long a killed backend stays away
HAZARDS = {
    "reconnect_loses_events": "true",
    "head_of_line_stall": "true",
    "late_history_s": "0.2",
    "duplicate_id_500": "true",
    "silent_pending_delete": "0.02",
    "cached_outputs_missing": "0.3",
    "drop_websocket": "0.002",
    "lose_success_event": "0.05",
    "crash_on_prompt": "0.002",
}


@dataclass
class Tally:
    """What happened."""

    right: int = 0
    wrong: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)  # of attempts
    killed: Counter[str] = field(default_factory=Counter)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=300, help="10000 take a quarter of an hour")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path, help="folder that is kept; the same again goes on where it stopped")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = arguments.data or stack.enter_context(data_folder())
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        tally = asyncio.run(run_soak(folder, arguments.jobs, arguments.seed))
        show(tally, arguments.jobs, time.monotonic() - began)
    sys.exit(0 if tally.right == arguments.jobs else 1)


async def run_soak(folder: Path, jobs: int, seed: int) -> Tally:
    """Start everything, and soak it."""
    with backends(seed) as fakes, running_service(folder, settings(fakes)) as url:
        return await soak(url, fakes, partial(kill_replica, folder / "data"), jobs, seed, {})


async def soak(url: str, fakes: list[FakeChild], kill: Callable[[], int], jobs: int, seed: int, options: dict[str, Any]) -> Tally:
    """Run jobs to their end while backends and the bridge are killed, and check each.

    Args:
        url: of the application.
        fakes: its backends.
        kill: kills the bridge's replica; returns whether there was one.
        jobs: how many.
        seed: of everything random, and part of the jobs' ids.
        options: of the jobs' specs.
    """
    tally = Tally()
    killer = asyncio.create_task(kill_forever(fakes, kill, random.Random(seed), tally))
    try:
        await submit_and_check(url, jobs, seed, options, tally)
    finally:
        killer.cancel()
        await asyncio.wait({killer})
    return tally


def settings(fakes: list[FakeChild]) -> dict[str, str]:
    """Return the application's settings: these backends, and a killed replica's jobs wait a few seconds only."""
    servers = ",".join(f"{fake.url}#name=fake{n}" for n, fake in enumerate(fakes))
    return {"COMFYUI_URL": servers, "ATELIER_STORE__LEASE_S": "6", "ATELIER_RUNNER__HEARTBEAT_S": "1.5"}


@contextlib.contextmanager
def backends(seed: int, host: str = "127.0.0.1") -> Iterator[list[FakeChild]]:
    """Run the fake backends; every second one is old and has no /api/jobs."""
    fakes = []
    for n in range(BACKENDS):
        hazards = HAZARDS | ({"no_jobs_api": "true"} if n % 2 else {})
        arguments = [part for name, value in hazards.items() for part in ("--hazard", f"{name}={value}")]
        fakes.append(FakeChild([*arguments, "--seed", str(seed + n)], host))
    with contextlib.ExitStack() as stack:
        for fake in fakes:
            stack.enter_context(fake)
        yield fakes


async def submit_and_check(url: str, jobs: int, seed: int, options: dict[str, Any], tally: Tally) -> None:
    """Keep ``AHEAD`` jobs waiting until all have been submitted, and check each when it has ended."""
    todo = iter(range(jobs))
    room = asyncio.Semaphore(AHEAD)
    async with httpx.AsyncClient(base_url=url, timeout=90, limits=httpx.Limits(max_connections=AHEAD + SUBMITTERS)) as http:

        async def one(n: int) -> None:
            try:
                job = await wait_for_end(http, await submit(http, n, seed, options))
                await check(http, job, n, tally)
            finally:
                room.release()
                if (n + 1) % 500 == 0:
                    print(f"{n + 1} of {jobs}; right {tally.right}, wrong {len(tally.wrong)}, killed {dict(tally.killed)}", flush=True)

        async with asyncio.TaskGroup() as group:
            for n in todo:
                await room.acquire()
                group.create_task(one(n))


async def submit(http: httpx.AsyncClient, n: int, seed: int, options: dict[str, Any]) -> str:
    """Submit job ``n`` under its own id, again until it is accepted: an equal submit finds the first one's job."""
    job_id = str(uuid.uuid5(NAMESPACE, f"{seed}/{n}"))
    request = {"kind": "comfyui", "id": job_id, "workflow": graph(n), "options": options, "max_attempts": 10}
    while True:
        with contextlib.suppress(httpx.TransportError):
            answer = await http.post("/v1/jobs", json=request)
            if answer.status_code in {httpx.codes.OK, httpx.codes.ACCEPTED}:
                return job_id
            if answer.status_code not in {
                httpx.codes.TOO_MANY_REQUESTS,
                httpx.codes.SERVICE_UNAVAILABLE,
                httpx.codes.INTERNAL_SERVER_ERROR,
            }:
                raise RuntimeError(f"job {n} was refused: {answer.text}")
        await asyncio.sleep(0.5)


async def wait_for_end(http: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    """Read a job until it has ended."""
    while True:
        with contextlib.suppress(httpx.TransportError):
            answer = await http.get(f"/v1/jobs/{job_id}", params={"wait": 60})
            if answer.status_code == httpx.codes.OK and (job := answer.json())["status"] in {"succeeded", "failed", "cancelled"}:
                found: dict[str, Any] = job
                return found
            if answer.status_code == httpx.codes.OK:
                continue
        await asyncio.sleep(0.5)


async def check(http: httpx.AsyncClient, job: dict[str, Any], n: int, tally: Tally) -> None:
    """See that the job gave the one picture that it asked for."""
    tally.statuses[job["status"]] += 1
    tally.outcomes.update(attempt["outcome"] for attempt in job["attempts"])
    if job["status"] != "succeeded" or len(job["outputs"]) != 1:
        tally.wrong.append(f"job {n} is {job['status']} with {len(job['outputs'])} outputs: {job['error']}")
        return
    while True:
        with contextlib.suppress(httpx.TransportError):
            answer = await http.get(job["outputs"][0]["url"])
            if answer.status_code == httpx.codes.OK:
                break
        await asyncio.sleep(0.5)
    colour = Image.open(io.BytesIO(answer.content)).convert("RGB").getpixel((SIDE_PX // 2, SIDE_PX // 2))
    if colour == ((n >> 16) & 255, (n >> 8) & 255, n & 255):
        tally.right += 1
    else:
        tally.wrong.append(f"job {n} has the colour {colour}")


def graph(n: int) -> dict[str, Any]:
    """Return a workflow that makes a picture of colour ``n``; every third one by a sampler's steps, for its events."""
    made = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": SIDE_PX, "height": SIDE_PX, "batch_size": 1, "color": n}},
        "2": {"class_type": "FakeDelay", "inputs": {"image": ["1", 0], "seconds": (n % 3) * 0.02}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "soak"}},
    }
    if n % 5 == 0:
        made["3"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["2", 0]}}
    return made


async def kill_forever(fakes: list[FakeChild], kill: Callable[[], int], chance: random.Random, tally: Tally) -> None:
    """Kill a backend, or now and then the bridge's replica, until cancelled."""
    for n in count():
        await asyncio.sleep(chance.uniform(*KILLS_EVERY_S))
        if n % REPLICA_EVERY == 0:  # the first one too: a short soak sees both kinds, as the jobs wait for the lease meanwhile
            tally.killed["replica"] += await asyncio.to_thread(kill)
            continue
        fake = chance.choice(fakes)
        tally.killed["backend"] += 1
        await asyncio.shield(asyncio.to_thread(restart, fake, chance.uniform(*DOWN_S)))


def restart(fake: FakeChild, down_s: float) -> None:
    """Kill a backend and start it again."""
    fake.kill()
    time.sleep(down_s)
    fake.start()


def kill_replica(data_dir: Path) -> int:
    """``kill -9`` the bridge of this run, found by its title and its data folder; return whether there was one."""
    ours = f"ATELIER_DATA_DIR={data_dir}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cmdline").read_bytes().startswith(REPLICA.encode()) and ours in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
                return 1
    return 0


def show(tally: Tally, jobs: int, seconds: float) -> None:
    """Print the figures."""
    print(f"jobs                     {jobs} in {seconds:.0f} s, {jobs / seconds:.1f}/s; statuses {dict(tally.statuses)}")
    print(f"right / asked for        {tally.right / jobs:.4f}")
    print(f"attempts by outcome      {dict(tally.outcomes)}")
    print(f"killed meanwhile         {dict(tally.killed)}")
    for line in tally.wrong[:20]:
        print(f"WRONG  {line}")


if __name__ == "__main__":
    main()
