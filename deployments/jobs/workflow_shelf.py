"""The job store's shelf of uploaded workflows."""

from __future__ import annotations

from deployments.jobs import workflow_table
from deployments.jobs.database import Database
from deployments.jobs.model import StoredWorkflow


class WorkflowShelf:
    """The part of the job store that implements :class:`deployments.jobs.ports.WorkflowStore`."""

    _db: Database

    async def put_workflow(self, workflow: StoredWorkflow) -> StoredWorkflow:
        """See :meth:`deployments.jobs.ports.WorkflowStore.put_workflow`."""
        return await self._db.write(lambda tx: workflow_table.insert_version(tx.connection, workflow))

    async def get_workflow(self, tenant: str, name: str, version: int | None = None) -> StoredWorkflow:
        """See :meth:`deployments.jobs.ports.WorkflowStore.get_workflow`."""
        return await self._db.read(lambda c: workflow_table.select_version(c, tenant, name, version))

    async def list_workflows(self, tenant: str) -> tuple[StoredWorkflow, ...]:
        """See :meth:`deployments.jobs.ports.WorkflowStore.list_workflows`."""
        return await self._db.read(lambda c: workflow_table.select_newest_of_each(c, tenant))

    async def delete_workflow(self, tenant: str, name: str) -> None:
        """See :meth:`deployments.jobs.ports.WorkflowStore.delete_workflow`."""
        await self._db.write(lambda tx: workflow_table.delete_versions(tx.connection, tenant, name))
