"""A bridge over fake backends: the real engine, fleet and client, and a registry that says what the test says."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest

from deployments.comfyui_bridge.config import ComfyConfig
from deployments.comfyui_bridge.engine import BridgeEngine
from deployments.comfyui_bridge.fleet import Fleet
from deployments.comfyui_bridge.stored_spec import StoredSpec
from deployments.engines.media.limits import MediaLimits
from deployments.fake_comfyui.config import FakeConfig
from deployments.fake_comfyui.server import FakeComfyUI
from deployments.jobs.ports import EngineTask
from deployments.jobs.spec import ComfyOptions

QUICK = ComfyConfig(hold_s=0.05, poll_s=0.05, watchdog_s=1.0, settle_s=0.1, unreachable_s=0.3, interrupt_s=2.0, choose_s=2.0, stuck_s=0.5)


@pytest.fixture
def run_fake():
    """Start fake backends for one test."""

    @contextlib.asynccontextmanager
    async def start(**options):
        async with FakeComfyUI(FakeConfig(**({"step_s": 0.01} | options))) as fake:
            yield fake

    return start


@pytest.fixture
async def fake(run_fake):
    async with run_fake() as fake:
        yield fake


@pytest.fixture
def build_bridge():
    """An engine over a fleet of fakes."""

    @contextlib.asynccontextmanager
    async def build(registry, config=QUICK):
        fleet = Fleet(registry, "replica-1", config, lease_s=15)
        fleet.start()
        try:
            (await fleet.take()).give_back()  # there is a healthy backend
            yield SimpleNamespace(engine=BridgeEngine(fleet, config, MediaLimits()), fleet=fleet)
        finally:
            await fleet.close()

    return build


@pytest.fixture
def task(tmp_path):
    def make(graph, *, job_id="job", attempt=1, inputs=None, outputs=None, choices_open=(), media=None, **options):
        spec = StoredSpec(
            graph=graph, outputs=outputs, choices_open=choices_open, media=media or {}, options=ComfyOptions(**options)
        ).model_dump(mode="json", exclude_none=True)
        folder = tmp_path / f"{job_id}-{attempt}"
        folder.mkdir(exist_ok=True)
        return EngineTask(spec, inputs or {}, folder, job_id, attempt, "default")

    return make
