"""Uploaded workflows in the job store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest

from deployments.jobs.errors import WorkflowNotFound
from deployments.jobs.model import StoredWorkflow
from deployments.jobs.ports import WorkflowStore
from deployments.jobs.store import SqlJobStore

TENANT = "default"


def workflow(**changes) -> StoredWorkflow:
    values = {
        "tenant": TENANT,
        "name": "portrait",
        "version": 0,
        "graph": {"3": {"class_type": "KSampler", "inputs": {"seed": 2**63, "cfg": 7.5}}},
        "meta": {"title": "Porträt", "tags": ["face"]},
        "sha256": "a" * 64,
        "created_at": 1_800_000_000.25,
    }
    return StoredWorkflow(**(values | changes))


@pytest.fixture
def shelf(store: SqlJobStore) -> WorkflowStore:
    return store


async def test_put_workflow_counts_versions_and_keeps_the_old_ones(shelf):
    first = await shelf.put_workflow(workflow(version=99))
    second = await shelf.put_workflow(workflow(sha256="b" * 64, graph={"1": {}}))
    assert (first, second) == (workflow(version=1), workflow(version=2, sha256="b" * 64, graph={"1": {}}))
    assert await shelf.get_workflow(TENANT, "portrait") == second
    assert await shelf.get_workflow(TENANT, "portrait", 1) == first


async def test_put_workflow_makes_no_version_of_what_is_the_newest(shelf):
    first = await shelf.put_workflow(workflow())
    assert await shelf.put_workflow(workflow(created_at=5.0)) == first
    second = await shelf.put_workflow(workflow(sha256="b" * 64))
    back = await shelf.put_workflow(workflow())  # equals an older one, which does not count any more
    assert (second.version, back.version) == (2, 3)


async def test_workflows_of_a_tenant_are_hidden_from_others(shelf):
    await shelf.put_workflow(workflow())
    elsewhere = await shelf.put_workflow(workflow(tenant="other", sha256="b" * 64))
    assert elsewhere.version == 1
    await shelf.delete_workflow(TENANT, "portrait")
    assert await shelf.list_workflows(TENANT) == ()
    assert await shelf.list_workflows("other") == (elsewhere,)


async def test_list_workflows_gives_the_newest_of_each_by_name(shelf):
    for name in ("b", "a", "C"):
        await shelf.put_workflow(workflow(name=name))
    newest = await shelf.put_workflow(workflow(name="a", sha256="b" * 64))
    assert await shelf.list_workflows(TENANT) == (workflow(name="C", version=1), newest, workflow(name="b", version=1))


async def test_delete_workflow_forgets_every_version(shelf):
    await shelf.put_workflow(workflow())
    await shelf.put_workflow(workflow(sha256="b" * 64))
    await shelf.delete_workflow(TENANT, "portrait")
    for read in (
        shelf.get_workflow(TENANT, "portrait"),
        shelf.get_workflow(TENANT, "portrait", 1),
        shelf.delete_workflow(TENANT, "portrait"),
    ):
        with pytest.raises(WorkflowNotFound):
            await read


async def test_get_workflow_names_the_version_that_is_missing(shelf):
    await shelf.put_workflow(workflow())
    with pytest.raises(WorkflowNotFound, match="portrait in version 7"):
        await shelf.get_workflow(TENANT, "portrait", 7)


async def test_workflows_survive_a_restart(store_config, clock):
    first = SqlJobStore(store_config, clock)
    await first.start()
    stored = await first.put_workflow(workflow())
    await first.close()
    second = SqlJobStore(store_config, clock)
    await second.start()
    assert await second.list_workflows(TENANT) == (stored,)
    await second.close()
