"""How often a JPEG wants its picture decoded: a progressive one is refined scan by scan, and each scan passes over every pixel.

A scan may be ten bytes long: a file of 1 MB can order a hundred thousand passes over forty million pixels.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import Final

from deployments.jobs.errors import MediaTooLarge

MAX_SCANS: Final = 100  # libjpeg's own script for progressive files has 10, the longest in use about 20; Pillow sets no limit
MAX_SEGMENTS: Final = 5000  # Pillow walks them in Python; an ICC profile may take 255, and each scan some tables

_SOI = b"\xff\xd8"
_EOI, _SOS, _TEM = 0xD9, 0xDA, 0x01  # ITU-T T.81, table B.1
_ALONE: Final = frozenset({0xD8, _TEM})  # markers without a length behind them
# A marker as libjpeg looks for it: FF 00 is a stuffed data byte, FF FF is filling, and D0 to D7 are restarts inside of a scan.
_MARKER: Final = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")


def check_scans(source: Path | bytes) -> None:
    """Refuse a JPEG with more scans than an encoder writes; any other file passes. Nothing is decoded.

    Raises:
        MediaTooLarge: over ``MAX_SCANS`` or ``MAX_SEGMENTS``.
    """
    if isinstance(source, bytes):
        if source.startswith(_SOI):
            _walk(source)
        return
    with source.open("rb") as file:
        if file.read(2) == _SOI:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                _walk(data)


def _walk(data: mmap.mmap | bytes) -> None:
    """Go from segment to segment, over what they hold: the small JPEG inside of EXIF has scans of its own."""
    scans = segments = 0
    at = len(_SOI)
    while marker := _MARKER.search(data, at):
        kind, at = marker[1][0], marker.end()
        segments += 1
        scans += kind == _SOS
        if scans > MAX_SCANS:
            raise MediaTooLarge(f"the JPEG has more than {MAX_SCANS} scans: save it again, for example as baseline JPEG")
        if segments > MAX_SEGMENTS:
            raise MediaTooLarge(f"the JPEG has more than {MAX_SEGMENTS} segments: save it again without metadata")
        if kind == _EOI:
            return
        if kind not in _ALONE:
            at += max(int.from_bytes(data[at : at + 2]), 2)
