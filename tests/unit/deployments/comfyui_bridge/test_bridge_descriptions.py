"""Which backend is asked what nodes there are, how often, and for how long its answer or its silence counts."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from deployments.comfyui_bridge import descriptions
from deployments.comfyui_bridge.descriptions import FAILURE_FRESH_S, LIST_FRESH_S, Descriptions
from deployments.comfyui_client.config import ClientConfig
from deployments.jobs.errors import BackendLost
from deployments.jobs.model import BackendHealth, BackendSpec, BackendState

FRESH_S = 30.0


def state(name, *tags, healthy=True, draining=False):
    health = None if healthy is None else BackendHealth(healthy=healthy)
    return BackendState(BackendSpec(name, f"http://{name}", tags), draining, "replica-1", health)


class Servers:
    """Plays every server: each describes one class, which bears its name."""

    def __init__(self, *states):
        self.states = states
        self.listed = 0
        self.asked, self.closed = [], []
        self.broken = set()
        self.hangs = {}  # by name, until the event

    async def backends(self):
        self.listed += 1
        return self.states

    def connect(self, name, url, config):
        assert url == f"http://{name}"

        async def object_info():
            self.asked.append(name)
            if name in self.hangs:
                await self.hangs[name].wait()
            if name in self.broken:
                raise BackendLost(f"backend {name} does not answer")
            return {name: {"input": {}}}

        async def close():
            self.closed.append(name)

        return SimpleNamespace(object_info=object_info, close=close)


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(descriptions, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def build(monkeypatch, clock):
    def make(*states):
        servers = Servers(*states)
        monkeypatch.setattr(descriptions, "ComfyHttp", servers.connect)
        return Descriptions(servers, ClientConfig(), FRESH_S), servers

    return make


async def name_of(described, *tags):
    info = await described.info(tags)
    return None if info is None else next(iter(info.nodes))


async def settled():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_burst_reads_once(build):
    described, servers = build(state("a"))
    servers.hangs["a"] = asyncio.Event()
    burst = [asyncio.create_task(name_of(described)) for _ in range(20)]
    await settled()
    servers.hangs["a"].set()
    assert await asyncio.gather(*burst) == ["a"] * 20
    assert (servers.asked, servers.closed) == (["a"], ["a"])


async def test_an_answer_counts_until_it_is_old(build, clock):
    described, servers = build(state("a"))
    await name_of(described)
    clock.now += FRESH_S - 0.1
    await name_of(described)
    assert servers.asked == ["a"]
    clock.now += 0.2
    await name_of(described)
    assert servers.asked == ["a", "a"]


async def test_a_failure_is_remembered_for_a_while_and_no_longer(build, clock):
    described, servers = build(state("a"))
    servers.broken = {"a"}
    assert [await name_of(described) for _ in range(3)] == [None] * 3
    clock.now += FAILURE_FRESH_S - 0.1
    assert await name_of(described) is None
    assert servers.asked == ["a"]
    servers.broken = set()
    clock.now += 0.2
    assert await name_of(described) == "a"
    assert (servers.asked, servers.closed) == (["a", "a"], ["a", "a"])


async def test_the_next_one_is_asked_where_one_does_not_answer(build):
    described, servers = build(state("a"), state("b"))
    servers.broken = {"a"}
    assert [await name_of(described) for _ in range(2)] == ["b", "b"]
    assert servers.asked == ["a", "b"]


async def test_healthy_ones_come_first_then_those_that_do_not_drain_then_by_name(build):
    described, servers = build(
        state("a", healthy=None),
        state("b", healthy=False),
        state("c", draining=True),
        state("d"),
        state("e"),
        state("f", healthy=False, draining=True),
    )
    servers.broken = set("abcdef")
    assert await name_of(described) is None
    assert servers.asked == ["d", "e", "c", "a", "b", "f"]


@pytest.mark.parametrize(("tags", "asked"), [(("x",), ["b", "c"]), (("x", "y"), ["c"]), (("z",), []), ((), ["a", "b", "c"])])
async def test_only_those_with_all_the_tags_are_asked(build, tags, asked):
    described, servers = build(state("a"), state("b", "x"), state("c", "x", "y"))
    servers.broken = set("abc")
    assert await name_of(described, *tags) is None
    assert servers.asked == asked


async def test_an_ill_one_with_the_tag_is_asked_rather_than_a_healthy_one_without(build):
    described, _ = build(state("a"), state("b", "x", healthy=False))
    assert await name_of(described, "x") == "b"


async def test_one_that_hangs_does_not_hold_up_those_who_need_another(build):
    described, servers = build(state("a", "slow"), state("b", "x"))
    servers.hangs["a"] = asyncio.Event()
    waiting = asyncio.create_task(name_of(described, "slow"))
    await settled()
    assert await asyncio.wait_for(name_of(described, "x"), 5) == "b"
    assert not waiting.done()
    servers.hangs["a"].set()
    assert await waiting == "a"


async def test_what_was_known_stays_while_a_backend_stalls(build, clock):
    described, servers = build(state("a"))
    await name_of(described)
    servers.broken = {"a"}
    clock.now += FRESH_S + 0.1
    assert [await name_of(described) for _ in range(2)] == ["a", "a"]
    assert servers.asked == ["a", "a"]


async def test_one_that_hangs_is_given_up_after_a_while(build, monkeypatch):
    monkeypatch.setattr(descriptions, "READ_S", 0.0)
    described, servers = build(state("a"))
    servers.hangs["a"] = asyncio.Event()
    assert [await name_of(described), await name_of(described)] == [None, None]
    assert (servers.asked, servers.closed) == (["a"], ["a"])


async def test_a_backend_that_was_removed_is_forgotten(build, clock):
    described, servers = build(state("a"))
    await name_of(described)
    for states in ((), (state("a"),)):
        servers.states = states
        clock.now += LIST_FRESH_S + 0.1
        await described.backends()
    await name_of(described)
    assert servers.asked == ["a", "a"]


async def test_no_backend_is_no_description(build):
    described, servers = build()
    assert (await name_of(described), servers.asked) == (None, [])


async def test_the_list_of_backends_is_trusted_for_a_moment(build, clock):
    described, servers = build(state("a"))
    assert [await described.backends() for _ in range(3)] == [servers.states] * 3
    assert servers.listed == 1
    servers.states = (state("a"), state("b"))
    clock.now += LIST_FRESH_S + 0.1
    assert [len(await described.backends()), servers.listed] == [2, 2]
