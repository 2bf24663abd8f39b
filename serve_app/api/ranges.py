"""Conditional and partial requests for a file that never changes (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.datastructures import Headers

SINGLE_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Part of a file."""

    start: int  # included
    end: int  # excluded

    def content_range(self, size: int) -> str:
        """Return the Content-Range header's value."""
        return f"bytes {self.start}-{self.end - 1}/{size}"


class RangeNotSatisfiable(Exception):
    """The range lies outside of the file."""


def is_unchanged(headers: Headers, etag: str) -> bool:
    """Whether the client has this file already (If-None-Match, compared weakly)."""
    known = headers.get("if-none-match")
    if known is None:
        return False
    return known.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in known.split(",")]


def select_range(headers: Headers, etag: str, size: int) -> ByteRange | None:
    """Return the part that a request asks for; None for the whole file.

    A range of another form than ``bytes=a-b``, several ranges, and a range of a file with another ETag get the whole file, as the
    RFC allows.

    Raises:
        RangeNotSatisfiable: the range starts behind the end.
    """
    wanted = headers.get("range")
    found = SINGLE_RANGE.fullmatch(wanted.strip()) if wanted else None
    if found is None or headers.get("if-range", etag).strip() != etag:
        return None
    first, last = found[1], found[2]
    if not first and not last:
        return None
    return _satisfiable(first, last, size)


def _satisfiable(first: str, last: str, size: int) -> ByteRange | None:
    if first and last and int(first) > int(last):
        return None  # not a range: ignored
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= end:
        raise RangeNotSatisfiable
    return ByteRange(start, end)
