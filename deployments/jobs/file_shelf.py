"""The job store's shelf of published files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deployments.jobs import queries
from deployments.jobs.database import Database
from deployments.jobs.model import FileRecord


class FileShelf:
    """The part of the job store that keeps the records of files; see :class:`deployments.jobs.ports.JobStore`."""

    _db: Database

    async def add_file(self, record: FileRecord) -> FileRecord:
        """See :meth:`deployments.jobs.ports.JobStore.add_file`."""
        await self._db.write(lambda tx: queries.insert_file(tx.connection, record))
        return record

    async def get_file(self, tenant: str, file_id: str) -> FileRecord:
        """See :meth:`deployments.jobs.ports.JobStore.get_file`."""
        return await self._db.read(lambda c: queries.select_file(c, tenant, file_id))

    async def keys_of(self, job_id: str) -> tuple[str, ...]:
        """See :meth:`deployments.jobs.ports.JobStore.keys_of`."""
        return await self._db.read(lambda c: queries.select_keys(c, [job_id]))

    async def find_files(self, tenant: str, names: Sequence[str], *, uploads_first: bool) -> Mapping[str, FileRecord]:
        """See :meth:`deployments.jobs.ports.JobStore.find_files`."""
        return await self._db.read(lambda c: queries.select_files(c, tenant, names, uploads_first=uploads_first))
