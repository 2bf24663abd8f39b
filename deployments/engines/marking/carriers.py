"""Which files carry the label, and putting it in and reading it there, whatever the format."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from deployments.engines.marking import gif, jpeg, mp3, mp4, png, riff
from deployments.engines.marking.label import AigcLabel, parse_label
from deployments.engines.marking.streams import Malformed
from deployments.jobs.errors import MarkingFailed
from deployments.jobs.media_types import SNIFF_BYTES, sniff

BROKEN = (Malformed, struct.error, IndexError, RecursionError)  # what reading a file may end with that is not as its format says


@dataclass(frozen=True, slots=True)
class Carrier:
    """How one format carries the label."""

    name: str
    write: Callable[[BinaryIO, BinaryIO, str], None]
    read: Callable[[BinaryIO], list[str]]


_ISO = Carrier("moov.udta.meta key AIGC", mp4.write, mp4.read)

CARRIERS = {
    "image/png": Carrier("PNG tEXt AIGC", png.write, png.read),
    "image/jpeg": Carrier("JPEG XMP TC260:AIGC", jpeg.write, jpeg.read),
    "image/webp": Carrier("WebP XMP TC260:AIGC", riff.write_webp, riff.read),
    "image/gif": Carrier("GIF XMP TC260:AIGC", gif.write, gif.read),
    "video/mp4": _ISO,
    "video/quicktime": _ISO,
    "audio/mp4": _ISO,
    "audio/wav": Carrier("WAV chunk AIGC", riff.write_wav, riff.read),
    "audio/mpeg": Carrier("ID3 TXXX AIGC", mp3.write, mp3.read),
}


def carrier_of(path: Path) -> Carrier | None:
    """Return how the file carries the label, told by its content; None when its format has no carrier."""
    with path.open("rb") as file:
        return CARRIERS.get(type_of(file))


def type_of(file: BinaryIO) -> str:
    """Return the media type of a file by its content, and leave it at its beginning; empty when it is none that we know."""
    file.seek(0)
    head = file.read(SNIFF_BYTES)
    file.seek(0)
    return "audio/mpeg" if head[:3] == b"ID3" else sniff(head) or ""


def put_label(path: Path, label: AigcLabel) -> str | None:
    """Put the label into a file, in place of one that it has. The content is not encoded again; memory does not grow with the file.

    The file is replaced in one step: whoever reads it meanwhile sees the old one or the new one.

    Returns:
        The name of the carrier; None when the format has none, and nothing is done.

    Raises:
        MarkingFailed: the file cannot be marked, and is as it was.
    """
    carrier = carrier_of(path)
    if carrier is None:
        return None
    descriptor, name = tempfile.mkstemp(prefix=".marking-", dir=path.parent)
    made = Path(name)
    try:
        with path.open("rb") as source, os.fdopen(descriptor, "wb") as target:
            carrier.write(source, target, label.to_json())
        made.chmod(path.stat().st_mode & 0o777)
        made.replace(path)
    except (*BROKEN, OSError) as error:
        with suppress(OSError):
            made.unlink(missing_ok=True)
        raise MarkingFailed(path.name, _reason(error)) from error
    return carrier.name


def find_labels(file: BinaryIO) -> list[dict[str, str]]:
    """Return the labels of a file: none or one, or more where somebody has put in another.

    Raises:
        Malformed: the file cannot be read.
    """
    carrier = CARRIERS.get(type_of(file))
    if carrier is None:
        return []
    try:
        found = carrier.read(file)
    except BROKEN as error:
        raise Malformed(_reason(error)) from error
    return [label for text in found if (label := parse_label(text)) is not None]


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or "the disk"
    return str(error) if isinstance(error, Malformed) else "a part that is not as its format says"
