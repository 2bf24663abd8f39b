"""The label in a PNG: a ``tEXt`` chunk with the keyword AIGC, before the pixels. All other chunks are copied as they are."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from deployments.engines.marking.label import FIELD, find_in_xmp, take_out_of_xmp
from deployments.engines.marking.streams import Malformed, copy, copy_rest, counted, read_exactly

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_KEYWORD = b"XML:com.adobe.xmp"
_TEXTS = (b"tEXt", b"iTXt", b"zTXt")
_KEYWORD_BYTES = 80  # a keyword has at most 79, and a zero ends it


def write(source: BinaryIO, target: BinaryIO, text: str) -> None:
    """Copy a PNG with the label put in; one that it had is left out.

    Raises:
        Malformed: no PNG.
    """
    if source.read(8) != SIGNATURE:
        raise Malformed("no PNG")
    target.write(SIGNATURE)
    for kind, size in counted(_chunks(source)):
        if kind in _TEXTS and size < 2**20:
            body = _without_label(kind, read_exactly(source, size))
            source.seek(4, 1)
            if body is not None:
                target.write(_chunk(kind, body))
            continue
        target.write(struct.pack(">I", size) + kind)
        copy(source, target, size + 4)
        if kind == b"IHDR":
            target.write(_chunk(b"tEXt", f"{FIELD}\0{text}".encode("latin-1")))
        if kind == b"IEND":
            copy_rest(source, target)
            return


def read(source: BinaryIO) -> list[str]:
    """Return the JSON of every label.

    Raises:
        Malformed: no PNG.
    """
    if source.read(8) != SIGNATURE:
        raise Malformed("no PNG")
    found: list[str] = []
    for kind, size in counted(_chunks(source)):
        if kind in _TEXTS and size < 2**20:
            keyword, value = _split(kind, read_exactly(source, size))
            if keyword == XMP_KEYWORD:
                found += find_in_xmp(value)
            elif FIELD.encode() in keyword:
                found.append(value.decode("utf-8", "replace"))
            source.seek(4, 1)
        else:
            source.seek(size + 4, 1)
        if kind == b"IEND":
            break
    return found


def _chunks(source: BinaryIO) -> Iterator[tuple[bytes, int]]:
    while head := source.read(8):
        if len(head) < 8:
            raise Malformed("the PNG ends in the middle of a chunk")
        size, kind = struct.unpack(">I4s", head)
        yield kind, size
        if kind == b"IEND":
            return
    raise Malformed("the PNG has no end")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _without_label(kind: bytes, body: bytes) -> bytes | None:
    keyword = body[:_KEYWORD_BYTES].partition(b"\0")[0]
    if keyword == FIELD.encode():
        return None
    if keyword == XMP_KEYWORD and kind == b"iTXt" and find_in_xmp(_split(kind, body)[1]):
        return XMP_KEYWORD + b"\0\0\0\0\0" + take_out_of_xmp(_split(kind, body)[1])
    return body


def _split(kind: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Return keyword and text of a text chunk; an unreadable text is empty."""
    keyword, _, rest = body.partition(b"\0")
    if kind == b"tEXt":
        return keyword, rest
    compressed = kind == b"zTXt" or rest[:1] == b"\1"
    value = rest[1:] if kind == b"zTXt" else rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    return keyword, _inflate(value) if compressed else value


def _inflate(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, 2**20)
    except zlib.error:
        return b""
