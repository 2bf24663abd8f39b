"""Objects as files in one folder that every machine of the cluster sees.

::

    <root>/store-id                          the folder's identity, written once
    <root>/objects/<key>                     whole objects, only ever put here by a rename
    <root>/uploads/<upload id>/part-00000    parts of open uploads

Everything is written under another name, flushed to the disk (file, then folder) and renamed: after a power cut an object is whole
or absent. All state of an upload is in this folder, so any process may take any part.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from deployments.jobs.errors import FileNotFound, Unavailable, UploadFailed
from deployments.jobs.ports import PART_BYTES, StoredObject, UploadToken
from deployments.storage.base import check_key, uri_of

PROVIDER = "local"
READ_BYTES = 1 << 20
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")


class LocalStore:
    """Uploader and reader over a folder. File work runs in threads, never on the event loop."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._objects = self._root / "objects"
        self._uploads = self._root / "uploads"

    async def check(self, expected: str | None = None) -> str:
        """See :class:`deployments.storage.base.ObjectStore`."""
        return await asyncio.to_thread(self._check, expected)

    async def begin(self, key: str, media_type: str) -> UploadToken:
        """See the port. A repeated call opens another upload; ``sweep`` drops the one that nobody completes."""
        token = UploadToken(check_key(key), uuid.uuid4().hex, media_type)
        with _reported("opened"):
            await asyncio.to_thread(_make_folder, self._upload_folder(token), self._root)
        return token

    async def put_part(self, token: UploadToken, number: int, data: bytes) -> None:
        """See the port."""
        if not (0 <= number < 100_000 and len(data) <= PART_BYTES):
            raise UploadFailed(f"part {number} of {len(data)} bytes is none: parts count from 0 and hold at most {PART_BYTES} bytes")
        with _reported("written"):
            await asyncio.to_thread(_write_durably, self._upload_folder(token) / _part_name(number), data)

    async def complete(self, token: UploadToken, parts: int, sha256: str) -> StoredObject:
        """See the port. Repeated after success it finds the object in place and answers the same."""
        with _reported("completed"):
            return await asyncio.to_thread(self._complete, token, parts, sha256)

    async def put(self, key: str, media_type: str, data: bytes, sha256: str) -> StoredObject:
        """See the port."""
        del media_type  # a file has none
        with _reported("stored"):
            return await asyncio.to_thread(self._put, key, data, sha256)

    async def abort(self, token: UploadToken) -> None:
        """See the port."""
        await asyncio.to_thread(shutil.rmtree, self._upload_folder(token), ignore_errors=True)

    async def delete(self, key: str) -> None:
        """See the port."""
        with _reported("deleted"):
            await asyncio.to_thread(self._delete, self._path(key))

    async def open_to_client(self, key: str, media_type: str, size_bytes: int, seconds: int) -> None:
        """See the port: nobody but us writes to a folder."""

    async def copy(self, source: str, target: str, media_type: str) -> None:
        """See the port."""
        del media_type  # a file has none
        with _reported("copied"):
            await asyncio.to_thread(self._copy, source, self._path(target))

    async def size(self, key: str) -> int:
        """See :class:`deployments.jobs.ports.ObjectReader`."""
        try:
            return (await asyncio.to_thread(self._path(key).stat)).st_size
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFound(key) from None

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """See :class:`deployments.jobs.ports.ObjectReader`; yields up to 1 MiB at a time."""
        try:
            file = await asyncio.to_thread(self._path(key).open, "rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise FileNotFound(key) from None
        with file:
            file.seek(start)
            left = None if end is None else end - start
            while left is None or left > 0:
                chunk = await asyncio.to_thread(file.read, READ_BYTES if left is None else min(READ_BYTES, left))
                if not chunk:
                    return
                left = None if left is None else left - len(chunk)
                yield chunk

    async def link(self, key: str, seconds: int, media_type: str, disposition: str) -> None:
        """See :class:`deployments.jobs.ports.ObjectReader`: a folder has no address of its own."""

    async def sweep(self, older_than_s: float) -> int:
        """See :class:`deployments.storage.base.ObjectStore`."""
        return await asyncio.to_thread(self._sweep, time.time() - older_than_s)

    def _path(self, key: str) -> Path:
        return self._objects / check_key(key)

    def _upload_folder(self, token: UploadToken) -> Path:
        if not _UPLOAD_ID.fullmatch(token.upload_id):
            raise UploadFailed("the upload token is not of this store: begin the upload again")
        return self._uploads / token.upload_id

    def _check(self, expected: str | None) -> str:
        try:
            for folder in (self._objects, self._uploads):
                _make_folder(folder, folder.parent)
            identity = self._identity()
            marker = self._root / f"marker-{uuid.uuid4().hex}"
            _write_durably(marker, identity.encode())
            kept = marker.read_text()
            marker.unlink()
        except OSError as error:
            raise Unavailable(f"the local store cannot be written ({error.strerror}): check its folder's disk and rights") from error
        if kept != identity or expected not in {None, identity}:
            raise Unavailable("this machine does not see the local store of the others: mount one shared folder on all, or use S3")
        return identity

    def _identity(self) -> str:
        path = self._root / "store-id"
        own = self._root / f"store-id-{uuid.uuid4().hex}"
        _write_durably(own, uuid.uuid4().hex.encode())
        with contextlib.suppress(FileExistsError):
            os.link(own, path)  # unlike a rename a link never replaces: the first machine's identity stays
        own.unlink()
        return path.read_text()

    def _complete(self, token: UploadToken, parts: int, sha256: str) -> StoredObject:
        folder, target = self._upload_folder(token), self._path(token.key)
        if not folder.exists():
            return _completed_before(token, target, sha256)
        names = [_part_name(number) for number in range(parts)]
        present = {path.name for path in folder.glob("part-*")}
        if present != set(names):
            raise UploadFailed(f"{parts} parts were announced, but {len(present)} have come: send the missing ones again")
        whole = folder / f"whole-{uuid.uuid4().hex}"  # a repeated call may run beside a slow first one
        size_bytes, found = _join([folder / name for name in names], whole)
        if found != sha256:
            raise UploadFailed("the parts do not add up to the announced sha256: upload again")
        _publish(whole, target, self._root)
        shutil.rmtree(folder, ignore_errors=True)
        return StoredObject(token.key, uri_of(PROVIDER, token.key), size_bytes, sha256)

    def _put(self, key: str, data: bytes, sha256: str) -> StoredObject:
        target = self._path(key)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise UploadFailed("the bytes do not have the announced sha256: upload again")
        _make_folder(self._uploads, self._root)
        whole = self._uploads / f"whole-{uuid.uuid4().hex}"
        try:
            with whole.open("xb") as file:
                file.write(data)
                _flush(file.fileno())
            _publish(whole, target, self._root)
        finally:
            whole.unlink(missing_ok=True)
        return StoredObject(key, uri_of(PROVIDER, key), len(data), sha256)

    def _copy(self, source: str, target: Path) -> None:
        _make_folder(self._uploads, self._root)
        whole = self._uploads / f"whole-{uuid.uuid4().hex}"
        try:
            with self._path(source).open("rb") as found, whole.open("xb") as file:
                shutil.copyfileobj(found, file)
                _flush(file.fileno())
            _publish(whole, target, self._root)
        except FileNotFoundError:
            raise FileNotFound(source) from None
        finally:
            whole.unlink(missing_ok=True)

    def _delete(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the first folder that still holds something ends the climb
            for folder in path.parents:
                if folder == self._objects:
                    return
                folder.rmdir()

    def _sweep(self, before: float) -> int:
        stale = [path for path in self._uploads.glob("*") if path.stat().st_mtime < before]
        for path in stale:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)  # of a put that was killed
        return len(stale)


@contextlib.contextmanager
def _reported(what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UploadFailed(f"the upload could not be {what}: it was aborted, begin again") from error
    except OSError as error:
        raise UploadFailed(f"the upload could not be {what} ({error.strerror}): try again later") from error


def _part_name(number: int) -> str:
    return f"part-{number:05d}"


def _completed_before(token: UploadToken, target: Path, sha256: str) -> StoredObject:
    if target.is_file():
        with target.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found == sha256:
            return StoredObject(token.key, uri_of(PROVIDER, token.key), target.stat().st_size, sha256)
    raise UploadFailed("the upload was aborted or has gone stale: begin again")


def _join(parts: list[Path], whole: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    with whole.open("xb") as joined:
        for part in parts:
            data = part.read_bytes()
            digest.update(data)
            joined.write(data)
        _flush(joined.fileno())
        return joined.tell(), digest.hexdigest()


def _publish(whole: Path, target: Path, root: Path) -> None:
    for last_try in (False, False, True):
        is_new = not target.parent.is_dir()
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            whole.replace(target)
        except FileNotFoundError:  # a delete beside us took the folder while it was empty
            if last_try or not whole.exists():
                raise
        else:
            _flush_up(target.parent, root if is_new else target.parent)
            return


def _write_durably(path: Path, data: bytes) -> None:
    half = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with half.open("xb") as file:
            file.write(data)
            _flush(file.fileno())
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
    _flush_folder(path.parent)


def _make_folder(folder: Path, root: Path) -> None:
    """Make a folder below ``root`` so that it survives a power cut."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _flush_up(folder.parent, root)


def _flush_up(folder: Path, root: Path) -> None:
    """Flush a folder and those above it up to ``root``: each new entry is in its parent's hands.

    The first flush takes the file system's whole journal along; those after it find little to do.
    """
    for each in (folder, *folder.parents):
        _flush_folder(each)
        if each == root:
            return


def _flush(descriptor: int) -> None:
    os.fsync(descriptor)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _flush(descriptor)
    finally:
        os.close(descriptor)
