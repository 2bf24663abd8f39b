"""A hundred and fifty workflows over backends with every hazard, which are killed, as is the replica that drives them: each ends once, right."""

from __future__ import annotations

import asyncio

import pytest

from bench.comfy_soak import backends, soak

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

HOST = "127.0.0.2"  # the cluster's allow-list names it; the shared backends listen on 127.0.0.1
TAG = "soak"
JOBS = 150  # every hazard has its turn, and several kills; bench/comfy_soak.py takes as many as it is told
REPLICA = "ray::ServeReplica:atelier:ComfyUI"


@pytest.fixture
def hazardous(api):
    """Backends with every hazard, added at run time and driven by the cluster's bridge."""
    with backends(seed=7, host=HOST) as fakes:
        for n, fake in enumerate(fakes):
            added = api.post("/v1/admin/backends", json={"url": fake.url, "name": f"soak{n}", "tags": [TAG], "in_flight": 2})
            assert added.status_code == 201, added.text
        yield fakes
        for n in range(len(fakes)):
            api.delete(f"/v1/admin/backends/soak{n}")


def test_every_job_ends_once_with_its_own_picture(cluster, hazardous):
    def kill() -> int:
        replicas = len(cluster.pids(REPLICA))
        if replicas:
            cluster.kill(REPLICA)
        return min(replicas, 1)

    tally = asyncio.run(soak(cluster.url, hazardous, kill, JOBS, 7, {"backend_tags": [TAG]}))
    assert tally.wrong == []
    assert (tally.right, dict(tally.statuses)) == (JOBS, {"succeeded": JOBS})
    assert tally.outcomes["succeeded"] == JOBS  # one attempt of each job published its result, whatever became of the others
    assert min(tally.killed["backend"], tally.killed["replica"]) > 0
