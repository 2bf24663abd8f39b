"""Parts of objects in a bucket of Google Cloud Storage: how they are stored, joined, and dropped.

A part is an object of its own below ``parts/<upload id>/``. Which parts there are is asked of the bucket, so any process may go on.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import google_crc32c
from google.api_core.exceptions import NotFound, PreconditionFailed

from deployments.jobs.errors import UploadFailed
from deployments.jobs.ports import PART_BYTES, UploadToken
from deployments.storage.gcs_client import GcsClient

PARTS = "parts"  # folder of the bucket for what is not whole yet
MAX_PARTS = 10_000  # 78 GiB, as with S3
COMPOSED_AT_ONCE = 32  # of GCS
PART_TYPE = "application/octet-stream"
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")
_PART_NAME = re.compile(r"[0-9]{5}")


@dataclass(frozen=True, slots=True)
class Piece:
    """An object below ``parts/``."""

    name: str
    generation: int
    size_bytes: int
    updated: datetime


class GcsParts:
    """What is below ``parts/``."""

    def __init__(self, client: GcsClient, prefix: str) -> None:
        self._client = client
        self._root = f"{prefix}{PARTS}/"

    async def put(self, token: UploadToken, number: int, data: bytes) -> None:
        """Store a part; the same again, or another in its place.

        Raises:
            UploadFailed: it is none, or the store did not take it.
        """
        if not (0 <= number < MAX_PARTS and len(data) <= PART_BYTES):
            raise UploadFailed(
                f"part {number} of {len(data)} bytes is none: at most {MAX_PARTS} parts of {PART_BYTES} bytes make an object"
            )
        name = f"{self._folder(token)}{number:05d}"

        def send(bucket: Any) -> None:  # noqa: ANN401 -- Google's client has no types
            try:
                self._client.upload(bucket.blob(name), data, PART_TYPE, 0)
            except PreconditionFailed:
                found = bucket.get_blob(name, **self._client.patience)
                if found is None or (found.size, found.crc32c) != (len(data), to_base64(google_crc32c.value(data))):
                    self._client.upload(bucket.blob(name), data, PART_TYPE, found.generation if found else 0)

        await self._client.run("stored", send)

    async def find(self, token: UploadToken) -> list[Piece]:
        """Return the parts that have come, in their order."""
        folder = self._folder(token)
        return [piece for piece in await self._list(folder) if _PART_NAME.fullmatch(piece.name.removeprefix(folder))]

    async def join(self, token: UploadToken, pieces: Sequence[Piece]) -> list[Piece]:
        """Join pieces by stages until one call takes what is left."""
        folder, left = self._folder(token), list(pieces)
        while len(left) > COMPOSED_AT_ONCE:
            joins = (partial(self._join, folder=folder, pieces=group) for group in _groups(left))
            left = list(await asyncio.gather(*(self._client.run("completed", join) for join in joins)))
        return left

    async def drop(self, token: UploadToken) -> None:
        """Remove all that an upload has brought."""
        await self.remove(await self._list(self._folder(token)))

    async def sweep(self, before: datetime) -> int:
        """Drop the uploads that nobody has touched since; return how many."""
        uploads: dict[str, list[Piece]] = defaultdict(list)
        for piece in await self._list(self._root):
            uploads[piece.name.rpartition("/")[0]].append(piece)
        stale = [pieces for pieces in uploads.values() if max(piece.updated for piece in pieces) <= before]
        for pieces in stale:
            await self.remove(pieces)
        return len(stale)

    async def sweep_folder(self, folder: str, before: datetime) -> int:
        """Remove the objects of a folder that were written before; return how many."""
        left = [piece for piece in await self._list(folder) if piece.updated <= before]
        await self.remove(left)
        return len(left)

    async def remove(self, pieces: Sequence[Piece]) -> None:
        """Remove objects; one that another has removed or written anew is no error."""

        def remove(bucket: Any, piece: Piece) -> None:  # noqa: ANN401 -- same
            with contextlib.suppress(NotFound, PreconditionFailed):
                bucket.blob(piece.name).delete(if_generation_match=piece.generation, **self._client.patience)

        await asyncio.gather(*(self._client.run("deleted", partial(remove, piece=piece)) for piece in pieces))

    async def _list(self, prefix: str) -> list[Piece]:
        patience = self._client.patience
        return await self._client.run("listed", lambda bucket: [_piece_of(blob) for blob in bucket.list_blobs(prefix=prefix, **patience)])

    def _join(self, bucket: Any, *, folder: str, pieces: Sequence[Piece]) -> Piece:  # noqa: ANN401 -- same
        """Make one of several; the name says of which, so whoever finds it there has the same."""
        made_of = "\n".join(f"{piece.name}#{piece.generation}" for piece in pieces)
        joined = bucket.blob(f"{folder}joined-{hashlib.sha256(made_of.encode()).hexdigest()[:32]}")
        try:
            compose(bucket, joined, pieces, self._client.patience)
        except PreconditionFailed:
            joined.reload(**self._client.patience)
        return _piece_of(joined)

    def _folder(self, token: UploadToken) -> str:
        if not _UPLOAD_ID.fullmatch(token.upload_id):
            raise UploadFailed("the upload token is not of this store: begin the upload again")
        return f"{self._root}{token.upload_id}/"


def compose(bucket: Any, whole: Any, pieces: Sequence[Piece], patience: dict[str, Any]) -> None:  # noqa: ANN401 -- same
    """Make an object of up to 32 others, where there is none and they are what they were."""
    sources = [bucket.blob(piece.name) for piece in pieces]
    generations = [piece.generation for piece in pieces]
    whole.compose(sources, if_generation_match=0, if_source_generation_match=generations, **patience)


def check_parts(found: Sequence[Piece], announced: int) -> int:
    """Return the length of all parts together; each but the last is as long as a part is."""
    numbers = [int(piece.name[-5:]) for piece in found]
    if numbers != list(range(announced)) or not found:
        what = "send the missing ones again" if found else "the upload was aborted or has gone stale, begin again"
        raise UploadFailed(f"{announced} parts were announced, but {len(found)} have come: {what}")
    if any(piece.size_bytes != PART_BYTES for piece in found[:-1]):
        raise UploadFailed("a part came short: upload again")
    return sum(piece.size_bytes for piece in found)


def to_base64(crc32c: int) -> str:
    """Return a CRC32C as the server writes it."""
    return base64.b64encode(crc32c.to_bytes(4, "big")).decode()


def _piece_of(blob: Any) -> Piece:  # noqa: ANN401 -- same
    return Piece(blob.name, int(blob.generation), int(blob.size), blob.updated)


def _groups(pieces: Sequence[Piece]) -> Iterator[Sequence[Piece]]:
    for first in range(0, len(pieces), COMPOSED_AT_ONCE):
        yield pieces[first : first + COMPOSED_AT_ONCE]
