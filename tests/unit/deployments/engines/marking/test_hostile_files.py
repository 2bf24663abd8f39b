"""Files that are made to hurt whoever reads them end with a word, soon."""

import io
import struct

import pytest

from deployments.engines.marking.inspection import inspect
from deployments.engines.marking.mp4 import MAX_BOXES
from deployments.engines.marking.streams import MAX_PARTS

PNG = b"\x89PNG\r\n\x1a\n"
BOX = struct.Struct(">I4s")
FTYP = BOX.pack(16, b"ftyp") + b"isom\0\0\0\0"

HOSTILE = {
    "a PNG of empty chunks": PNG + (struct.pack(">I4s", 0, b"abcd") + b"\0\0\0\0") * (MAX_PARTS + 1),
    "a PNG chunk of 4 GiB": PNG + struct.pack(">I4s", 0xFFFFFFFF, b"IDAT"),
    "a JPEG of empty segments": b"\xff\xd8" + b"\xff\xe2\x00\x02" * (MAX_PARTS + 1),
    "a JPEG segment shorter than its head": b"\xff\xd8\xff\xe1\x00\x01" + bytes(20),
    "a WebP of empty chunks": b"RIFF\0\0\0\0WEBP" + b"abcd\0\0\0\0" * (MAX_PARTS + 1),
    "an MP4 of empty boxes": FTYP + BOX.pack(8, b"free") * (MAX_PARTS + 1),
    "an MP4 box longer than the file": FTYP + BOX.pack(2**31, b"moov") + bytes(20),
    "a movie of empty boxes": FTYP + BOX.pack(8 + 8 * (MAX_PARTS + 1), b"moov") + BOX.pack(8, b"free") * (MAX_PARTS + 1),
    "a track of empty boxes": FTYP
    + BOX.pack(16 + 8 * (MAX_BOXES + 1), b"moov")
    + BOX.pack(8 + 8 * (MAX_BOXES + 1), b"trak")
    + BOX.pack(8, b"free") * (MAX_BOXES + 1),
    "empty boxes behind a movie": FTYP + BOX.pack(8, b"moov") + BOX.pack(8, b"free") * (MAX_BOXES + 1),
    "tracks in tracks": FTYP + b"".join(BOX.pack(8 * (depth + 1), b"trak" if depth < 5000 else b"moov") for depth in range(5000, -1, -1)),
    "a movie behind empty boxes": FTYP + BOX.pack(8, b"free") * (MAX_BOXES + 1) + BOX.pack(8, b"moov"),
    "an ID3 frame longer than its tag": b"ID3\x04\0\0\0\0\0\x14TXXX\0\0\x7f\x7f" + bytes(20),
    "a GIF that is its head": b"GIF89a" + bytes(7),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_has_no_label_and_a_reason(data):
    found = inspect(io.BytesIO(data))
    assert found.aigc == ()
    assert found.problem
