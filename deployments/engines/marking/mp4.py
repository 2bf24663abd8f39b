"""The label in MP4 and MOV: key AIGC in ``moov.udta.meta``, as FFmpeg writes it with ``use_metadata_tags``.

The movie box is rewritten and the chunk offsets behind it are moved; the samples are copied as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from deployments.engines.marking.label import FIELD
from deployments.engines.marking.streams import Malformed, copy, counted, read_exactly

AIGC = FIELD.encode()
TEXT = 1  # type of a data box: UTF-8
NESTED = (b"trak", b"mdia", b"minf", b"stbl")
# Names under which FFmpeg knows the four-letter keys of iTunes.
PLAIN_NAMES = {
    b"\xa9too": b"encoder", b"\xa9nam": b"title", b"\xa9ART": b"artist", b"\xa9alb": b"album", b"\xa9cmt": b"comment", b"\xa9day": b"date",
    b"\xa9gen": b"genre", b"desc": b"description", b"cprt": b"copyright",
}  # fmt: skip

HOLDERS = frozenset({*NESTED, b"udta", b"edts", b"dinf", b"mvex", b"tref", b"ilst", b"gmhd", b"traf"})
LOOKED_INTO = frozenset({b"moov", b"moof", b"mfra"})  # of the boxes at the top
# C2PA's reader takes time by the square of it: 0.3 s for so many, 30 s for ten times as many.
MAX_BOXES = 10_000


@dataclass(frozen=True, slots=True)
class _Span:
    """Where a box at the top of the file lies."""

    kind: bytes
    start: int
    size: int


def write(source: BinaryIO, target: BinaryIO, text: str) -> None:
    """Copy an MP4 or MOV with the label put in; one that it had is left out.

    Raises:
        Malformed: no movie box, or one that cannot be read.
    """
    spans = list(counted(_spans(source)))
    movie = next((span for span in spans if span.kind == b"moov"), None)
    if movie is None:
        raise Malformed("the file has no movie box")
    source.seek(movie.start)
    old = read_exactly(source, movie.size)
    content = _with_label(_content(old), text)
    grown = len(content) + 8 - movie.size
    shifted = _box(b"moov", _shifted(content, after=movie.start, by=grown))
    for span in spans:
        source.seek(span.start)
        if span is movie:
            target.write(shifted)
        elif span.kind == b"mfra" and span.start > movie.start:
            continue  # an index of fragments by their offset, which would now be wrong; players do without
        else:
            _copy_span(source, target, span)


def read(source: BinaryIO) -> list[str]:
    """Return the JSON of every label.

    Raises:
        Malformed: no movie box, or one that cannot be read.
    """
    found: list[str] | None = None
    left = MAX_BOXES
    for span in _spans(source):
        left -= 1
        if span.kind in LOOKED_INTO and left >= 0:
            source.seek(span.start)
            content = _content(read_exactly(source, span.size))
            left = _check_boxes(content, left)
            if span.kind == b"moov" and found is None:
                found = [value for name, value in _texts(content) if FIELD in name]
        if left < 0:
            raise Malformed("too many boxes")
    if found is None:
        raise Malformed("the file has no movie box")
    return found


def _spans(source: BinaryIO) -> Iterator[_Span]:
    end = source.seek(0, 2)
    start = 0
    while start + 8 <= end:
        source.seek(start)
        size, kind = struct.unpack(">I4s", read_exactly(source, 8))
        if size == 1:
            size = struct.unpack(">Q", read_exactly(source, 8))[0]
        elif size == 0:
            size = end - start
        if size < 8 or start + size > end:
            raise Malformed("a box that is longer than the file")
        yield _Span(kind, start, size)
        start += size


def _check_boxes(content: bytes, left: int) -> int:
    """Count the boxes inside a box, at all depths.

    Raises:
        Malformed: more than any honest file has.
    """
    for kind, inner in _boxes(content):
        left = _check_boxes(inner, left - 1) if kind in HOLDERS else left - 1
        if left < 0:
            raise Malformed("too many boxes")
    return left


def _copy_span(source: BinaryIO, target: BinaryIO, span: _Span) -> None:
    if span.kind == b"moof":
        raise Malformed("a fragmented file: its fragments name places in the file")
    copy(source, target, span.size)


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of each box; a rest too short for one (QuickTime ends lists with four zeros) is left out."""
    place = 0
    while place + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        head = 8
        if size == 1 and place + 16 <= len(content):
            size, head = struct.unpack_from(">Q", content, place + 8)[0], 16
        elif size == 0:
            size = len(content) - place
        if size < head or place + size > len(content):
            raise Malformed("a box that is longer than the one around it")
        yield kind, content[place + head : place + size]
        place += size


def _content(box: bytes) -> bytes:
    return next(_boxes(box))[1]


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def _with_label(movie: bytes, text: str) -> bytes:
    """Return the movie box's content with the label in its user data, behind all else."""
    boxes = list(counted(_boxes(movie)))
    user = b"".join(content for kind, content in boxes if kind == b"udta")
    held = [(kind, content) for kind, content in _boxes(user) if kind != b"meta"]
    items = [item for kind, content in _boxes(user) if kind == b"meta" for item in _items(content) if item[0] != AIGC]
    items.append((AIGC, _box(b"data", struct.pack(">II", TEXT, 0) + text.encode())))
    made = b"".join(_box(kind, content) for kind, content in [*held, (b"meta", _to_meta(items))])
    return b"".join(_box(kind, content) for kind, content in boxes if kind != b"udta") + _box(b"udta", made)


def _meta_boxes(meta: bytes) -> dict[bytes, bytes]:
    # MP4 has four bytes of version and flags before the boxes, QuickTime does not.
    return dict(counted(_boxes(meta if meta[4:8] == b"hdlr" else meta[4:])))


def _items(meta: bytes) -> list[tuple[bytes, bytes]]:
    """Return key and data boxes of each item of a metadata box, whether its keys are words or four letters."""
    boxes = _meta_boxes(meta)
    names = [content for _, content in _boxes(boxes[b"keys"][8:])] if b"keys" in boxes else []
    items = []
    for kind, content in _boxes(boxes.get(b"ilst", b"")):
        number = int.from_bytes(kind, "big")
        if names and 1 <= number <= len(names):
            items.append((names[number - 1], content))
        elif not names:
            items.append((PLAIN_NAMES.get(kind, kind), content))
    return items


def _to_meta(items: list[tuple[bytes, bytes]]) -> bytes:
    keys = b"".join(_box(b"mdta", name) for name, _ in items)
    values = b"".join(struct.pack(">II", len(data) + 8, number) + data for number, (_, data) in enumerate(items, 1))
    handler = struct.pack(">II4s12xB", 0, 0, b"mdta", 0)
    return b"\0\0\0\0" + _box(b"hdlr", handler) + _box(b"keys", struct.pack(">II", 0, len(items)) + keys) + _box(b"ilst", values)


def _texts(movie: bytes) -> Iterator[tuple[str, str]]:
    for kind, user in counted(_boxes(movie)):
        metas = [user] if kind == b"meta" else [content for inner, content in _boxes(user) if inner == b"meta"] if kind == b"udta" else []
        for meta in metas:
            for name, data in _items(meta):
                value = next((content for inner, content in _boxes(data) if inner == b"data"), b"")
                yield name.decode("latin-1"), value[8:].decode("utf-8", "replace")


def _shifted(content: bytes, *, after: int, by: int) -> bytes:
    """Return boxes with the chunk offsets that point behind ``after`` moved by ``by`` bytes."""
    made = []
    for kind, inner in counted(_boxes(content)):
        if kind in NESTED:
            made.append(_box(kind, _shifted(inner, after=after, by=by)))
        elif kind in {b"stco", b"co64"}:
            made.append(_box(kind, _shifted_table(inner, "I" if kind == b"stco" else "Q", after, by)))
        else:
            made.append(_box(kind, inner))
    return b"".join(made)


def _shifted_table(table: bytes, letter: str, after: int, by: int) -> bytes:
    count = struct.unpack_from(">I", table, 4)[0]
    form = f">{count}{letter}"
    if len(table) < 8 + struct.calcsize(form):
        raise Malformed("a table of chunk offsets that is too short")
    offsets = [offset + by if offset > after else offset for offset in struct.unpack_from(form, table, 8)]
    if letter == "I" and any(offset > 0xFFFFFFFF for offset in offsets):
        raise Malformed("offsets of 32 bits have no room: write the file with offsets of 64 bits")
    return table[:8] + struct.pack(form, *offsets)
