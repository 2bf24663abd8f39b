import io
import time

import pytest
from PIL import Image

from deployments.engines.media.jpeg_scans import MAX_SCANS, MAX_SEGMENTS, check_scans
from deployments.engines.media.picture import load_picture, picture_size
from deployments.jobs.errors import MediaTooLarge


def jpeg(**options):
    buffer = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def segment(kind, body=b""):
    return bytes((0xFF, kind)) + (len(body) + 2).to_bytes(2) + body


def with_scans(count):
    """Repeat the last scan of a progressive picture."""
    data = jpeg(progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (count - data.count(b"\xff\xda") + 1) + data[-2:]


@pytest.fixture
def stored(tmp_path):
    def store(data):
        (tmp_path / "picture").write_bytes(data)
        return tmp_path / "picture"

    return store


def test_progressive_bomb_is_refused_before_decoding(stored, limits):
    path = stored(with_scans(MAX_SCANS + 1))
    for read in (check_scans, lambda p: picture_size(p, limits), lambda p: load_picture(p, limits)):
        with pytest.raises(MediaTooLarge, match="more than 100 scans"):
            read(path)


@pytest.mark.parametrize("data", [jpeg(), jpeg(progressive=True), with_scans(MAX_SCANS)], ids=["baseline", "progressive", "hundred"])
def test_load_picture_takes_up_to_a_hundred_scans(stored, limits, data):
    assert load_picture(stored(data), limits).shape == (256, 256, 3)


@pytest.mark.parametrize(
    "data",
    [
        jpeg()[:2] + segment(0xE1, b"\xff\xda\x00\x02" * 200) + jpeg()[2:],
        jpeg()[:2] + segment(0xFE, b"\xff\xda" * 200) + jpeg()[2:],
        jpeg(restart_marker_blocks=1) + segment(0xDA) * 200,
        b"\xff\xd8" + b"\xff\x00" * 200 + b"\xff" * 200 + b"\xd9",
        b"\xff\xd8\xff\x01" + segment(0xDA),
        b"\xff\xd8",
        b"\xff\xd8\xff\xe0\xff",
        b"",
        b"\x89PNG" + segment(0xDA) * 200,
    ],
    ids=["exif", "comment", "behind-the-end", "stuffed", "alone", "start", "cut", "empty", "png"],
)
def test_check_scans_counts_markers_only(stored, data):
    check_scans(stored(data))


def test_filling_and_stuffing_before_a_marker_hide_no_scan(stored):
    with pytest.raises(MediaTooLarge, match="scans"):
        check_scans(stored(b"\xff\xd8" + (b"\xff\x00\xff\xd0\xff\xff\xff" + segment(0xDA)[1:]) * (MAX_SCANS + 1)))


def test_check_scans_refuses_a_flood_of_segments(stored):
    with pytest.raises(MediaTooLarge, match="more than 5000 segments"):
        check_scans(stored(b"\xff\xd8" + segment(0xFE) * (MAX_SEGMENTS + 1)))


@pytest.mark.parametrize("run", [b"\xff", b"\xff\x00", b"\x00", b"\xff\xd0"])
def test_check_scans_is_linear(stored, run):
    path = stored(b"\xff\xd8" + run * (4_000_000 // len(run)))
    start = time.process_time()
    check_scans(path)
    assert time.process_time() - start < 1  # 0.02 s; a backtracking search takes minutes
