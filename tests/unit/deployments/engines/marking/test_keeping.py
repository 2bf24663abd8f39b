"""What a plain copy or a new save keeps of the label: the table of docs/marking.md."""

import av
import pytest
from PIL import Image

from deployments.engines.marking.carriers import put_label
from deployments.engines.marking.label import AigcLabel
from tests.unit.deployments.engines.marking.test_carriers import MAKERS, labels_of

LABEL = AigcLabel("studio", "job")


def remux(source, target, **options):
    with av.open(str(source)) as read, av.open(str(target), "w", options=options) as written:
        written.metadata.update(read.metadata)
        copied = written.add_stream_from_template(read.streams[0])
        for packet in read.demux(read.streams[0]):
            if packet.dts is not None:
                packet.stream = copied
                written.mux(packet)


@pytest.fixture
def marked(tmp_path):
    def make(name):
        path = tmp_path / name
        MAKERS[name](path)
        put_label(path, LABEL)
        return path

    return make


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "lossy.webp", "a.gif"])
def test_a_picture_that_pillow_saves_again_has_lost_its_label(name, marked):
    path = marked(name)
    with Image.open(path) as image:
        image.save(path.with_name(f"again-{name}"))
    assert labels_of(path.with_name(f"again-{name}")) == []


@pytest.mark.parametrize(
    ("name", "options", "kept"),
    [
        ("end.mp4", {}, False),
        ("end.mp4", {"movflags": "use_metadata_tags"}, True),
        ("a.mov", {}, False),
        ("a.wav", {}, False),
        ("a.mp3", {}, True),
    ],
)
def test_a_copy_by_ffmpeg_keeps_the_label_or_loses_it(name, options, kept, marked):
    path = marked(name)
    copy = path.with_name(f"copy-{name}")
    remux(path, copy, **options)
    assert bool(labels_of(copy)) is kept
