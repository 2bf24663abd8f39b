"""Uploads that go from the client to the object store, past this service: large ones cost it neither time nor traffic.

The client is given a place of its own, to which it may write for a while. What lies there is copied to where nobody but us writes, looked
at, hashed and only then published: whatever the client sends afterwards changes nothing.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass

from deployments.jobs.errors import FileNotFound, InvalidInput, MediaTooLarge, NotFound
from deployments.jobs.intake import IntakeLimits, check_declared, to_display_name, type_of
from deployments.jobs.media_types import SNIFF_BYTES
from deployments.jobs.model import FileRecord
from deployments.jobs.options import UUID
from deployments.jobs.ports import INCOMING, ClientUpload, Clock, JobStore, ObjectReader, Uploader

OPEN_S = 3600  # two gigabytes take a quarter of it over 20 Mbit/s


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """What a client needs to send a file."""

    upload_id: str
    request: ClientUpload
    expires_at: float


class DirectUploads:
    """Opens them and takes what has come."""

    def __init__(self, store: JobStore, uploader: Uploader, reader: ObjectReader, limits: IntakeLimits, clock: Clock) -> None:
        self._store = store
        self._uploader = uploader
        self._reader = reader
        self._limits = limits
        self._clock = clock

    async def open(self, tenant: str, media_type: str, size_bytes: int) -> OpenUpload:
        """Give a client a place to write to.

        Raises:
            MediaTooLarge: it wants to send more than ``IntakeLimits.upload_bytes``.
            NotFound: the object store takes nothing from clients.
        """
        self._check_size(size_bytes)
        upload_id, opened_at = str(uuid.uuid4()), self._clock.time()
        request = await self._uploader.open_to_client(_incoming(tenant, upload_id), media_type, size_bytes, OPEN_S)
        if request is None:
            raise NotFound("the object store of this installation takes no uploads from clients: send the file to POST /v1/files")
        return OpenUpload(upload_id, request, opened_at + OPEN_S)

    async def complete(self, tenant: str, upload_id: str, name: str, declared: str | None = None) -> FileRecord:
        """Publish what has been sent. Repeated after success it answers the same.

        Args:
            tenant: whose upload.
            upload_id: as :meth:`open` gave it; becomes the file's id.
            name: as the client calls the file.
            declared: media type that the client claims, if any.

        Raises:
            FileNotFound: nothing has come.
            UnsupportedMedia: it is of no type that we know, and so on, as :meth:`MediaIntake.store_file` says.
        """
        if UUID.fullmatch(upload_id) is None:
            raise FileNotFound(upload_id)
        try:
            return await self._store.get_file(tenant, upload_id)
        except FileNotFound:
            pass
        there, key = _incoming(tenant, upload_id), f"uploads/{tenant}/{upload_id}"
        self._check_size(await self._reader.size(there))
        media_type = type_of(await self._head(there))
        check_declared(declared, media_type)
        await self._uploader.copy(there, key, media_type)
        try:
            size_bytes, sha256 = await self._hash(key, media_type)
        except BaseException:
            await self._uploader.delete(key)
            raise
        record = FileRecord(upload_id, tenant, key, to_display_name(name), media_type, size_bytes, sha256, self._clock.time())
        record = await self._store.add_file(record)
        await self._uploader.delete(there)
        return record

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._limits.upload_bytes:
            raise MediaTooLarge(f"a file may have {self._limits.upload_bytes} bytes")

    async def _head(self, key: str) -> bytes:
        return b"".join([chunk async for chunk in self._reader.read(key, 0, min(SNIFF_BYTES, await self._reader.size(key)))])

    async def _hash(self, key: str, media_type: str) -> tuple[int, str]:
        """Return length and SHA-256 of the copy, which may be of something newer than what was looked at."""
        if type_of(await self._head(key)) != media_type:
            raise InvalidInput("the upload was changed while it was completed: send it again")
        digest, size_bytes = hashlib.sha256(), 0
        async for chunk in self._reader.read(key):
            digest.update(chunk)
            size_bytes += len(chunk)
            self._check_size(size_bytes)
        return size_bytes, digest.hexdigest()


def _incoming(tenant: str, upload_id: str) -> str:
    return f"{INCOMING}/{tenant}/{upload_id}"
