"""The label in a JPEG: XMP in an APP1 segment. Nothing behind the headers is touched."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from deployments.engines.marking.label import find_in_xmp, put_into_xmp
from deployments.engines.marking.streams import Malformed, copy_rest, counted, read_exactly

XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
EXIF_HEAD = b"Exif\0\0"
MAX_SEGMENT = 65533  # a length of 16 bits that counts itself
APP0, APP1, START_OF_SCAN = 0xE0, 0xE1, 0xDA
_PADDING = b"\n" + b" " * 99  # XMP writers leave room behind the packet's content


def write(source: BinaryIO, target: BinaryIO, text: str) -> None:
    """Copy a JPEG with the label put into its XMP.

    Raises:
        Malformed: no JPEG, or its XMP has no room for the label.
    """
    segments = list(counted(_segments(source)))
    packet = next((body[len(XMP_HEAD) :] for marker, body in segments if _is_xmp(marker, body)), None)
    ours = XMP_HEAD + _fitted(put_into_xmp(packet, text))
    kept = [(marker, body) for marker, body in segments if not _is_xmp(marker, body)]
    # JFIF and Exif readers look for their segment at the very beginning.
    first = sum(1 for _ in _leading(kept))
    target.write(b"\xff\xd8")
    ordered = [*kept[:first], (APP1, ours), *kept[first:]]
    target.writelines(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in ordered)
    copy_rest(source, target)


def read(source: BinaryIO) -> list[str]:
    """Return the JSON of every label in the XMP.

    Raises:
        Malformed: no JPEG.
    """
    return [text for marker, body in counted(_segments(source)) if _is_xmp(marker, body) for text in find_in_xmp(body)]


def _segments(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the segments before the scan and leave the file at the scan's marker."""
    if source.read(2) != b"\xff\xd8":
        raise Malformed("no JPEG")
    while True:
        place = source.tell()
        lead, marker = read_exactly(source, 2)
        if lead != 0xFF:
            raise Malformed("the JPEG has something between its segments")
        if marker == 0xFF:  # a fill byte
            source.seek(-1, 1)
            continue
        if marker == START_OF_SCAN:
            source.seek(place)
            return
        size = struct.unpack(">H", read_exactly(source, 2))[0]
        if size < 2:
            raise Malformed("a JPEG segment shorter than its head")
        yield marker, read_exactly(source, size - 2)


def _is_xmp(marker: int, body: bytes) -> bool:
    return marker == APP1 and body.startswith(XMP_HEAD)


def _leading(segments: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    for marker, body in segments:
        if marker != APP0 and not (marker == APP1 and body.startswith(EXIF_HEAD)):
            return
        yield marker, body


def _fitted(packet: bytes) -> bytes:
    most = MAX_SEGMENT - len(XMP_HEAD)
    while len(packet) > most and _PADDING in packet:
        packet = packet.replace(_PADDING, b"\n")
    if len(packet) > most:
        raise Malformed("the XMP of the JPEG has no room for the label")
    return packet
