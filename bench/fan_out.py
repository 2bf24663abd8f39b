"""One job's events to many readers of whom one never reads, against the same readers without it, in the same run.

    python -m bench.fan_out [--readers 100] [--turns 1] [--proxy default]

A fake ComfyUI takes steps for a while, and half of the readers follow its job by server-sent events, half by a WebSocket, all of them
from this process. A job waits at the server behind one that hangs until everybody listens. Turns with and without the reader that never
reads alternate; it is an event stream in one, a WebSocket in the next, with the smallest receive buffer that there is.

The delay of an event is counted from its own ``at``, which the job store writes by the clock of this machine. What the readers get is
looked at after the turn: to read hundreds of copies of an event costs this process time that counts as delay too, the same in both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np

from bench.support.comfy import Graph, hanging_prompt, sampling_prompt
from bench.support.local_ray import data_folder
from bench.support.series import show_ratio
from bench.support.service import haproxy_environment, running_service
from deployments.fake_comfyui.child import FakeChild

STEP_S = 0.25  # as often as a worker reports progress
STEPS = 40
OPEN_FILES = 8192  # the proxy has two sockets for each reader
AT_ONCE = 50  # connections opened at once
DEAF_BUFFER_BYTES = 1  # the kernel makes its least of it
TIMEOUT_S = 120.0
STEADY = 10  # requests in a row that must be answered before anything is measured: HAProxy answers 500 while it takes over at the start
STEADY_PAUSE_S = 0.3


@dataclass(slots=True)
class Heard:
    """What one reader received: when, and the text of the event."""

    messages: list[tuple[float, str]] = field(default_factory=list)
    listening: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, text: str) -> None:
        """Remember an event."""
        self.messages.append((time.time(), text))
        self.listening.set()


@dataclass(frozen=True, slots=True)
class Delays:
    """Delays of one turn, in milliseconds."""

    progress: tuple[float, ...]
    terminal: tuple[float, ...]  # at most one for each reader
    readers: int


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", type=int, default=100)
    parser.add_argument("--turns", type=int, default=1, help="turns of each side")
    parser.add_argument(
        "--proxy", choices=("default", "haproxy"), default="default", help="HAProxy's port for metrics listens on every interface"
    )
    arguments = parser.parse_args()
    allow_open_files()
    with data_folder() as folder, FakeChild(["--step-s", str(STEP_S)]) as fake, service(folder, fake.url, arguments.proxy) as url:
        asyncio.run(measure(url, arguments.readers, arguments.turns))


def allow_open_files() -> None:
    """Raise the limit of this process, which the service inherits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


@contextlib.contextmanager
def service(folder: Path, backend: str, proxy: str) -> Iterator[str]:
    """Run the application behind one of Serve's proxies."""
    environment = {"COMFYUI_URL": f"{backend}#name=fake", **(haproxy_environment(folder) if proxy == "haproxy" else {})}
    with running_service(folder, environment) as url:
        yield url


async def measure(url: str, readers: int, turns: int) -> None:
    """Let turns with and without the one that never reads alternate, after one that warms up."""
    without: list[Delays] = []
    with_deaf: list[Delays] = []
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as http:
        await until_steady(http)
        await follow(http, url, readers // 10, 0, None)
        for n in range(turns):
            without.append(await follow(http, url, readers, 2 * n + 1, None))
            with_deaf.append(await follow(http, url, readers, 2 * n + 2, "events" if n % 2 == 0 else "socket"))
    show("without", without)
    show("one never reads", with_deaf)
    for kind in ("progress", "terminal"):
        ratios = [np.median(getattr(a, kind)) / np.median(getattr(b, kind)) for a, b in zip(with_deaf, without, strict=True)]
        show_ratio(f"  {kind}: with / without, median delay", ratios)


async def until_steady(http: aiohttp.ClientSession) -> None:
    """Wait until the proxy hands on every request."""
    answered = 0
    async with asyncio.timeout(TIMEOUT_S):
        while answered < STEADY:
            async with http.get("/health") as answer:
                answered = answered + 1 if answer.ok else 0
            await asyncio.sleep(STEADY_PAUSE_S)


def show(name: str, turns: list[Delays]) -> None:
    """Print one line for each kind of event, and how many readers heard of the end."""
    for kind in ("progress", "terminal"):
        medians = [float(np.median(getattr(turn, kind))) for turn in turns]
        every = [delay for turn in turns for delay in getattr(turn, kind)]
        print(
            f"{name + ', ' + kind:40} p50 {np.median(medians):7.1f} ms ({min(medians):.1f}-{max(medians):.1f})"
            f"  p99 {np.percentile(every, 99):7.1f} ms  n={len(every)}"
        )
    print(f"{name + ', heard of the end':40} {sum(len(turn.terminal) for turn in turns)} of {sum(turn.readers for turn in turns)}")


async def follow(http: aiohttp.ClientSession, url: str, readers: int, seed: int, deaf: str | None) -> Delays:
    """Run one job that everybody follows.

    Args:
        http: connected to the service.
        url: of the service.
        readers: who read.
        seed: of the job, another in each turn.
        deaf: whether another one listens and never reads, and to what.
    """
    blocker = await submit(http, hanging_prompt(seed))
    job = await submit(http, sampling_prompt(seed, STEPS))
    heard = [Heard() for _ in range(readers)]
    room = asyncio.Semaphore(AT_ONCE)
    async with asyncio.timeout(TIMEOUT_S), contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for n, reader in enumerate(heard):
            group.create_task((read_events if n % 2 else read_socket)(http, job, reader, room))
        if deaf is not None:
            await stack.enter_async_context(never_reading(url, job, deaf))
        for reader in heard:
            await reader.listening.wait()
        async with http.post(f"/v1/jobs/{blocker}/cancel", raise_for_status=True):
            pass
    return delays_of(heard)


async def submit(http: aiohttp.ClientSession, graph: Graph) -> str:
    """Submit a workflow and return its job's id."""
    async with http.post("/v1/jobs", json={"kind": "comfyui", "workflow": graph}, raise_for_status=True) as answer:
        job_id: str = (await answer.json())["id"]
        return job_id


async def read_events(http: aiohttp.ClientSession, job: str, heard: Heard, room: asyncio.Semaphore) -> None:
    """Follow a job by server-sent events until it has ended."""
    async with contextlib.AsyncExitStack() as stack:
        async with room:
            answer = await stack.enter_async_context(http.get(f"/v1/jobs/{job}/events", raise_for_status=True))
        async for line in answer.content:
            if line.startswith(b"data: "):
                heard.take(line[6:].decode())


async def read_socket(http: aiohttp.ClientSession, job: str, heard: Heard, room: asyncio.Semaphore) -> None:
    """Follow a job by a WebSocket until it has ended."""
    async with contextlib.AsyncExitStack() as stack:
        async with room:
            websocket = await stack.enter_async_context(http.ws_connect("/v1/events", params={"job_id": job}))
        async for message in websocket:
            heard.take(message.data)


@contextlib.asynccontextmanager
async def never_reading(url: str, job: str, what: str) -> AsyncIterator[None]:
    """Ask for a job's events and never read a byte."""
    address = urlsplit(url)
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    path, headers = (f"/v1/jobs/{job}/events", "") if what == "events" else (f"/v1/events?job_id={job}", upgrade)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DEAF_BUFFER_BYTES)
        deaf.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(deaf, (address.hostname, address.port))
        await loop.sock_sendall(deaf, f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\n{headers}\r\n".encode())
        yield


def delays_of(heard: list[Heard]) -> Delays:
    """Read what was received, but for what a reader was told of the past when it came."""
    progress: list[float] = []
    terminal: list[float] = []
    for reader in heard:
        for received, text in reader.messages:
            event: dict[str, Any] = json.loads(text)
            delay_ms = (received - datetime.fromisoformat(event["at"]).timestamp()) * 1e3
            if event["type"] == "progress":
                progress.append(delay_ms)
            elif event["status"] == "succeeded":
                terminal.append(delay_ms)
    return Delays(tuple(progress), tuple(terminal), len(heard))


if __name__ == "__main__":
    main()
