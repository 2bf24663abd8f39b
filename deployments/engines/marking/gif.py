"""The label in a GIF: XMP in an application extension, before the first picture. All else is copied as it is."""

from __future__ import annotations

from typing import BinaryIO

from deployments.engines.marking.label import find_in_xmp, put_into_xmp
from deployments.engines.marking.streams import Malformed, copy_rest, read_exactly

XMP_EXTENSION = b"\x21\xff\x0bXMP DataXMP"
# XMP Specification Part 3, 2.1.2: whoever takes the packet for sub-blocks lands in this trailer and is led to its end.
MAGIC_TRAILER = b"\x01" + bytes(range(255, -1, -1)) + b"\x00"
MAX_PACKET = 2**20
GRAPHIC_CONTROL = b"\xf9"


def write(source: BinaryIO, target: BinaryIO, text: str) -> None:
    """Copy a GIF with the label put into its XMP.

    Raises:
        Malformed: no GIF.
    """
    head, extensions, packet = _read_head(source)
    target.write(b"GIF89a" + head[6:])  # extensions came with 89a
    ours = XMP_EXTENSION + put_into_xmp(packet, text) + MAGIC_TRAILER
    # A graphic control belongs to the picture behind it; players look for the number of loops first.
    place = next((number for number, extension in enumerate(extensions) if extension[1:2] == GRAPHIC_CONTROL), len(extensions))
    target.writelines([*extensions[:place], ours, *extensions[place:]])
    copy_rest(source, target)


def read(source: BinaryIO) -> list[str]:
    """Return the JSON of every label in the XMP before the first picture.

    Raises:
        Malformed: no GIF.
    """
    packet = _read_head(source)[2]
    return find_in_xmp(packet) if packet else []


def _read_head(source: BinaryIO) -> tuple[bytes, list[bytes], bytes | None]:
    """Return the screen's description, the extensions before the first picture but for XMP, and the XMP packet."""
    head = read_exactly(source, 13)
    if head[:6] not in {b"GIF87a", b"GIF89a"}:
        raise Malformed("no GIF")
    if head[10] & 0x80:
        head += read_exactly(source, 3 * 2 ** ((head[10] & 7) + 1))
    extensions: list[bytes] = []
    packet = None
    while (introducer := read_exactly(source, 1)) == b"\x21":
        extension = introducer + read_exactly(source, 1) + _sub_blocks(source)
        if extension.startswith(XMP_EXTENSION):
            packet = _packet_of(extension)
        else:
            extensions.append(extension)
    source.seek(-1, 1)
    return head, extensions, packet


def _sub_blocks(source: BinaryIO) -> bytes:
    blocks = bytearray()
    while size := read_exactly(source, 1)[0]:
        blocks += bytes([size]) + read_exactly(source, size)
        if len(blocks) > MAX_PACKET:
            raise Malformed("an extension of the GIF is too long")
    return bytes(blocks) + b"\0"


def _packet_of(extension: bytes) -> bytes:
    """Return the packet inside an XMP extension. Taken for sub-blocks, it was read whole, into the trailer."""
    return extension[len(XMP_EXTENSION) :].partition(b"\x01\xff\xfe")[0]
