"""What all servers say, joined; of those that are away nothing but that."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from deployments.comfyui_bridge import servers as servers_module
from deployments.comfyui_bridge.servers import DEVICE_KEYS, SYSTEM_KEYS, ComfyServers
from deployments.comfyui_client.config import ClientConfig
from deployments.jobs.errors import BackendUnavailable
from deployments.jobs.model import BackendHealth, BackendSpec, BackendState

AWAY = "http://127.0.0.1:9"


def state(name, url=AWAY, *, healthy=False, owner="replica-1", unhealthy_s=60.0, version="0.33.0"):
    health = BackendHealth(healthy, version=version) if owner else None
    return BackendState(BackendSpec(name, url), False, owner, health, 0.0 if healthy else unhealthy_s)


def asked(*states, starts_own=False):
    async def backends():
        return states

    return ComfyServers(SimpleNamespace(backends=backends), ClientConfig(), starts_own=starts_own)


async def test_system_stats_show_the_machine_and_nothing_else(fake):
    stats, away = await asked(state("a", fake.url, healthy=True), state("b")).system_stats()
    assert (stats.name, stats.healthy, stats.error) == ("a", True, None)
    assert stats.system.keys() <= set(SYSTEM_KEYS)
    assert {"os", "comfyui_version"} <= stats.system.keys()
    assert all(device.keys() <= set(DEVICE_KEYS) for device in stats.devices)
    assert (away.name, away.healthy, away.system, away.devices, away.error) == ("b", False, {}, (), "does not answer")


async def test_models_are_those_of_all_servers(run_fake):
    async with run_fake(checkpoints=("one.safetensors",)) as one, run_fake(checkpoints=("two.safetensors", "one.safetensors")) as two:
        servers = asked(state("a", one.url), state("b", two.url), state("c"))
        assert "checkpoints" in await servers.model_folders()
        assert await servers.models("checkpoints") == ("one.safetensors", "two.safetensors")
        assert await servers.embeddings() == ()


@pytest.mark.parametrize("folder", ["unknown", "", "..", "../system_stats", "checkpoints/.."])
async def test_a_folder_that_no_server_names_is_not_asked_for(fake, folder):
    assert await asked(state("a", fake.url)).models(folder) is None


async def test_object_info_is_that_of_a_healthy_server(run_fake):
    async with run_fake(checkpoints=("one.safetensors",)) as one, run_fake(checkpoints=("two.safetensors",)) as two:
        found = await asked(state("a", one.url), state("b", two.url, healthy=True)).object_info()
        assert found["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0] == ["two.safetensors"]
        assert "KSampler" in await asked(state("a"), state("b", one.url)).object_info()


async def test_free_is_told_to_all(fake):
    assert await asked(state("a", fake.url), state("b")).free(unload_models=True, free_memory=True) == 1


@pytest.mark.parametrize("states", [(), (state("a"),)], ids=["none", "away"])
@pytest.mark.parametrize(
    "question",
    [
        lambda s: s.model_folders(),
        lambda s: s.models("x"),
        lambda s: s.embeddings(),
        lambda s: s.object_info(),
        lambda s: s.free(unload_models=True, free_memory=False),
    ],
)
async def test_without_an_answer_the_caller_is_told(states, question):
    with pytest.raises(BackendUnavailable, match="no ComfyUI server answers now"):
        await question(asked(*states))


@pytest.mark.parametrize(
    ("states", "starts_own", "reachable"),
    [
        ((), False, False),
        ((), True, True),
        ((state("a", healthy=True), state("b")), False, True),
        ((state("a", unhealthy_s=9.9),), False, True),
        ((state("a", unhealthy_s=10.0), state("b")), False, False),
        ((state("a", owner=None),), False, False),
    ],
)
async def test_reachable_is_patient(monkeypatch, states, starts_own, reachable):
    monkeypatch.setattr(servers_module, "PROBE_S", 0.5)
    assert await asked(*states, starts_own=starts_own).reachable(10.0) is reachable


async def test_reachable_asks_a_server_that_nobody_has_looked_at(fake):
    assert await asked(state("a", fake.url, owner=None)).reachable(10.0)
    assert await asked(state("a", fake.url, version=None)).reachable(10.0)  # its driver has just begun
    assert not await asked(state("a", fake.url)).reachable(10.0)  # its driver finds it broken: that counts
