"""Objects in a bucket of Google Cloud Storage.

An object is whole or absent. A small one is put in one request. A larger one comes in parts, each an object of its own below ``parts/``,
which Google joins by ``compose``, 32 in a call and by stages::

    parts/<upload id>/00000         a part
    parts/<upload id>/joined-<…>    up to 32 of them, named by what they are made of
    <key>                           the whole, created only where nothing is

So any process may take any part in any order, and what was begun and not completed is seen by its age. The server compares every upload
with its CRC32C. Every write names the generation that it expects to find (0: nothing), which makes it safe to send again: when the answer
to the first try was lost, the second is told 412, and what is there is compared with what was sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from google.api_core.exceptions import Forbidden, NotFound, PreconditionFailed

from deployments.jobs.errors import Conflict, FileNotFound, Unavailable, UploadFailed
from deployments.jobs.ports import INCOMING, ClientUpload, StoredObject, UploadToken
from deployments.storage.base import CACHED_BY_ANY, CACHED_BY_READER, check_key, uri_of
from deployments.storage.cloud_configs import GcsConfig
from deployments.storage.gcs_client import GcsClient, is_gone
from deployments.storage.gcs_parts import GcsParts, Piece, check_parts, compose
from deployments.storage.gcs_reader import GcsReader

PROVIDER = "gcs"


class GcsStore:
    """Uploader and reader over a bucket."""

    def __init__(self, config: GcsConfig) -> None:
        self._config = config
        self._client = GcsClient(config)
        self._patience = self._client.patience
        self._reader = GcsReader(self._client)
        self._parts = GcsParts(self._client, config.prefix)

    async def check(self, expected: str | None = None) -> str:
        """See :class:`deployments.storage.base.ObjectStore`. The bucket is its own identity."""
        config = self._config
        await self._client.run("read", self._check_region)
        key, mark = f"markers/{uuid.uuid4().hex}", uuid.uuid4().bytes
        await self.put(key, "application/octet-stream", mark, hashlib.sha256(mark).hexdigest())
        found = b"".join([chunk async for chunk in self.read(key)])
        await self.delete(key)
        identity = hashlib.sha256(f"{config.endpoint or 'gcs'} {config.bucket} {config.prefix}".encode()).hexdigest()[:32]
        if found != mark or expected not in {None, identity}:
            raise Unavailable("this machine does not see the bucket of the others: give all machines the same storage settings")
        return identity

    async def begin(self, key: str, media_type: str) -> UploadToken:
        """See the port. Nothing is sent: the upload exists once it has a part."""
        return UploadToken(check_key(key), uuid.uuid4().hex, media_type)

    async def put_part(self, token: UploadToken, number: int, data: bytes) -> None:
        """See the port."""
        await self._parts.put(token, number, data)

    async def complete(self, token: UploadToken, parts: int, sha256: str) -> StoredObject:
        """See the port. Repeated after success it finds the object in place and answers the same."""
        found = await self._parts.find(token)
        try:
            size_bytes = check_parts(found, parts)
        except UploadFailed:
            size_bytes = await self._client.run("read", lambda bucket: self._completed_before(bucket, token.key, sha256))
            if size_bytes < 0:
                raise
        else:
            await self._compose(token, found, size_bytes, sha256)
        with contextlib.suppress(UploadFailed):  # ``sweep`` takes what is left
            await self._parts.drop(token)
        return StoredObject(token.key, uri_of(PROVIDER, token.key), size_bytes, sha256)

    async def put(self, key: str, media_type: str, data: bytes, sha256: str) -> StoredObject:
        """See the port. What is there already stays: with the same content this is success, with another it is refused.

        Raises:
            Conflict: the key has other content.
        """
        if hashlib.sha256(data).hexdigest() != sha256:
            raise UploadFailed("the bytes do not have the announced sha256: upload again")
        name = self._name(key)

        def put(bucket: Any) -> bool:  # noqa: ANN401 -- same
            blob = bucket.blob(name)
            blob.metadata, blob.cache_control = {"sha256": sha256}, CACHED_BY_ANY
            try:
                self._client.upload(blob, data, media_type, 0)
            except PreconditionFailed:
                self._check_same(bucket, key, len(data), sha256)
                return False
            return True

        created = await self._client.run("stored", put)
        return StoredObject(key, uri_of(PROVIDER, key), len(data), sha256, created)

    async def abort(self, token: UploadToken) -> None:
        """See the port."""
        await self._parts.drop(token)

    async def delete(self, key: str) -> None:
        """See the port."""
        name = self._name(key)

        def delete(bucket: Any) -> None:  # noqa: ANN401 -- same
            blob = bucket.blob(name)
            try:
                blob.reload(**self._patience)
                blob.delete(if_generation_match=blob.generation, **self._patience)
            except NotFound as error:
                if not is_gone(error):
                    raise

        await self._client.run("deleted", delete)

    async def open_to_client(self, key: str, media_type: str, size_bytes: int, seconds: int) -> ClientUpload:
        """See the port: a signed PUT of just that length. A browser's page needs a CORS rule of the bucket that allows it."""
        length = {"x-goog-content-length-range": f"{size_bytes},{size_bytes}"}
        url = await self._client.sign(self._name(key), "PUT", seconds, content_type=media_type, headers=length)
        return ClientUpload(url, {"Content-Type": media_type, **length})

    async def copy(self, source: str, target: str, media_type: str) -> None:
        """See the port. What is there already stays, as with ``put``.

        Raises:
            Conflict: the target has other content.
        """
        name = self._name(target)

        def copy(bucket: Any) -> None:  # noqa: ANN401 -- same
            found, made = bucket.blob(self._name(source)), bucket.blob(name)
            made.content_type, made.cache_control = media_type, CACHED_BY_ANY
            token, first = None, True
            try:
                found.reload(**self._patience)
                made.metadata = found.metadata
                while first or token is not None:  # a large object, or one that goes to another place, takes several calls
                    token, _, _ = made.rewrite(
                        found, token, if_generation_match=0, if_source_generation_match=found.generation, **self._patience
                    )
                    first = False
            except NotFound as error:
                if is_gone(error):
                    raise FileNotFound(source) from None
                raise
            except PreconditionFailed:
                there = bucket.get_blob(name, **self._patience)
                if there is not None and (there.size, there.crc32c) != (found.size, found.crc32c):
                    raise Conflict(f"{target} is stored already, with other content, and stays: choose another name") from None
                if there is None:
                    raise

        await self._client.run("copied", copy)

    async def size(self, key: str) -> int:
        """See :class:`deployments.jobs.ports.ObjectReader`."""
        return (await self._reader.head(self._name(key), key)).size_bytes

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """See :class:`deployments.jobs.ports.ObjectReader` and :meth:`GcsReader.read`."""
        async with contextlib.aclosing(self._reader.read(self._name(key), key, start, end)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def link(self, key: str, seconds: int, media_type: str, disposition: str) -> str:
        """See :class:`deployments.jobs.ports.ObjectReader`: a signed GET, made here and not asked for."""
        return await self._client.sign(
            self._name(key),
            "GET",
            seconds,
            response_type=media_type,
            response_disposition=disposition,
            query_parameters={"response-cache-control": CACHED_BY_READER},
        )

    async def sweep(self, older_than_s: float) -> int:
        """See :class:`deployments.storage.base.ObjectStore`."""
        before = datetime.now(UTC) - timedelta(seconds=older_than_s)
        incoming = f"{self._config.prefix}{INCOMING}/"  # sent by clients that did not complete it
        return await self._parts.sweep(before) + await self._parts.sweep_folder(incoming, before)

    async def _compose(self, token: UploadToken, parts: Sequence[Piece], size_bytes: int, sha256: str) -> None:
        pieces = await self._parts.join(token, parts)

        def publish(bucket: Any) -> None:  # noqa: ANN401 -- same
            whole = bucket.blob(self._name(token.key))
            whole.content_type, whole.cache_control = token.media_type, CACHED_BY_ANY
            whole.metadata = {"sha256": sha256}
            try:
                compose(bucket, whole, pieces, self._patience)
            except (PreconditionFailed, NotFound) as error:  # another call was faster, and may have removed the parts
                if isinstance(error, NotFound) and not is_gone(error):
                    raise
                self._check_same(bucket, token.key, size_bytes, sha256)

        await self._client.run("completed", publish)

    def _completed_before(self, bucket: Any, key: str, sha256: str) -> int:  # noqa: ANN401 -- same
        """Return the length of the object that an earlier call has completed, -1 where there is none."""
        found = bucket.get_blob(self._name(key), **self._patience)
        return int(found.size) if found is not None and _sha256_of(found) == sha256 else -1

    def _check_same(self, bucket: Any, key: str, size_bytes: int, sha256: str) -> None:  # noqa: ANN401 -- same
        found = bucket.get_blob(self._name(key), **self._patience)
        if found is None:
            raise UploadFailed(f"{key} or a part of it was removed while it was stored: upload again")
        if (found.size, _sha256_of(found)) != (size_bytes, sha256):
            raise Conflict(f"{key} is stored already, with other content, and stays: choose another name")

    def _check_region(self, bucket: Any) -> None:  # noqa: ANN401 -- same
        wanted = self._config.region
        if wanted is None:
            return
        try:
            bucket.reload(**self._patience)
        except Forbidden:  # an account that may use objects alone is enough, and then nobody tells where the bucket is
            return
        places = {place.lower() for place in (bucket.location, *(bucket.data_locations or ())) if place}
        if places and wanted.lower() not in places:
            there = ", ".join(sorted(places))
            raise Unavailable(f"the bucket {bucket.name} is in {there}, not in {wanted}: correct GCS_BUCKET_REGION or GCS_BUCKET_NAME")

    def _name(self, key: str) -> str:
        return self._config.prefix + check_key(key)


def _sha256_of(blob: Any) -> str | None:  # noqa: ANN401 -- same
    return (blob.metadata or {}).get("sha256")
