"""What the bridge to ComfyUI adds to a workflow, against a script that talks to the same server, in the same run.

    python -m bench.comfy_bridge [--turns 1] [--jobs 40] [--backend http://127.0.0.1:8188] [--alone]

Three ways from a graph to its picture take turns: the script (one WebSocket, `POST /prompt`, `GET /history`, `GET /view`), the bridge
alone in this process (job store, worker, runner, fleet and object store; neither Ray nor HTTP before them) and the application over HTTP.
One job at a time shows what is added to each; many at once show whether the server ever idles, against the script with two prompts sent
ahead; several servers show whether they add up. Each job has a colour that no other had, since a server does not compute a node twice.

The servers are fakes that wait for 0.2 s, and for no time at all, which nothing can hide behind. With ``--backend`` it is your ComfyUI,
one alone, blurring on its processor.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp

from bench.support.bridge import bridge_alone
from bench.support.comfy import FreshColours, Graph, Workflow, blurring_workflow, direct_client, waiting_workflow
from bench.support.local_ray import data_folder
from bench.support.series import Series, measure_calls, show_added_ms, show_durations, show_load, show_ratio
from bench.support.service import running_service
from deployments.fake_comfyui.child import FakeChild

BACKENDS = 3
SENT_AHEAD = 2  # prompts that the script keeps at its server, as the bridge does
WARM_UP_JOBS = 5
LONGEST_WAIT_S = 60
HOLD_S = 2.0  # how soon a bridge's replica hears of a drained backend, see ComfyConfig.hold_s
FAKE_WORKFLOWS = {"0.2 s": waiting_workflow(0.2), "0 s": waiting_workflow(0.0)}


class Way(Protocol):
    """From a graph to its picture."""

    async def run(self, graph: Graph) -> None:
        """Return when the picture is here, or where the user's outputs lie."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    turns: int
    singles: int  # jobs of a turn, one at a time
    jobs: int  # jobs of a turn at once, for each backend


class Application:
    """The application over HTTP: one request that waits for the job's end, and one for its picture."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def run(self, graph: Graph) -> None:
        """See :class:`Way`.

        Raises:
            RuntimeError: the job did not succeed.
        """
        headers = {"Prefer": f"wait={LONGEST_WAIT_S}"}
        async with self._http.post(f"{self._url}/v1/jobs", json={"kind": "comfyui", "workflow": graph}, headers=headers) as answer:
            job = await answer.json()
        if job.get("status") != "succeeded":
            raise RuntimeError(f"a job did not succeed: {job}")
        async with self._http.get(f"{self._url}/v1/files/{job['outputs'][0]['file_id']}", raise_for_status=True) as answer:
            await answer.read()

    async def use(self, backends: int) -> None:
        """Drain all but the first ``backends``, and return when the replica has heard of it."""
        for n in range(BACKENDS):
            action = "resume" if n < backends else "drain"
            async with self._http.post(f"{self._url}/v1/admin/backends/b{n}/{action}", raise_for_status=True):
                pass
        await asyncio.sleep(2 * HOLD_S)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--singles", type=int, default=8, help="jobs of a turn, one at a time")
    parser.add_argument("--jobs", type=int, default=40, help="jobs of a turn, at once, for each backend")
    parser.add_argument("--backend", help="a ComfyUI of yours instead of the fakes; what runs there besides is measured too")
    parser.add_argument("--side", type=int, default=1024, help="of the square that your ComfyUI blurs: choose it for about 0.2 s")
    parser.add_argument("--alone", action="store_true", help="leave the application out")
    arguments = parser.parse_args()
    sizes = Sizes(arguments.turns, arguments.singles, arguments.jobs)
    with data_folder() as folder, servers(arguments.backend) as urls, service(folder, urls, alone=arguments.alone) as url:
        workflows = {f"{arguments.side} px blurred": blurring_workflow(arguments.side)} if arguments.backend else FAKE_WORKFLOWS
        asyncio.run(measure(folder, urls, url, workflows, sizes))


@contextlib.contextmanager
def servers(url: str | None) -> Iterator[list[str]]:
    """Yield the one server that was named, or run fakes."""
    with contextlib.ExitStack() as stack:
        yield [url.rstrip("/")] if url else [stack.enter_context(FakeChild()).url for _ in range(BACKENDS)]


@contextlib.contextmanager
def service(folder: Path, urls: Sequence[str], *, alone: bool) -> Iterator[str | None]:
    """Run the application over the servers, unless the bridge alone is measured."""
    if alone:
        yield None
        return
    named = ",".join(f"{url}#name=b{n}" for n, url in enumerate(urls))
    environment = {"COMFYUI_URL": named, "ATELIER_COMFYUI__CLIENT_ID_PREFIX": "bench-application"}
    with running_service(folder, environment) as url:
        yield url


async def measure(folder: Path, urls: list[str], url: str | None, workflows: dict[str, Workflow], sizes: Sizes) -> None:
    """Measure one server with each workflow, then all of them with the first."""
    colours = FreshColours()
    async with direct_client(urls[0]) as direct, application(url) as app:
        async with bridge_alone(folder / "one", urls[:1]) as alone:
            if app and len(urls) > 1:
                await app.use(1)
            bridges: dict[str, Way] = {"bridge alone": alone, **({"application": app} if app else {})}
            for name, workflow in workflows.items():
                await compare_one(name, direct, bridges, Jobs(workflow, colours), sizes)
        if len(urls) == 1:
            return
        async with bridge_alone(folder / "all", urls) as alone:
            if app:
                await app.use(len(urls))
            bridges = {"bridge alone": alone, **({"application": app} if app else {})}
            name, workflow = next(iter(workflows.items()))
            await compare_all(name, direct, bridges, Jobs(workflow, colours), sizes, len(urls))


@contextlib.asynccontextmanager
async def application(url: str | None) -> AsyncIterator[Application | None]:
    """Connect to the application, if it runs."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield Application(http, url) if url else None


@dataclass(frozen=True, slots=True)
class Jobs:
    """Jobs that differ in nothing but their colour."""

    workflow: Workflow
    colours: FreshColours

    async def measure(self, way: Way, *, count: int, concurrency: int) -> Series:
        """Run some of them."""
        return await measure_calls(lambda: way.run(self.workflow(self.colours.take())), count=count, concurrency=concurrency)

    async def warm_up(self, ways: Sequence[Way]) -> None:
        """Open connections and load what is loaded late."""
        for way in ways:
            await self.measure(way, count=WARM_UP_JOBS, concurrency=1)


async def compare_one(name: str, direct: Way, bridges: dict[str, Way], jobs: Jobs, sizes: Sizes) -> None:
    """Let the ways to one server take turns: one job at a time, then many at once."""
    ways = {"direct": direct, **bridges}
    await jobs.warm_up(list(ways.values()))
    single: dict[str, list[Series]] = {way: [] for way in ways}
    many: dict[str, list[Series]] = {way: [] for way in ways}
    for _ in range(sizes.turns):
        for label, way in ways.items():
            single[label].append(await jobs.measure(way, count=sizes.singles, concurrency=1))
        for label, way in ways.items():
            open_jobs = SENT_AHEAD if way is direct else sizes.jobs
            many[label].append(await jobs.measure(way, count=sizes.jobs, concurrency=open_jobs))
    for label, turns in single.items():
        show_durations(f"{label}, {name}, one at a time", turns)
    for label in bridges:
        show_added_ms(
            f"  {label}: added at p50",
            [a.percentile_ms(50) - b.percentile_ms(50) for a, b in zip(single[label], single["direct"], strict=True)],
        )
    for label, turns in many.items():
        show_load(f"{label}, {name}, {sizes.jobs} jobs", turns)
    for label in bridges:
        show_ratio(f"  {label} / direct", [a.rate / b.rate for a, b in zip(many[label], many["direct"], strict=True)])


async def compare_all(name: str, direct: Way, bridges: dict[str, Way], jobs: Jobs, sizes: Sizes, servers: int) -> None:
    """Let the bridges over all servers take turns with the direct way to one."""
    await jobs.warm_up(list(bridges.values()))
    one: list[Series] = []
    all_servers: dict[str, list[Series]] = {label: [] for label in bridges}
    for _ in range(sizes.turns):
        one.append(await jobs.measure(direct, count=sizes.jobs, concurrency=SENT_AHEAD))
        for label, way in bridges.items():
            count = sizes.jobs * servers
            all_servers[label].append(await jobs.measure(way, count=count, concurrency=count))
    show_load(f"direct, {name}, one server", one)
    for label, turns in all_servers.items():
        show_load(f"{label}, {name}, {servers} servers", turns)
    for label, turns in all_servers.items():
        show_ratio(f"  {label} / ({servers} x direct)", [a.rate / (servers * b.rate) for a, b in zip(turns, one, strict=True)])


if __name__ == "__main__":
    main()
