"""The SQL of the ComfyUI backends: the whole table is read, and what changed in it is written."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from deployments.jobs.backend_leases import BackendRow, Rows
from deployments.jobs.model import BackendSpec
from deployments.jobs.tables import COMFY_BACKENDS


def select_backends(connection: sa.Connection) -> Rows:
    """Read all backends: a few dozen at most."""
    return {row["name"]: _backend_of_row(row) for row in connection.execute(sa.select(COMFY_BACKENDS)).mappings()}


def update_backends(connection: sa.Connection, before: Rows, after: Rows) -> None:
    """Write what changed."""
    gone = [name for name, row in before.items() if after.get(name) != row]
    fresh = [_row_of_backend(row) for name, row in after.items() if before.get(name) != row]
    # Removed and put back, never updated: two backends may have changed URLs with each other, which are unique.
    if gone:
        connection.execute(COMFY_BACKENDS.delete().where(COMFY_BACKENDS.c.name.in_(gone)))
    if fresh:
        connection.execute(COMFY_BACKENDS.insert(), fresh)


def _row_of_backend(row: BackendRow) -> dict[str, Any]:
    return asdict(row.spec) | {
        "tags": list(row.spec.tags),
        "draining": row.draining,
        "owner": row.owner,
        "lease_until": row.lease_until,
    }


def _backend_of_row(row: sa.RowMapping) -> BackendRow:
    spec = BackendSpec(
        name=row["name"],
        url=row["url"],
        tags=tuple(row["tags"]),
        weight=row["weight"],
        in_flight=row["in_flight"],
        configured=row["configured"],
    )
    return BackendRow(spec, row["draining"], row["owner"], row["lease_until"])
