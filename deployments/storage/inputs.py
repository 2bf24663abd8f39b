"""A job's inputs as local files: one content-addressed cache on each machine, shared by its worker processes.

::

    <root>/objects/<sha256>     whole files, read-only, only ever put here by a rename
    <root>/urls/<hash of URL>   what a URL held a moment ago: "<sha256>"
    <root>/incoming/            downloads under way
    <root>/locks/<000-fff>      so that two processes do not fetch one thing twice

A file that was handed out is held: it is not evicted before ``hold_s`` have passed since, which is longer than a job runs. That needs
no bookkeeping which a killed worker could leave behind. Should all files be held, the cache grows over its cap and says so in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from deployments.jobs.errors import FetchFailed, InvalidInput, MediaTypeMismatch, UnsupportedMedia
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.media_types import SNIFF_BYTES, is_same_type, sniff
from deployments.jobs.model import FileRecord, JsonObject
from deployments.jobs.ports import JobStore, LocalMedia, ObjectReader
from deployments.storage.fetch import GuardedFetcher

log = get_logger(__name__)

LOCK_POLL_S = 0.05  # a blocking flock would need a thread that cannot be cancelled


class InputCacheConfig(BaseModel):
    """Where inputs lie on a machine, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path = Field(Path("var/inputs"), description="folder on a disk of this machine")
    max_bytes: int = Field(10 * 2**30, gt=0, description="size above which the files unused for longest are removed")
    hold_s: float = Field(7200.0, ge=0, description="a file handed out is kept for this long: more than a job's timeout_s")
    url_fresh_s: float = Field(60.0, ge=0, description="a URL is not downloaded again for this long: retries, and many jobs on one target")


class InputCache:
    """Implements :class:`deployments.jobs.ports.InputSource`."""

    def __init__(self, config: InputCacheConfig, *, fetcher: GuardedFetcher, store: JobStore, reader: ObjectReader) -> None:
        self._config = config
        self._fetcher = fetcher
        self._store = store
        self._reader = reader
        self._objects, self._urls, self._incoming, self._locks = (config.root / name for name in ("objects", "urls", "incoming", "locks"))
        for folder in (self._objects, self._urls, self._incoming, self._locks):
            folder.mkdir(parents=True, exist_ok=True)

    async def materialise(self, tenant: str, reference: JsonObject) -> LocalMedia:
        """See the port. The file is read-only and stays for ``hold_s``."""
        if "url" in reference:
            sha256 = await self._from_url(reference["url"])
        elif "file_id" in reference:
            sha256 = await self._from_store(await self._store.get_file(tenant, reference["file_id"]))
        else:
            raise InvalidInput("a media reference has a url or a file_id: send one of them")
        media = await asyncio.to_thread(self._describe, sha256)
        declared = reference.get("media_type")
        if declared is not None and not is_same_type(declared, media.media_type):
            raise MediaTypeMismatch(declared, media.media_type)
        return media

    async def _from_url(self, url: str) -> str:
        # The URL itself is never written down: it may be a signature.
        entry = self._urls / hashlib.sha256(url.encode()).hexdigest()
        async with self._locked(entry.name):
            sha256 = self._fresh(entry)
            if sha256 is None:
                fetched = await self._fetcher.fetch(url, self._incoming)
                sha256 = fetched.sha256
                await asyncio.to_thread(self._keep, fetched.path, sha256)
                await asyncio.to_thread(_write, entry, sha256)
            return sha256

    async def _from_store(self, record: FileRecord) -> str:
        async with self._locked(record.sha256):
            if not self._hold(record.sha256):
                path = await self._download(record)
                await asyncio.to_thread(self._keep, path, record.sha256)
        return record.sha256

    async def _download(self, record: FileRecord) -> Path:
        descriptor, name = tempfile.mkstemp(prefix="read-", dir=self._incoming)
        digest, path = hashlib.sha256(), Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                async for chunk in self._reader.read(record.key):
                    await asyncio.to_thread(file.write, chunk)
                    await asyncio.to_thread(digest.update, chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        if digest.hexdigest() == record.sha256:
            return path
        path.unlink()
        raise FetchFailed(f"the stored file {record.id} was damaged on the way: try again, then upload it again")

    def _fresh(self, entry: Path) -> str | None:
        try:
            if time.time() - entry.stat().st_mtime > self._config.url_fresh_s:
                return None
            sha256 = entry.read_text()
        except FileNotFoundError:
            return None
        return sha256 if self._hold(sha256) else None

    def _hold(self, sha256: str) -> bool:
        """Start the time again in which a file is not evicted; False when it is not here."""
        try:
            os.utime(self._objects / sha256)
        except FileNotFoundError:
            return False
        return True

    def _keep(self, path: Path, sha256: str) -> None:
        path.chmod(0o444)
        path.replace(self._objects / sha256)
        self._hold(sha256)
        self._evict()

    def _evict(self) -> None:
        files = sorted((stat.st_mtime, stat.st_size, path) for path, stat in _files(self._objects))
        excess = sum(size for _, size, _ in files) - self._config.max_bytes
        held_since = time.time() - self._config.hold_s
        for used_at, size, path in files:
            if excess <= 0 or used_at > held_since:
                break
            path.unlink(missing_ok=True)
            excess -= size
        for path, stat in (*_files(self._urls), *_files(self._incoming)):  # stale entries, and downloads of killed workers
            if stat.st_mtime < min(held_since, time.time() - self._config.url_fresh_s):
                path.unlink(missing_ok=True)
        if excess > 0:
            log.warning("input cache over its cap", extra=fields(action="input_cache_over_cap", excess_bytes=excess))

    def _describe(self, sha256: str) -> LocalMedia:
        path = self._objects / sha256
        try:
            with path.open("rb") as file:
                media_type = sniff(file.read(SNIFF_BYTES))
        except FileNotFoundError:  # evicted by another process in the moment before it was held
            raise FetchFailed("the input left the cache while it was being read: try again") from None
        if media_type is None:
            raise UnsupportedMedia("the content is of no known media type: send a picture, a video or audio")
        return LocalMedia(path, media_type, sha256, path.stat().st_size)

    @contextlib.asynccontextmanager
    async def _locked(self, name: str) -> AsyncIterator[None]:
        # A fixed number of lock files never grows and need never be removed; two names seldom meet in one.
        with (self._locks / hashlib.sha256(name.encode()).hexdigest()[:3]).open("wb") as file:
            while not _try_lock(file.fileno()):  # noqa: ASYNC110 -- the lock is another process's: no event of ours tells
                await asyncio.sleep(LOCK_POLL_S)
            yield  # closing the file unlocks it, also when the process dies


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _files(folder: Path) -> list[tuple[Path, os.stat_result]]:
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process evicts too
            found.append((path, path.stat()))
    return found


def _write(path: Path, text: str) -> None:
    half = path.with_name(f".{path.name}-{os.getpid()}")
    half.write_text(text)
    half.replace(path)
