"""Reading and copying parts of files, for formats that are a sequence of parts with their length before them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, TypeVar

Part = TypeVar("Part")

COPY_BYTES = 2**20
MAX_HELD_BYTES = 64 * 2**20  # of one part that is looked into; what is longer is only ever copied

MAX_PARTS = 100_000  # of one file or box; a file made of empty parts would keep a processor busy for minutes


class Malformed(ValueError):
    """The file is not what its format says; the message names the place."""


def read_exactly(file: BinaryIO, size: int) -> bytes:
    """Read ``size`` bytes.

    Raises:
        Malformed: the file ends before, or so much is not to be held in memory.
    """
    if size > MAX_HELD_BYTES:
        raise Malformed(f"a part of {size} bytes that should be short")
    data = file.read(size)
    if len(data) < size:
        raise Malformed("the file ends in the middle of a part")
    return data


def copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    """Copy ``size`` bytes, a piece at a time.

    Raises:
        Malformed: the file ends before.
    """
    while size:
        piece = source.read(min(size, COPY_BYTES))
        if not piece:
            raise Malformed("the file ends in the middle of a part")
        target.write(piece)
        size -= len(piece)


def copy_rest(source: BinaryIO, target: BinaryIO) -> None:
    """Copy all that is left."""
    while piece := source.read(COPY_BYTES):
        target.write(piece)


def counted(parts: Iterable[Part]) -> Iterator[Part]:
    """Yield the parts.

    Raises:
        Malformed: there are more than any honest file has.
    """
    for number, part in enumerate(parts):
        if number == MAX_PARTS:
            raise Malformed("too many parts")
        yield part
