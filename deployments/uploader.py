"""The box that puts bytes into the object store. Any replica takes any part of any upload: all state is in the token."""

from __future__ import annotations

import asyncio
import contextlib

from deployments.jobs.errors import ServiceError
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.ports import ClientUpload, StoredObject, UploadToken
from deployments.storage.factory import StorageConfig, build_object_store

log = get_logger(__name__)

SWEEP_PERIOD_S = 3600.0
ABANDONED_AFTER_S = 24 * 3600.0  # longer than any upload: a part that old belongs to a worker or client that is gone


class Uploader:
    """Serves :class:`deployments.jobs.ports.Uploader` to the ingress and to the workers."""

    def __init__(self, config: StorageConfig) -> None:
        self._store = build_object_store(config)
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep_forever())

    async def __del__(self) -> None:  # Serve awaits it when it stops the replica
        self._sweeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._sweeper

    async def identity(self) -> str:
        """Write a marker, read it back, and say which store this is: a machine that sees another one must not start."""
        return await self._store.check()

    async def begin(self, key: str, media_type: str) -> UploadToken:
        """See the port."""
        return await self._store.begin(key, media_type)

    async def put_part(self, token: UploadToken, number: int, data: bytes) -> None:
        """See the port."""
        await self._store.put_part(token, number, data)

    async def complete(self, token: UploadToken, parts: int, sha256: str) -> StoredObject:
        """See the port."""
        return await self._store.complete(token, parts, sha256)

    async def put(self, key: str, media_type: str, data: bytes, sha256: str) -> StoredObject:
        """See the port."""
        return await self._store.put(key, media_type, data, sha256)

    async def abort(self, token: UploadToken) -> None:
        """See the port."""
        await self._store.abort(token)

    async def delete(self, key: str) -> None:
        """See the port."""
        await self._store.delete(key)

    async def open_to_client(self, key: str, media_type: str, size_bytes: int, seconds: int) -> ClientUpload | None:
        """See the port."""
        return await self._store.open_to_client(key, media_type, size_bytes, seconds)

    async def copy(self, source: str, target: str, media_type: str) -> None:
        """See the port."""
        await self._store.copy(source, target, media_type)

    async def _sweep_forever(self) -> None:
        while True:
            try:
                dropped = await self._store.sweep(ABANDONED_AFTER_S)
                log.info("abandoned uploads dropped", extra=fields(action="uploads_swept", dropped=dropped))
            except ServiceError as error:
                log.warning("sweep failed", extra=fields(action="uploads_sweep_failed", reason=str(error)))
            await asyncio.sleep(SWEEP_PERIOD_S)
