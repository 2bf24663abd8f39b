"""Which backends a replica drives, how many jobs it takes, and where each goes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request

import pytest

from deployments.comfyui_bridge.fleet import Fleet
from deployments.fake_comfyui.config import Hazards
from deployments.jobs.errors import BackendUnavailable, StoreUnavailable
from tests.unit.deployments.comfyui_bridge.conftest import QUICK
from tests.workflows import Registry, collect, empty_image, text_to_image

pytestmark = pytest.mark.slow  # real servers and sockets, and time passes


async def until(condition, timeout_s=5.0):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_there_are_as_many_slots_as_prompts_may_be_sent(run_fake, build_bridge):
    async with run_fake() as one, run_fake() as two, build_bridge(Registry(one, two)) as bridge:
        await until(lambda: bridge.fleet.size == 4)
        slots = [await bridge.fleet.take() for _ in range(4)]
        fifth = asyncio.create_task(bridge.fleet.take())
        await asyncio.sleep(0.1)
        assert not fifth.done()
        slots[0].give_back()
        await asyncio.wait_for(fifth, 2)


async def test_a_slot_offers_the_tags_of_the_backend_that_has_room(run_fake, build_bridge):
    async with run_fake() as one, run_fake() as two, build_bridge(Registry(one, two, tags=[("gpu",), ()])) as bridge:
        await until(lambda: bridge.fleet.size == 4)
        slots = [await bridge.fleet.take() for _ in range(4)]
        assert sorted(len(slot.capabilities) for slot in slots) == [0, 0, 1, 1]
        free = next(slot for slot in slots if not slot.capabilities)
        free.give_back()  # the tagged one is full: what is taken next must not be a job for it
        assert (await bridge.fleet.take()).capabilities == frozenset()


async def test_a_slot_offers_every_combination_of_the_tags(fake, build_bridge):
    async with build_bridge(Registry(fake, tags=[("b", "a")])) as bridge:
        assert (await bridge.fleet.take()).capabilities == {"tags:a", "tags:b", "tags:a+b"}


async def test_jobs_spread_and_a_loaded_checkpoint_draws_them(run_fake, build_bridge):
    async with run_fake() as one, run_fake() as two, build_bridge(Registry(one, two)) as bridge:
        await until(lambda: bridge.fleet.size == 4)
        async with bridge.fleet.place(frozenset(), "a", None) as first, bridge.fleet.place(frozenset(), "b", None) as second:
            assert first is not second  # least loaded
            first.model, second.model = "a", "b"
        for model in ("b", "a", "b", "b"):
            async with bridge.fleet.place(frozenset(), model, None) as backend:
                assert backend.model == model


async def test_a_backend_that_lost_the_job_is_avoided_while_there_is_another(run_fake, build_bridge):
    async with run_fake() as one, run_fake() as two, build_bridge(Registry(one, two)) as bridge:
        await until(lambda: bridge.fleet.size == 4)
        for _ in range(4):
            async with bridge.fleet.place(frozenset(), None, "fake0") as backend:
                assert backend.spec.name == "fake1"
        bridge.fleet._backends["fake1"].draining = True
        async with bridge.fleet.place(frozenset(), None, "fake0") as backend:
            assert backend.spec.name == "fake0"


async def test_a_draining_backend_finishes_and_takes_no_more(run_fake, build_bridge, task):
    slow = empty_image() | {"3": {"class_type": "FakeDelay", "inputs": {"image": ["1", 0], "seconds": 0.3}}}
    slow["2"] = {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "s"}}
    async with run_fake() as one:
        registry = Registry(one)
        async with build_bridge(registry) as bridge:
            running = asyncio.create_task(collect(bridge.engine, task(slow)))
            await until(lambda: bridge.fleet._backends["fake0"].used == 1)
            registry.draining.add("fake0")
            await until(lambda: bridge.fleet.size == 0)
            with pytest.raises(BackendUnavailable):
                await collect(bridge.engine, task(empty_image(), job_id="late"))
            assert len((await running).files) == 1


async def test_a_surrendered_backend_is_released_once_it_is_idle(run_fake, build_bridge):
    async with run_fake() as one, run_fake() as two:
        registry = Registry(one, two)
        async with build_bridge(registry) as bridge:
            await until(lambda: bridge.fleet.size == 4)
            async with bridge.fleet.place(frozenset(), None, "fake0") as backend:
                assert backend.spec.name == "fake1"
                registry.surrendered.add("fake1")
                await until(lambda: backend.surrendering)
                assert not registry.released
            await until(lambda: "fake1" in registry.released)
            assert bridge.fleet.size == 2


async def test_a_replica_whose_hold_is_not_renewed_sends_nothing(fake):
    registry = Registry(fake)
    fleet = Fleet(registry, "replica-1", QUICK, lease_s=0.6)
    fleet.start()
    try:
        await asyncio.wait_for(fleet.take(), 5)

        async def away(*_):
            raise StoreUnavailable("away")

        registry.hold_backends, answering = away, registry.hold_backends
        await until(lambda: fleet.size == 0)
        registry.hold_backends = answering
        await until(lambda: fleet.size == 2)
        fleet.check()
    finally:
        registry.hold_backends = answering
        await fleet.close()


async def test_a_backend_that_hangs_costs_the_others_nothing(run_fake, build_bridge, task, monkeypatch):
    async with run_fake() as one, run_fake() as two, build_bridge(Registry(one, two)) as bridge:
        await until(lambda: bridge.fleet.size == 4)
        hangs = asyncio.Event()
        monkeypatch.setattr(bridge.fleet._backends["fake0"].http, "queue", hangs.wait)
        renewed = bridge.fleet._renewed
        await until(lambda: bridge.fleet._renewed > renewed + 0.2)
        assert (await collect(bridge.engine, task(empty_image()))).files
        hangs.set()


async def test_prompts_of_a_dead_replica_are_cancelled_and_those_of_strangers_are_not(fake, build_bridge):
    hang = empty_image() | {"3": {"class_type": "FakeHang", "inputs": {"image": ["1", 0]}}}
    hang["2"] = {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "h"}}
    await post(fake, {"prompt": hang, "client_id": "atelier-someone-dead-3"})
    await post(fake, {"prompt": empty_image(color=1), "client_id": "somebody-else"})
    await post(fake, {"prompt": empty_image(color=2), "client_id": "atelier-someone-dead-3"})
    async with build_bridge(Registry(fake)) as bridge:
        backend = bridge.fleet._backends["fake0"]
        await until(lambda: backend.healthy)
        async with asyncio.timeout(5):
            while True:
                queue = await backend.http.queue()
                if not queue.running and not queue.pending:
                    break
                await asyncio.sleep(0.02)
    assert fake.executions_by_node["EmptyImage"] == 2  # the hanging one's and the stranger's; never the third


async def test_a_backend_that_goes_away_and_comes_back_is_used_again(fake, build_bridge, task):
    async with build_bridge(Registry(fake)) as bridge:
        assert (await collect(bridge.engine, task(text_to_image(), job_id="before"))).files
        await fake.crash()
        await until(lambda: bridge.fleet.size == 0)
        await fake.restart()
        await until(lambda: bridge.fleet.size == 2, 10)
        assert (await collect(bridge.engine, task(text_to_image(), job_id="after"))).files


async def test_a_cancelled_prompt_that_does_not_stop_makes_its_backend_unhealthy(run_fake, build_bridge, task, monkeypatch):
    hang = empty_image() | {"3": {"class_type": "FakeHang", "inputs": {"image": ["1", 0]}}}
    hang["2"] = {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "h"}}
    async with run_fake() as fake, build_bridge(Registry(fake), QUICK.model_copy(update={"interrupt_s": 0.2})) as bridge:
        backend = bridge.fleet._backends["fake0"]
        real = backend.http.cancel
        monkeypatch.setattr(backend.http, "cancel", lambda _: asyncio.sleep(0))  # a node that never looks whether it should stop
        running = asyncio.create_task(collect(bridge.engine, task(hang)))
        await until(lambda: any(watch.current == "3" for watch in backend._watched.values()))
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        assert bridge.fleet.size == 0
        assert "does not stop" in backend.health().reason
        (stuck,) = (await backend.http.queue()).running
        await real(stuck.prompt_id)
        await until(lambda: bridge.fleet.size == 2)


async def test_health_tells_of_a_fake_and_its_version(run_fake, build_bridge):
    registry = Registry()
    async with run_fake(hazards=Hazards(no_jobs_api=True)) as fake:
        registry.specs = Registry(fake).specs
        async with build_bridge(registry):
            await until(lambda: registry.health.get("fake0") and registry.health["fake0"].healthy)
    assert (registry.health["fake0"].fake, registry.health["fake0"].version) == (True, "0.33.0")


async def post(fake, body):
    def send():
        request = urllib.request.Request(f"{fake.url}/prompt", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status

    assert await asyncio.to_thread(send) == 200
