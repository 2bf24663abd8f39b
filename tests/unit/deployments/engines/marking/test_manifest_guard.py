"""What is not handed to c2pa: an input may be made to hold a worker's thread."""

import struct

import pytest

from deployments.engines.marking import manifest


def box(kind, content=b""):
    return struct.pack(">I4s", 8 + len(content), kind) + content


@pytest.mark.parametrize(("count", "asked"), [(20_000, False), (20, True)])
def test_an_mp4_of_very_many_boxes_is_not_read_for_a_manifest(tmp_path, monkeypatch, count, asked):
    path, read = tmp_path / "boxes.mp4", []
    path.write_bytes(box(b"ftyp", b"isom\0\0\0\0isom") + box(b"moov", box(b"free") * count) + box(b"mdat", b"x"))
    monkeypatch.setattr(manifest, "read_manifest", read.append)

    manifest.has_manifest(path)

    assert bool(read) is asked
