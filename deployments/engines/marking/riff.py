"""The label in RIFF files: an ``XMP `` chunk in WebP, an ``AIGC`` chunk in WAV. Other chunks are copied as they are."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from deployments.engines.marking.label import FIELD, find_in_xmp, put_into_xmp
from deployments.engines.marking.streams import Malformed, copy, counted, read_exactly

XMP = b"XMP "
AIGC = FIELD.encode()
XMP_FLAG, ALPHA_FLAG = 0x04, 0x10
UNKNOWN_SIZE = 0xFFFFFFFF  # of a file that was written to a pipe
MAX_SIZE = 0xFFFFFFFE


def write_webp(source: BinaryIO, target: BinaryIO, text: str) -> None:
    """Copy a WebP with the label put into its XMP; a simple file becomes an extended one, its pixels as they were.

    Raises:
        Malformed: no WebP.
    """
    _open(source, b"WEBP")
    target.write(b"RIFF\0\0\0\0WEBP")
    packet: bytes | None = None
    for number, (kind, size) in enumerate(counted(_chunks(source))):
        if kind == XMP:
            packet = packet or read_exactly(source, size)
            source.seek(size % 2, 1)
        elif kind == b"VP8X":
            head = bytearray(read_exactly(source, size))
            head[0] |= XMP_FLAG
            _put(target, kind, bytes(head))
        else:
            if number == 0:
                _put(target, b"VP8X", _extended_head(kind, source))
            _copy_chunk(source, target, kind, size)
    _put(target, XMP, put_into_xmp(packet, text))
    _close(target)


def write_wav(source: BinaryIO, target: BinaryIO, text: str) -> None:
    """Copy a WAV with the label in a chunk before the samples.

    Raises:
        Malformed: no WAV, or one with sizes of 64 bits.
    """
    size_said = _open(source, b"WAVE")
    target.write(b"RIFF\0\0\0\0WAVE")
    for kind, size in counted(_chunks(source)):
        if kind == AIGC:
            source.seek(size + size % 2, 1)
            continue
        if kind == b"data":
            _put(target, AIGC, text.encode())
        _copy_chunk(source, target, kind, size)
    _close(target, unknown=size_said == UNKNOWN_SIZE)


def read(source: BinaryIO) -> list[str]:
    """Return the JSON of every label in a WebP or WAV.

    Raises:
        Malformed: neither.
    """
    head = source.read(12)
    if head[:4] != b"RIFF":
        raise Malformed("no RIFF file")
    found: list[str] = []
    for kind, size in counted(_chunks(source)):
        if kind in {XMP, AIGC} and size < 2**20:
            body = read_exactly(source, size)
            found += find_in_xmp(body) if kind == XMP else [body.rstrip(b"\0").decode("utf-8", "replace")]
            source.seek(size % 2, 1)
        else:
            source.seek(size + size % 2, 1)
    return found


def _open(source: BinaryIO, form: bytes) -> int:
    head = source.read(12)
    if head[:4] != b"RIFF" or head[8:] != form:
        raise Malformed(f"no RIFF file of the form {form.decode()}")
    return int(struct.unpack("<I", head[4:8])[0])


def _chunks(source: BinaryIO) -> Iterator[tuple[bytes, int]]:
    while len(head := source.read(8)) == 8:
        kind, size = struct.unpack("<4sI", head)
        yield kind, size


def _put(target: BinaryIO, kind: bytes, body: bytes) -> None:
    target.write(struct.pack("<4sI", kind, len(body)) + body + b"\0" * (len(body) % 2))


def _copy_chunk(source: BinaryIO, target: BinaryIO, kind: bytes, size: int) -> None:
    target.write(struct.pack("<4sI", kind, size))
    if size == UNKNOWN_SIZE or kind == b"data":
        _copy_samples(source, target, size)
    else:
        copy(source, target, size)
        target.write(source.read(size % 2) or b"\0" * (size % 2))


def _copy_samples(source: BinaryIO, target: BinaryIO, size: int) -> None:
    """Copy the samples; a writer that was cut off, or wrote to a pipe, has said more than there are."""
    left = size + size % 2
    while left and (piece := source.read(min(left, 2**20))):
        target.write(piece)
        left -= len(piece)


def _close(target: BinaryIO, *, unknown: bool = False) -> None:
    size = target.tell() - 8
    if size > MAX_SIZE:
        raise Malformed("the file is longer than RIFF can say")
    target.seek(4)
    target.write(struct.pack("<I", UNKNOWN_SIZE if unknown else size))


def _extended_head(kind: bytes, source: BinaryIO) -> bytes:
    """Return the body of the VP8X chunk for a simple file, which is at the body of its only chunk."""
    place = source.tell()
    head = read_exactly(source, 10)
    source.seek(place)
    if kind == b"VP8 " and head[3:6] == b"\x9d\x01\x2a":
        width, height = (value & 0x3FFF for value in struct.unpack("<HH", head[6:10]))
        flags = 0
    elif kind == b"VP8L" and head[0] == 0x2F:
        bits = int.from_bytes(head[1:5], "little")
        width, height, flags = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, ALPHA_FLAG if bits >> 28 & 1 else 0
    else:
        raise Malformed("a WebP that begins with neither VP8, VP8L nor VP8X")
    sides = (int(side - 1).to_bytes(3, "little") for side in (width, height))
    return struct.pack("<I", flags | XMP_FLAG) + b"".join(sides)
