"""The SQL of uploaded workflows: one function a statement, each on a connection that the caller opened."""

from __future__ import annotations

from dataclasses import asdict, replace

import sqlalchemy as sa

from deployments.jobs.errors import WorkflowNotFound
from deployments.jobs.model import StoredWorkflow
from deployments.jobs.tables import WORKFLOWS


def insert_version(connection: sa.Connection, workflow: StoredWorkflow) -> StoredWorkflow:
    """Store a workflow as the next version of its name, and return that; the newest one when it is the same by ``sha256``."""
    newest = _select_newest(connection, workflow.tenant, workflow.name)
    if newest is not None and newest.sha256 == workflow.sha256:
        return newest
    stored = replace(workflow, version=newest.version + 1 if newest else 1)
    connection.execute(WORKFLOWS.insert().values(asdict(stored)))
    return stored


def select_version(connection: sa.Connection, tenant: str, name: str, version: int | None) -> StoredWorkflow:
    """Read a version; ``None`` is the newest.

    Raises:
        WorkflowNotFound: no such workflow or version for this tenant.
    """
    if version is None:
        found = _select_newest(connection, tenant, name)
    else:
        found = _first(connection, sa.select(WORKFLOWS).where(_named(tenant, name), WORKFLOWS.c.version == version))
    if found is None:
        raise WorkflowNotFound(name if version is None else f"{name} in version {version}")
    return found


def select_newest_of_each(connection: sa.Connection, tenant: str) -> tuple[StoredWorkflow, ...]:
    """Read the newest version of each workflow of a tenant, by name."""
    newest = (
        sa.select(WORKFLOWS.c.name, sa.func.max(WORKFLOWS.c.version).label("version"))
        .where(WORKFLOWS.c.tenant == tenant)
        .group_by(WORKFLOWS.c.name)
        .subquery()
    )
    same = sa.and_(WORKFLOWS.c.name == newest.c.name, WORKFLOWS.c.version == newest.c.version)
    rows = connection.execute(sa.select(WORKFLOWS).join(newest, same).where(WORKFLOWS.c.tenant == tenant)).mappings()
    # Sorted here: the databases disagree about upper and lower case.
    return tuple(sorted((StoredWorkflow(**row) for row in rows), key=lambda workflow: workflow.name))


def delete_versions(connection: sa.Connection, tenant: str, name: str) -> None:
    """Remove all versions of a workflow.

    Raises:
        WorkflowNotFound: no such workflow for this tenant.
    """
    if not connection.execute(WORKFLOWS.delete().where(_named(tenant, name))).rowcount:
        raise WorkflowNotFound(name)


def _select_newest(connection: sa.Connection, tenant: str, name: str) -> StoredWorkflow | None:
    return _first(connection, sa.select(WORKFLOWS).where(_named(tenant, name)).order_by(WORKFLOWS.c.version.desc()).limit(1))


def _first(connection: sa.Connection, query: sa.Select[tuple[object, ...]]) -> StoredWorkflow | None:
    row = connection.execute(query).mappings().first()
    return StoredWorkflow(**row) if row else None


def _named(tenant: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(WORKFLOWS.c.tenant == tenant, WORKFLOWS.c.name == name)
