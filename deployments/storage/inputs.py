"""A job's inputs as local files: one content-addressed cache on each machine, shared by its worker processes.

::

    <root>/objects/<sha256>     whole files, read-only, only ever put here by a rename
    <root>/urls/<hash of URL>   what a URL held: its SHA-256, and the ETag by which the server is asked whether it still does
    <root>/incoming/            downloads under way
    <root>/locks/<000-fff>      so that two processes do not fetch one thing twice

A job gets a link of its own to each file, in its work folder: the cache may evict whatever it likes whenever it likes, and the bytes go
when the last job that reads them is done. A killed worker leaves no bookkeeping behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from deployments.jobs.errors import FetchFailed, InvalidInput, MediaTypeMismatch, UnsupportedMedia
from deployments.jobs.media_types import SNIFF_BYTES, is_same_type, sniff
from deployments.jobs.model import FileRecord, JsonObject
from deployments.jobs.ports import JobStore, LocalMedia, ObjectReader
from deployments.storage.sources import InputSources
from deployments.storage.sweep import Swept, remove_old

REMEMBERED_S = 7 * 24 * 3600.0  # what a URL held is asked after by its ETag for so long
LOCK_POLL_S = 0.05  # a blocking flock would need a thread that cannot be cancelled


class InputCacheConfig(BaseModel):
    """Where inputs lie on a machine, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path = Field(Path("var/inputs"), description="folder on a disk of this machine")
    max_bytes: int = Field(10 * 2**30, gt=0, description="size above which the files unused for longest are removed")
    url_fresh_s: float = Field(60.0, ge=0, description="a URL is not downloaded again for this long: retries, and many jobs on one target")


class InputCache:
    """Implements :class:`deployments.jobs.ports.InputSource`."""

    def __init__(self, config: InputCacheConfig, *, sources: InputSources, store: JobStore, reader: ObjectReader) -> None:
        self._config = config
        self._sources = sources
        self._store = store
        self._reader = reader
        self._objects, self._urls, self._incoming, self._locks = (config.root / name for name in ("objects", "urls", "incoming", "locks"))
        for folder in (self._objects, self._urls, self._incoming, self._locks):
            folder.mkdir(parents=True, exist_ok=True)

    async def materialise(self, tenant: str, reference: JsonObject, directory: Path) -> LocalMedia:
        """See the port. The file is read-only."""
        if "url" in reference:
            path = await self._from_url(reference["url"], directory)
        elif "key" in reference:
            path = await self._once(reference, directory)
        elif "file_id" in reference:
            path = await self._from_store(await self._store.get_file(tenant, reference["file_id"]), directory)
        else:
            raise InvalidInput("a media reference has a url or a file_id: send one of them")
        media = await asyncio.to_thread(_describe, path)
        declared = reference.get("media_type")
        if declared is not None and not is_same_type(declared, media.media_type):
            raise MediaTypeMismatch(declared, media.media_type)
        return media

    async def _from_url(self, url: str, directory: Path) -> Path:
        # The URL itself is never written down: it may be a signature.
        entry = self._urls / hashlib.sha256(url.encode()).hexdigest()
        async with self._locked(entry.name):
            known = _remembered(entry)
            if known is not None and known.age_s <= self._config.url_fresh_s:
                path = self._hand_out(known.sha256, directory)
                if path is not None:
                    return path
            if known is not None and known.etag and (self._objects / known.sha256).exists():
                fetched = await self._sources.fetch(url, self._incoming, known.etag)
                path = self._hand_out(known.sha256, directory) if fetched is None else None
                if path is not None:
                    entry.touch()
                    return path
            else:
                fetched = None
            if fetched is None:  # nothing is known of it, or what was known has been evicted while the server was asked
                fetched = await self._sources.fetch(url, self._incoming)
            assert fetched is not None, "nothing was said that it could still be"
            path = await asyncio.to_thread(self._keep, fetched.path, fetched.sha256, directory)
            await asyncio.to_thread(_write, entry, f"{fetched.sha256}\n{fetched.etag or ''}")
            return path

    async def _once(self, reference: JsonObject, directory: Path) -> Path:
        """Read an object that no other job will: the store need not be asked for it, and the cache would fill with such ones."""
        path = await self._download(reference["file_id"], reference["key"], reference["sha256"])
        target = directory / str(reference["sha256"])
        await asyncio.to_thread(shutil.move, str(path), str(target))  # the two may lie on different disks
        return target

    async def _from_store(self, record: FileRecord, directory: Path) -> Path:
        async with self._locked(record.sha256):
            path = self._hand_out(record.sha256, directory)
            if path is None:
                downloaded = await self._download(record.id, record.key, record.sha256)
                path = await asyncio.to_thread(self._keep, downloaded, record.sha256, directory)
            return path

    async def _download(self, file_id: str, key: str, sha256: str) -> Path:
        descriptor, name = tempfile.mkstemp(prefix="read-", dir=self._incoming)
        digest, path = hashlib.sha256(), Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                async for chunk in self._reader.read(key):
                    await asyncio.to_thread(file.write, chunk)
                    await asyncio.to_thread(digest.update, chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        if digest.hexdigest() == sha256:
            return path
        path.unlink()
        raise FetchFailed(f"the stored file {file_id} was damaged on the way: try again, then upload it again")

    def _hand_out(self, sha256: str, directory: Path) -> Path | None:
        """Link a cached file into a job's folder and note that it was used; None when it is not here."""
        try:
            os.utime(self._objects / sha256)
            return _link(self._objects / sha256, directory / sha256)
        except FileNotFoundError:
            return None

    def _keep(self, path: Path, sha256: str, directory: Path) -> Path:
        path.chmod(0o444)
        link = _link(path, directory / sha256)  # first: the moment it is in the cache, another process may evict it
        path.replace(self._objects / sha256)
        self._evict()
        return link

    def _evict(self) -> None:
        files = sorted((stat.st_mtime, stat.st_size, path) for path, stat in _files(self._objects))
        coming = sum(stat.st_size for _, stat in _files(self._incoming))  # they take space too, and soon lie here
        excess = sum(size for _, size, _ in files) + coming - self._config.max_bytes
        for _, size, path in files:
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size
        remove_old(self._urls.iterdir(), max(self._config.url_fresh_s, REMEMBERED_S))

    def remove_abandoned(self, max_age_s: float) -> Swept:
        """Remove downloads that nothing has been added to for so long: their processes are gone."""
        return remove_old(self._incoming.iterdir(), max_age_s)

    @contextlib.asynccontextmanager
    async def _locked(self, name: str) -> AsyncIterator[None]:
        # A fixed number of lock files never grows and need never be removed; two names seldom meet in one.
        with (self._locks / hashlib.sha256(name.encode()).hexdigest()[:3]).open("wb") as file:
            while not _try_lock(file.fileno()):  # noqa: ASYNC110 -- the lock is another process's: no event of ours tells
                await asyncio.sleep(LOCK_POLL_S)
            yield  # closing the file unlocks it, also when the process dies


@dataclass(frozen=True, slots=True)
class _Remembered:
    """What a URL held."""

    sha256: str
    etag: str
    age_s: float


def _remembered(entry: Path) -> _Remembered | None:
    try:
        sha256, _, etag = entry.read_text().partition("\n")
        return _Remembered(sha256, etag, time.time() - entry.stat().st_mtime)
    except FileNotFoundError:
        return None


def _describe(path: Path) -> LocalMedia:
    with path.open("rb") as file:
        media_type = sniff(file.read(SNIFF_BYTES))
    if media_type is None:
        raise UnsupportedMedia("the content is of no known media type: send a picture, a video or audio")
    return LocalMedia(path, media_type, path.name, path.stat().st_size)


def _link(source: Path, target: Path) -> Path:
    """Give a file a second name; a copy where the two folders lie on different disks."""
    try:
        target.hardlink_to(source)
    except FileExistsError:
        pass  # one file in two roles of one job
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(source, target)
    return target


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
