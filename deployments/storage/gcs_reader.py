"""Reading objects of one bucket of Google Cloud Storage: ours, or one that jobs name as ``gs://bucket/name``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import google_crc32c
from google.api_core.exceptions import NotFound

from deployments.jobs.errors import FileNotFound, Unavailable
from deployments.storage.base import Head
from deployments.storage.gcs_client import GcsClient, is_gone
from deployments.storage.gcs_parts import to_base64

READ_BYTES = 4 << 20  # of one request


class GcsReader:
    """Reads by whole names, whatever characters they are of; ``shown`` is what errors call the object."""

    def __init__(self, client: GcsClient) -> None:
        self._client = client

    async def head(self, name: str, shown: str) -> Head:
        """Look at an object; its generation is its ETag.

        Raises:
            FileNotFound: there is none.
            UploadFailed: the bucket is away, refuses, or is not set up.
        """
        found = await self._stat(name, shown)
        return Head(int(found.size), str(found.generation))

    async def read(self, name: str, shown: str, start: int, end: int | None, etag: str | None = None) -> AsyncGenerator[bytes, None]:
        """Yield up to 4 MiB at a time. What is read whole is compared with the server's CRC32C.

        A connection that breaks is taken up where it broke. An object that is replaced meanwhile is an error, and never a mixture.

        Args:
            name: of the object.
            shown: for errors.
            start: first byte.
            end: behind the last one; None: to the end.
            etag: generation that is meant.

        Raises:
            FileNotFound: there is none.
            Unavailable: it came damaged, or has changed.
        """
        found = await self._stat(name, shown)
        if etag is not None and etag != str(found.generation):
            raise Unavailable(f"{shown} was changed before it was read: try again")
        last = found.size if end is None else min(end, found.size)
        crc32c, at = 0, start
        while at < last:
            chunk = await self._client.run("read", partial(self._download, found, at, min(at + READ_BYTES, last)))
            crc32c = google_crc32c.extend(crc32c, chunk)
            at += len(chunk)
            yield chunk
        if start == 0 and last == found.size and to_base64(crc32c) != found.crc32c:
            raise Unavailable(f"the bytes of {shown} came damaged: read them again")

    def _download(self, found: Any, start: int, end: int, bucket: Any) -> bytes:  # noqa: ANN401 -- Google's client has no types
        blob = bucket.blob(found.name)
        try:
            chunk = blob.download_as_bytes(
                start=start, end=end - 1, raw_download=True, checksum=None, if_generation_match=found.generation, **self._client.patience
            )
        except NotFound as error:
            if is_gone(error):
                raise Unavailable(f"{found.name} was removed while it was read") from None
            raise
        if len(chunk) != end - start:
            raise Unavailable(f"the store answers {len(chunk)} bytes of {found.name} where {end - start} were asked for")
        return bytes(chunk)

    async def _stat(self, name: str, shown: str) -> Any:  # noqa: ANN401 -- same
        def stat(bucket: Any) -> Any:  # noqa: ANN401 -- same
            blob = bucket.blob(name)
            try:
                blob.reload(**self._client.patience)
            except NotFound as error:
                if is_gone(error):
                    raise FileNotFound(shown) from None
                raise
            return blob

        return await self._client.run("read", stat)
