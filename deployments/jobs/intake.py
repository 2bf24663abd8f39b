"""How media come in: uploads and base64 become published files, references are checked before a job is accepted.

What the job store keeps never holds media: a spec's references are ``{"url"}`` or ``{"file_id"}`` when it gets there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, Field

from deployments.jobs.errors import FileNotFound, InvalidInput, MediaTooLarge, MediaTypeMismatch, StoreUnavailable, UnsupportedMedia
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.media_types import SCRIPTABLE, SNIFF_BYTES, is_same_type, sniff
from deployments.jobs.model import FileRecord, JsonObject
from deployments.jobs.ports import Clock, JobStore, StoredObject, Uploader
from deployments.jobs.spec import TAKEN, FileRef, InlineRef, JobSpec, Taken, UrlRef

log = get_logger(__name__)

MEDIA = ("image/", "video/", "audio/")
HEADER_BYTES = 64 * 1024  # of an upload that are looked at before the rest is stored: a picture's size is in them but for huge metadata
INLINE_FILES = uuid.UUID("6b1b0f57-9a1f-4b0e-9a3a-6f5d3b0c8a21")  # namespace of the ids of inline media; drawn once at random

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]")  # control characters and those that reverse the reading order


class IntakeLimits(BaseModel):
    """What one reference may weigh."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    upload_bytes: int = Field(2 * 1024**3, gt=0, description="largest file of POST /v1/files")
    inline_bytes: int = Field(16 * 1024**2, gt=0, description="largest decoded base64 reference")


# Sends a stream to a key, a part at a time: the object appears whole, or not at all when the stream raises.
UploadStream = Callable[[Uploader, AsyncIterator[bytes], str, str], Awaitable[StoredObject]]

Rename = Callable[[str, str], Awaitable[str]]  # (name for people, SHA-256 of the bytes) -> the name to keep

# (media type, first bytes, whether that is all) -> nothing; raises MediaTooLarge or UnsupportedMedia.
CheckHeader = Callable[[str, bytes, bool], None]

CheckUrl = Callable[[str], object]  # raises UrlNotAllowed; looks at the text only and resolves nothing


class MediaIntake:
    """Brings a client's media into the object store and checks its references."""

    def __init__(
        self,
        store: JobStore,
        uploader: Uploader,
        upload_stream: UploadStream,
        check_url: CheckUrl,
        limits: IntakeLimits,
        clock: Clock,
        check_header: CheckHeader | None = None,
    ) -> None:
        """Take the parts.

        Args:
            store: of records.
            uploader: of bytes.
            upload_stream: sends them there.
            check_url: refuses what would never be fetched.
            limits: of one reference.
            clock: of records.
            check_header: refuses what would never be decoded; None looks at types alone.
        """
        self._store = store
        self._uploader = uploader
        self._upload_stream = upload_stream
        self._check_url = check_url
        self._limits = limits
        self._clock = clock
        self._check_header = check_header or (lambda _type, _head, _whole: None)

    async def store_file(
        self, tenant: str, name: str, declared: str | None, chunks: AsyncIterator[bytes], rename: Rename | None = None
    ) -> FileRecord:
        """Stream a file into the object store and publish it.

        Args:
            tenant: whose file.
            name: as the client calls it; kept for people, never used as a path.
            declared: media type the client gave, if any.
            chunks: the bytes, of any length each.
            rename: asked for the name to keep it under, once all bytes are there.

        Raises:
            MediaTypeMismatch: the content is of another type than declared.
            UnsupportedMedia: the content is of no type that we know.
            MediaTooLarge: longer than ``IntakeLimits.upload_bytes``.
            UploadFailed: the object store did not take it.
        """
        return await self._publish(str(uuid.uuid4()), tenant, name, declared, _limited(chunks, self._limits.upload_bytes), rename)

    async def find_files(self, tenant: str, names: Sequence[str]) -> Mapping[str, FileRecord]:
        """Return what the names of inputs mean: the newest upload, or else the newest output, of each that has one."""
        possible = [name for name in names if may_be_name(name)]
        return await self._store.find_files(tenant, possible, uploads_first=True) if possible else {}

    async def to_stored(self, tenant: str, reference: UrlRef | FileRef | InlineRef, taken: Taken | None = None) -> JsonObject:
        """Check a reference and return what the job's spec keeps: ``{"url"}`` or ``{"file_id"}``, with a declared media type.

        Args:
            tenant: whose reference.
            reference: as sent.
            taken: what may be there, where that is known; None: anything.

        Raises:
            UnsupportedMedia: a file of another type than what is taken.
            InvalidInput: base64 that is none, a URL that the guard refuses, a type that disagrees with the file.
            FileNotFound: no such file for this tenant.
        """
        match reference:
            case UrlRef(url=url):
                self._check_url(url)
            case FileRef(file_id=file_id, media_type=declared):
                found = (await self._store.get_file(tenant, file_id)).media_type
                check_declared(declared, found)
                _check_taken(taken, found)
            case InlineRef():
                return {"file_id": (await self._store_inline(tenant, reference, taken)).id}
        return reference.model_dump(mode="json", exclude_none=True)

    async def stored_spec(self, tenant: str, spec: JobSpec) -> JsonObject:
        """Return a request as the job store keeps it; every reference is checked as by :meth:`to_stored`."""
        stored: JsonObject = {}
        for name in type(spec).model_fields:
            value = getattr(spec, name)
            if isinstance(value, UrlRef | FileRef | InlineRef):
                stored[name] = await self.to_stored(tenant, value, TAKEN.get(name))
            elif isinstance(value, BaseModel):
                stored[name] = value.model_dump(mode="json", exclude_none=True)
            elif value is not None:
                stored[name] = value
        return stored

    async def _store_inline(self, tenant: str, reference: InlineRef, taken: Taken | None) -> FileRecord:
        data = self._decode_base64(reference.base64)
        # The id follows from the content: a request that is sent again becomes the same spec, as idempotency needs.
        file_id = str(uuid.uuid5(INLINE_FILES, f"{tenant}/{hashlib.sha256(data).hexdigest()}"))
        found = type_of(data[:SNIFF_BYTES])
        check_declared(reference.media_type, found)
        _check_taken(taken, found)
        if taken is not None:
            self._check_header(found, data, True)
        try:
            return await self._store.get_file(tenant, file_id)
        except FileNotFound:
            return await self._publish(file_id, tenant, "inline", reference.media_type, _once(data))

    def _decode_base64(self, text: str) -> bytes:
        if len(text) * 3 // 4 > self._limits.inline_bytes + 2:  # before decoding: the text may be huge
            raise MediaTooLarge(f"inline media may have {self._limits.inline_bytes} bytes: send it to /v1/files and refer to the file_id")
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidInput("base64 is not standard base64 (RFC 4648, section 4): leave out the data: prefix and line breaks") from None

    async def _publish(
        self, file_id: str, tenant: str, name: str, declared: str | None, chunks: AsyncIterator[bytes], rename: Rename | None = None
    ) -> FileRecord:
        head, whole = await _peek(chunks)
        media_type = type_of(head[:SNIFF_BYTES])
        check_declared(declared, media_type)
        self._check_header(media_type, head, False)
        key = f"uploads/{tenant}/{file_id}"
        stored = await self._upload_stream(self._uploader, whole, key, media_type)
        shown = to_display_name(name)
        record = FileRecord(
            id=file_id,
            tenant=tenant,
            key=stored.key,
            name=await rename(shown, stored.sha256) if rename else shown,
            media_type=media_type,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            created_at=self._clock.time(),
        )
        return await self._add(record)

    async def _add(self, record: FileRecord) -> FileRecord:
        try:
            return await self._store.add_file(record)
        except StoreUnavailable:
            # Whether the record was written is not known: bytes without a record cost space, a record without bytes costs trust.
            log.warning("file not published, bytes kept", extra=fields(action="file_orphaned", key=record.key))
            raise


def may_be_name(text: str) -> bool:
    """Whether a file can have a name: one that we keep, so that nothing else of a client's reaches a query."""
    return bool(text) and to_display_name(text) == text


def to_display_name(name: str) -> str:
    """Return the last part of a client's file name, printable and at most 200 characters long."""
    plain = _UNPRINTABLE.sub("", PurePosixPath(name.replace("\\", "/")).name).strip()
    return plain[-200:] or "file"


async def _limited(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise MediaTooLarge(f"a file may have {limit} bytes")
        yield chunk


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _peek(chunks: AsyncIterator[bytes]) -> tuple[bytes, AsyncIterator[bytes]]:
    """Return the first ``HEADER_BYTES`` or more, and a stream of the whole."""
    head = b""
    async for chunk in chunks:
        head += chunk
        if len(head) >= HEADER_BYTES:
            break

    async def whole() -> AsyncIterator[bytes]:
        yield head
        async for chunk in chunks:
            yield chunk

    return head, whole()


def type_of(head: bytes) -> str:
    """Return the media type of what begins so.

    Raises:
        InvalidInput: nothing.
        UnsupportedMedia: neither a picture, nor a video, nor sound.
    """
    if not head:
        raise InvalidInput("the file is empty")
    found = sniff(head)
    if found is None:
        raise UnsupportedMedia("the content is of no format that we know: GET /v1/capabilities lists the formats")
    if not found.startswith(MEDIA) or found in SCRIPTABLE:
        raise UnsupportedMedia(f"the content is {found}: send a picture, a video or sound")
    return found


def _check_taken(taken: Taken | None, found: str) -> None:
    if taken is not None and not (found in taken.types or found.startswith(taken.ranges)):
        raise UnsupportedMedia(f"{taken.role} is {found}: send {taken.words}")


def check_declared(declared: str | None, found: str) -> None:
    """Let the media type pass that a client declared, if any.

    Raises:
        MediaTypeMismatch: the content is of another.
    """
    if declared and not is_same_type(declared, found):
        raise MediaTypeMismatch(declared, found)
