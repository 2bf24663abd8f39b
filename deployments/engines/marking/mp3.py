"""The label in an MP3: a ``TXXX`` frame in the ID3v2 tag before the sound. Other frames and the sound are copied as they are."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from deployments.engines.marking.label import FIELD
from deployments.engines.marking.streams import Malformed, copy_rest, counted, read_exactly

UNSYNCHRONISED, EXTENDED_HEADER, FOOTER = 0x80, 0x40, 0x10
LATIN_1 = 0
ENCODINGS = {LATIN_1: "latin-1", 1: "utf-16", 2: "utf-16-be", 3: "utf-8"}


@dataclass(frozen=True, slots=True)
class _Frame:
    kind: bytes
    flags: bytes
    body: bytes


def write(source: BinaryIO, target: BinaryIO, text: str) -> None:
    """Copy an MP3 with the label in its tag, which is made where there is none. Frames of ID3v2.2 are not carried over.

    Raises:
        Malformed: a tag that cannot be read.
    """
    version, frames = _read_tag(source)
    kept = [frame for frame in frames if not _is_label(frame)]
    ours = _Frame(b"TXXX", b"\0\0", bytes([LATIN_1]) + f"{FIELD}\0{text}".encode("latin-1"))
    body = b"".join(_to_bytes(frame, version) for frame in [*kept, ours])
    target.write(b"ID3" + bytes([version, 0, 0]) + _to_synchsafe(len(body)) + body)
    copy_rest(source, target)


def read(source: BinaryIO) -> list[str]:
    """Return the JSON of every label.

    Raises:
        Malformed: a tag that cannot be read.
    """
    return [_user_text(frame.body)[1] for frame in _read_tag(source)[1] if _is_label(frame)]


def _read_tag(source: BinaryIO) -> tuple[int, list[_Frame]]:
    """Return version and frames of the tag and leave the file behind it; without a tag: 4, nothing and its beginning."""
    head = source.read(10)
    if head[:3] != b"ID3":
        source.seek(0)
        return 4, []
    version, flags, size = head[3], head[5], _from_synchsafe(head[6:10])
    body = read_exactly(source, size)
    if version == 4 and flags & FOOTER:
        source.seek(10, 1)
    if version not in {3, 4}:
        return 4, []
    if flags & UNSYNCHRONISED and version == 3:
        body = body.replace(b"\xff\x00", b"\xff")
    if flags & EXTENDED_HEADER and len(body) >= 4:
        body = body[_from_synchsafe(body[:4]) if version == 4 else struct.unpack(">I", body[:4])[0] + 4 :]
    return version, list(counted(_frames(body, version)))


def _frames(body: bytes, version: int) -> Iterator[_Frame]:
    place = 0
    while place + 10 <= len(body) and body[place] != 0:  # zeros are padding
        size = _from_synchsafe(body[place + 4 : place + 8]) if version == 4 else struct.unpack(">I", body[place + 4 : place + 8])[0]
        if place + 10 + size > len(body):
            raise Malformed("the ID3 tag ends in the middle of a frame")
        yield _Frame(body[place : place + 4], body[place + 8 : place + 10], body[place + 10 : place + 10 + size])
        place += 10 + size


def _is_label(frame: _Frame) -> bool:
    return frame.kind == b"TXXX" and _user_text(frame.body)[0] == FIELD


def _user_text(body: bytes) -> tuple[str, str]:
    if not body:
        return "", ""
    text = body[1:].decode(ENCODINGS.get(body[0], "latin-1"), "replace")
    description, _, value = text.partition("\0")
    return description.lstrip("\ufeff"), value.strip("\0\ufeff")


def _to_bytes(frame: _Frame, version: int) -> bytes:
    size = _to_synchsafe(len(frame.body)) if version == 4 else struct.pack(">I", len(frame.body))
    return frame.kind + size + frame.flags + frame.body


def _to_synchsafe(value: int) -> bytes:
    if value >= 2**28:
        raise Malformed("the ID3 tag is too long")
    return bytes(value >> shift & 0x7F for shift in (21, 14, 7, 0))


def _from_synchsafe(data: bytes) -> int:
    return (data[0] & 0x7F) << 21 | (data[1] & 0x7F) << 14 | (data[2] & 0x7F) << 7 | data[3] & 0x7F
