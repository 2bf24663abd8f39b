"""The job store's part that forgets."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.jobs import retention_table
from deployments.jobs.database import Database
from deployments.jobs.ports import Metrics
from deployments.jobs.retention import Forgotten


class RetentionShelf:
    """The part of the job store that implements :class:`deployments.jobs.retention.RetentionStore`."""

    _db: Database
    _metrics: Metrics

    async def forget_old(self, jobs_before: float | None, uploads_before: float | None, limit: int) -> Forgotten:
        """See :meth:`deployments.jobs.retention.RetentionStore.forget_old`."""
        gone = await self._db.write(lambda tx: retention_table.forget_old(tx.connection, jobs_before, uploads_before, limit))
        for what, count in (("jobs", gone.jobs), ("files", gone.files), ("bytes", gone.size_bytes)):
            self._metrics.count("retention_removed", count, what=what)
        return gone

    async def left_over(self, limit: int) -> tuple[str, ...]:
        """See :meth:`deployments.jobs.retention.RetentionStore.left_over`."""
        return await self._db.read(lambda c: retention_table.select_left_over(c, limit))

    async def strike_off(self, keys: Sequence[str]) -> None:
        """See :meth:`deployments.jobs.retention.RetentionStore.strike_off`."""
        await self._db.write(lambda tx: retention_table.strike_off(tx.connection, keys))
