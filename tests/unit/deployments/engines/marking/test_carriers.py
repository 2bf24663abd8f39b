"""Marks are read back by readers that are not ours: Pillow, FFmpeg (PyAV), the wave module, and exiv2 and ffprobe where installed."""

import io
import json
import shutil
import subprocess
import wave

import av
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deployments.engines.marking.carriers import find_labels, put_label
from deployments.engines.marking.label import AigcLabel, find_in_xmp, parse_label
from deployments.jobs.errors import MarkingFailed

LABEL = AigcLabel("001191110000000000000000", "5d1c1f0e-58c2-4d0a-9f8b-0d8a7a4c9b11")
OTHER = AigcLabel("other", "before")
PIXELS = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def labels_of(path):
    with path.open("rb") as file:
        return find_labels(file)


def picture(path, **options):
    Image.fromarray(PIXELS).save(path, **options)


def animation(path):
    frames = [Image.fromarray(np.roll(PIXELS, step, 0)) for step in (0, 8, 16)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40, loop=0)


def sound(path, codec, container):
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=44100)
        tone = (np.sin(np.arange(44100) / 20) * 9000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.rate = 44100
        for made in av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=44100).resample(frame):
            out.mux(stream.encode(made))
        out.mux(stream.encode())


def film(path, **options):
    with av.open(str(path), "w", options=options, format="mov" if path.suffix == ".mov" else "mp4") as out:
        out.metadata["title"] = "a title"
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for step in range(25):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(PIXELS, step, 0), format="rgb24")))
        out.mux(stream.encode())


MAKERS = {
    "a.png": picture,
    "a.jpg": picture,
    "lossy.webp": picture,
    "lossless.webp": lambda path: picture(path, lossless=True),
    "animated.webp": animation,
    "a.gif": picture,
    "animated.gif": animation,
    "end.mp4": film,
    "start.mp4": lambda path: film(path, movflags="faststart"),
    "tagged.mp4": lambda path: film(path, movflags="faststart+use_metadata_tags"),
    "a.mov": film,
    "a.wav": lambda path: sound(path, "pcm_s16le", "wav"),
    "a.mp3": lambda path: sound(path, "mp3", "mp3"),
}


@pytest.fixture(params=MAKERS)
def media(request, tmp_path):
    path = tmp_path / request.param
    MAKERS[request.param](path)
    return path


def decoded(path):
    """Return every picture or sample of a file as FFmpeg or Pillow sees it."""
    if path.suffix in {".png", ".jpg", ".webp", ".gif"}:
        with Image.open(path) as image:
            shown = []
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                shown.append((image.convert("RGBA").tobytes(), image.info.get("duration")))
            return shown
    with av.open(str(path)) as container:
        return [(frame.pts, frame.to_ndarray().tobytes()) for frame in container.decode(container.streams[0])]


def outside(path):
    """Return the label's JSON as a reader that is not ours finds it."""
    if path.suffix in {".mp4", ".mov", ".mp3"}:
        with av.open(str(path)) as container:
            return container.metadata["AIGC"]
    if path.suffix == ".wav":
        return path.read_bytes().partition(b"AIGC")[2][4:].partition(b"}")[0].decode() + "}"
    with Image.open(path) as image:
        if path.suffix == ".png":
            return image.info["AIGC"]
        if path.suffix == ".gif":
            name, place = image.info["extension"]
            assert name == b"XMP DataXMP"
            return find_in_xmp(path.read_bytes()[place:].partition(b"\x01\xff\xfe")[0])[0]
        packet = image.info["xmp"]
        packet = packet if isinstance(packet, bytes) else packet.encode()
        return find_in_xmp(packet)[0]


def test_a_label_is_read_back_and_nothing_else_has_changed(media):
    before = decoded(media)
    carrier = put_label(media, OTHER)
    put_label(media, LABEL)
    assert carrier
    assert json.loads(outside(media)) == json.loads(LABEL.to_json())
    assert labels_of(media) == [json.loads(LABEL.to_json())]
    assert decoded(media) == before
    assert sorted(path.name for path in media.parent.iterdir()) == [media.name]


def test_a_wav_with_a_label_still_opens_in_the_wave_module(tmp_path):
    path = tmp_path / "a.wav"
    sound(path, "pcm_s16le", "wav")
    put_label(path, LABEL)
    with wave.open(str(path)) as opened:
        assert (opened.getnframes(), opened.getframerate()) == (44100, 44100)


@pytest.mark.parametrize("name", ["end.mp4", "start.mp4", "tagged.mp4"])
def test_a_film_keeps_what_else_its_metadata_say(name, tmp_path):
    path = tmp_path / name
    MAKERS[name](path)
    put_label(path, LABEL)
    with av.open(str(path)) as container:
        assert container.metadata["title"] == "a title"


def test_xmp_that_a_picture_has_is_kept(tmp_path):
    for name in ("a.jpg", "a.webp"):
        path = tmp_path / name
        packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="image/x"/></rdf:RDF></x:xmpmeta>'
        picture(path, xmp=packet)
        put_label(path, LABEL)
        with Image.open(path) as image:
            assert b'dc:format="image/x"' in image.info["xmp"]
            assert len(find_in_xmp(image.info["xmp"])) == 1


@pytest.mark.skipif(shutil.which("exiv2") is None, reason="exiv2 is not installed")
@pytest.mark.parametrize("name", ["a.jpg", "lossy.webp", "lossless.webp"])
def test_exiv2_reads_the_label(name, tmp_path):
    path = tmp_path / name
    MAKERS[name](path)
    put_label(path, LABEL)
    said = subprocess.run(["exiv2", "-PXkv", str(path)], capture_output=True, text=True, check=True).stdout
    assert LABEL.to_json() in said


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
@pytest.mark.parametrize("name", ["end.mp4", "start.mp4", "a.mov", "a.mp3"])
def test_ffprobe_reads_the_label(name, tmp_path):
    path = tmp_path / name
    MAKERS[name](path)
    put_label(path, LABEL)
    said = subprocess.run(["ffprobe", "-v", "error", "-show_format", "-of", "json", str(path)], capture_output=True, check=True).stdout
    assert json.loads(json.loads(said)["format"]["tags"]["AIGC"])["ProduceID"] == LABEL.produce_id


def test_what_has_no_carrier_is_left_alone(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{}")
    assert put_label(path, LABEL) is None
    assert (path.read_text(), labels_of(path)) == ("{}", [])


def test_a_file_that_is_cut_off_is_refused_and_stays_as_it_was(media):
    if media.suffix in {".wav", ".mp3", ".gif"}:
        pytest.skip("players take such a file, and so do we")
    broken = media.read_bytes()[:40]
    media.write_bytes(broken)
    with pytest.raises(MarkingFailed, match="not published"):
        put_label(media, LABEL)
    assert media.read_bytes() == broken
    assert [path.name for path in media.parent.iterdir()] == [media.name]


@pytest.mark.parametrize("name", ["a b", 'a"b', "a\\b", "名"])
def test_a_label_refuses_characters_that_its_rule_does_not_allow(name):
    with pytest.raises(ValueError, match="codes"):
        AigcLabel(name, "x")


def test_parse_label_takes_both_shapes_of_the_wild():
    bare = json.loads(LABEL.to_json())
    assert parse_label(json.dumps(bare)) == parse_label(json.dumps({"AIGC": bare})) == bare
    assert [parse_label(text) for text in ("", "[1]", "{}", "[" * 100_000)] == [None] * 4


def test_png_labels_of_others_are_found_and_replaced(tmp_path):
    path, info = tmp_path / "a.png", PngInfo()
    info.add_itxt("AIGC", json.dumps({"AIGC": json.loads(OTHER.to_json())}), zip=True)
    info.add_text("prompt", '{"3": {}}')
    picture(path, pnginfo=info)
    assert labels_of(path) == [json.loads(OTHER.to_json())]
    put_label(path, LABEL)
    assert labels_of(path) == [json.loads(LABEL.to_json())]
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        assert image.info["prompt"] == '{"3": {}}'
