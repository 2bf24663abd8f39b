"""Sending a file or a stream to an Uploader: parts of one size, a few in flight, each part repeated until it is in."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import stamina

from deployments.jobs.errors import ServiceError, Unavailable, UploadFailed
from deployments.jobs.ports import PART_BYTES, StoredObject, Uploader, UploadToken

PARTS_IN_FLIGHT = 4  # 32 MiB of memory an upload; more would not be faster than one disk or one cloud connection
ATTEMPTS = 6  # with pauses of 0.1, 0.2, 0.4 ... s and jitter: an uploader replica is replaced within seconds
GIVE_UP_AFTER_S = 60.0
FIRST_PAUSE_S = 0.1

T = TypeVar("T")


async def upload_file(uploader: Uploader, path: Path, key: str, media_type: str) -> StoredObject:
    """Store a file under a key, hashed on the way.

    Raises:
        Unavailable: a part or the end could not be stored within a minute; nothing appears under the key. A small file may, when the
            store did it and its answers were lost: nobody knows then whose it is, so it is left.
    """
    if path.stat().st_size <= PART_BYTES:  # most results are small: one call instead of three
        data = await asyncio.to_thread(path.read_bytes)
        sha256 = (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()
        return await _put(uploader, key, media_type, data, sha256)
    return await _upload(uploader, _file_parts(path), key, media_type)


async def upload_stream(uploader: Uploader, chunks: AsyncIterator[bytes], key: str, media_type: str) -> StoredObject:
    """Store a stream of chunks of any size, never holding more than ``PARTS_IN_FLIGHT`` + 1 parts.

    What the stream raises (a client that went away, a limit) ends the upload and is passed on.

    Raises:
        Unavailable: see ``upload_file``.
    """
    return await _upload(uploader, _equal_parts(chunks), key, media_type)


async def _put(uploader: Uploader, key: str, media_type: str, data: bytes, sha256: str) -> StoredObject:
    """Store a small object. Who is cancelled waits for the answer on its way: only that says whether there is something to take back."""
    sending = asyncio.create_task(_persist(partial(uploader.put, key, media_type, data, sha256)))
    try:
        return await asyncio.shield(sending)
    except asyncio.CancelledError:
        with contextlib.suppress(ServiceError):
            if (await sending).created:
                await uploader.delete(key)
        raise


async def _upload(uploader: Uploader, parts: AsyncIterator[bytes], key: str, media_type: str) -> StoredObject:
    token = await _persist(partial(uploader.begin, key, media_type))
    try:
        count, sha256 = await _send(uploader, token, parts)
        return await _persist(partial(uploader.complete, token, count, sha256))
    except BaseException:
        with contextlib.suppress(Unavailable):  # the store's sweep takes what is left
            await asyncio.shield(uploader.abort(token))
        raise


async def _send(uploader: Uploader, token: UploadToken, parts: AsyncIterator[bytes]) -> tuple[int, str]:
    digest, count = hashlib.sha256(), 0
    in_flight: set[asyncio.Task[None]] = set()
    try:
        async for data in parts:
            if len(in_flight) == PARTS_IN_FLIGHT:
                in_flight = await _one_less(in_flight)
            in_flight.add(asyncio.create_task(_persist(partial(uploader.put_part, token, count, data))))
            await asyncio.to_thread(digest.update, data)
            count += 1
        while in_flight:
            in_flight = await _one_less(in_flight)
    finally:
        for task in in_flight:
            task.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)
    return count, digest.hexdigest()


async def _one_less(in_flight: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    done, pending = await asyncio.wait(in_flight, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return pending


async def _persist(call: Callable[[], Awaitable[T]]) -> T:
    async for attempt in stamina.retry_context(on=_pause, attempts=ATTEMPTS, timeout=GIVE_UP_AFTER_S, wait_initial=FIRST_PAUSE_S):
        with attempt:
            return await call()
    raise AssertionError("stamina ends by raising the last error")


def _pause(error: Exception) -> bool | float:
    """Say whether a call is made again, and after how many seconds where the store has named a time that is worth waiting for."""
    if not isinstance(error, Unavailable):
        return False
    asked_s = error.retry_after_s if isinstance(error, UploadFailed) else None
    if asked_s is None:
        return True
    return False if asked_s >= GIVE_UP_AFTER_S else max(asked_s, FIRST_PAUSE_S)


async def _file_parts(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        data = await asyncio.to_thread(file.read, PART_BYTES)
        yield data  # also of an empty file: every object has a part
        while len(data) == PART_BYTES:
            data = await asyncio.to_thread(file.read, PART_BYTES)
            if data:
                yield data


async def _equal_parts(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    buffer = bytearray()
    first = True
    async for chunk in chunks:
        buffer += chunk
        while len(buffer) >= PART_BYTES:
            yield bytes(buffer[:PART_BYTES])
            del buffer[:PART_BYTES]
            first = False
    if buffer or first:
        yield bytes(buffer)
