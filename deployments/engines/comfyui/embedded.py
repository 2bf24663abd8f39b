"""Texts that a picture carries in its metadata: PNG text chunks, and the EXIF strings that ComfyUI writes into a WebP.

Read by hand, because a decoder would unpack pixels and every other chunk of a file of which only a few strings are wanted.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from deployments.jobs.errors import InvalidInput

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PICTURE_SIGNATURES = (PNG_SIGNATURE, b"RIFF")

_EXIF_ASCII = 2  # the type of a string in a TIFF directory
_MAX_TAGS = 200  # ComfyUI writes one per document


def embedded_texts(data: bytes, names: frozenset[str], max_bytes: int) -> dict[str, bytes]:
    """Return the named texts of a PNG or WebP, the first of each name.

    Args:
        data: the file, beginning with one of ``PICTURE_SIGNATURES``.
        names: keywords of PNG text chunks; a WebP holds ``<name>:<text>``.
        max_bytes: of one text, unpacked.

    Raises:
        InvalidInput: a text is longer.
    """
    found = _png_texts(data, names, max_bytes) if data.startswith(PNG_SIGNATURE) else _webp_texts(data)
    texts: dict[str, bytes] = {}
    for name, text in found:
        if name not in names or name in texts:
            continue
        if len(text) > max_bytes:
            raise InvalidInput(f"the picture's {name} is longer than {max_bytes // 2**20} MiB: send it as JSON")
        texts[name] = text
    return texts


def _png_texts(data: bytes, names: frozenset[str], max_bytes: int) -> Iterator[tuple[str, bytes]]:
    position = len(PNG_SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind in {b"tEXt", b"zTXt", b"iTXt"}:
            keyword, _, body = data[position + 8 : position + 8 + length].partition(b"\0")
            if (name := keyword.decode("latin-1")) in names:
                yield name, _png_text(kind, body, max_bytes)
        position += length + 12  # with its length, kind and checksum


def _png_text(kind: bytes, body: bytes, max_bytes: int) -> bytes:
    """Return a text as UTF-8; one that does not unpack is empty."""
    if kind == b"tEXt":
        return body.decode("latin-1").encode()
    if kind == b"zTXt":
        return _inflate(body[1:], max_bytes).decode("latin-1").encode()
    packed, (_, _, text) = body[:1] == b"\1", _three(body[2:])  # language, translated keyword, text
    return _inflate(text, max_bytes) if packed else text


def _three(body: bytes) -> tuple[bytes, bytes, bytes]:
    language, _, rest = body.partition(b"\0")
    keyword, _, text = rest.partition(b"\0")
    return language, keyword, text


def _inflate(packed: bytes, max_bytes: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, max_bytes + 1)  # one byte more shows that it is too long
    except zlib.error:
        return b""


def _webp_texts(data: bytes) -> Iterator[tuple[str, bytes]]:
    position = 12  # RIFF, length, WEBP
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"EXIF":
            for text in _exif_strings(data[position + 8 : position + 8 + length].removeprefix(b"Exif\0\0")):
                name, _, value = text.rstrip(b"\0").partition(b":")
                yield name.decode("latin-1"), value
        position += 8 + length + length % 2


def _exif_strings(exif: bytes) -> Iterator[bytes]:
    """Iterate over the strings of the first directory of a TIFF structure."""
    order = "<" if exif.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for index in range(min(count, _MAX_TAGS)):
            _, kind, length, offset = struct.unpack_from(order + "HHII", exif, start + 2 + 12 * index)
            if kind == _EXIF_ASCII and length > 4:  # shorter ones lie in place of the offset
                yield exif[offset : offset + length]
    except struct.error:
        return
