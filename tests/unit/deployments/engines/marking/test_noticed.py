"""Labels that people see and hear: profile cn."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo

from deployments.engines.marking.carriers import find_labels
from deployments.engines.marking.config import MarkingConfig
from deployments.engines.marking.marker import FileMarker, show_label
from deployments.engines.marking.rhythm import PAUSE_S, RHYTHM, UNIT_S, rhythm
from deployments.engines.marking.visible import draw_label
from deployments.jobs.errors import MarkingFailed
from deployments.jobs.ports import OutputFile

SAMPLES = Path(__file__).parents[5] / "serve_app" / "samples"
WORDS = "AI生成"


def words_box(image):
    """Return (height, width) of what is nearly white on a black picture."""
    rows, columns = np.nonzero(image.max(axis=2) > 128)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


@pytest.mark.parametrize("words", ["AI生成", "AI合成", "人工智能生成", "人工智能合成"])
@pytest.mark.parametrize("size", [(512, 512), (1920, 1080), (1080, 1920), (3840, 2160), (300, 1600), (1600, 300), (128, 128), (640, 361)])
def test_the_words_are_a_twentieth_of_the_shortest_side_high_and_whole(size, words):
    width, height = size
    image = draw_label(np.zeros((height, width, 3), np.uint8), words)
    high, wide = words_box(image)
    assert high >= 0.05 * min(size)
    assert high <= max(0.075 * min(size), 14)
    assert wide >= 2.5 * high, "cut off"
    rows, columns = np.nonzero(image.max(axis=2) > 128)
    assert rows.max() < height - 1
    assert columns.max() < width - 1


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_the_words_can_be_read_over_anything(shade):
    image = draw_label(np.full((400, 400, 3), shade, np.uint8), WORDS)
    place = image[330:, 250:].reshape(-1, 3).max(axis=1)
    assert place.max() == 255
    assert np.percentile(place, 5) < 110, "there is a dark plate behind them"


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (64, 64), (3, 500)])
def test_a_tiny_picture_breaks_nothing(size):
    image = draw_label(np.zeros((size[1], size[0], 3), np.uint8), WORDS)
    assert image.max() > 0
    draw_label(np.zeros((1, 1, 3), np.uint8), WORDS)


def test_a_picture_keeps_its_metadata_and_is_upright(tmp_path):
    path, texts = tmp_path / "a.png", PngInfo()
    texts.add_text("workflow", '{"a": 1}')
    texts.add_itxt("note", "gemalt für dich")
    Image.new("RGB", (300, 200)).save(path, pnginfo=texts, dpi=(72, 72))
    show_label(path, WORDS)
    with PngImageFile(path) as image:
        assert (image.text["workflow"], image.text["note"], image.size) == ('{"a": 1}', "gemalt für dich", (300, 200))
    turned = tmp_path / "b.jpg"
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a title"  # to be turned a quarter
    Image.new("RGB", (300, 200)).save(turned, exif=exif)
    show_label(turned, WORDS)
    with Image.open(turned) as image:
        assert (image.size, image.getexif().get(0x0112), image.getexif()[0x010E]) == ((200, 300), None, "a title")
        rows, columns = np.nonzero(np.asarray(image.convert("L")) > 128)
    assert rows.min() > 250
    assert columns.min() > 100


def test_what_was_clear_stays_clear_but_for_the_label(tmp_path):
    path = tmp_path / "a.webp"
    Image.new("RGBA", (400, 400), (9, 9, 9, 0)).save(path, lossless=True)
    show_label(path, WORDS)
    with Image.open(path) as image:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    assert (alpha[:300].max(), alpha[330:].max()) == (0, 255)


def test_every_frame_of_a_moving_picture_is_labelled(tmp_path):
    path = tmp_path / "a.gif"
    frames = [Image.new("RGB", (200, 100), (0, 60 * n, 0)) for n in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 200, 300], loop=0)
    show_label(path, WORDS)
    with GifImageFile(path) as image:
        assert (image.n_frames, image.info["loop"]) == (3, 0)
        for n, lasts in enumerate((100, 200, 300)):
            image.seek(n)
            assert image.info["duration"] == lasts
            assert np.asarray(image.convert("RGB"))[70:, 100:].max() > 240


@pytest.mark.slow
def test_a_video_is_labelled_for_its_first_seconds_and_keeps_its_sound(tmp_path):
    path = tmp_path / "a.mp4"
    rate = 10
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        sound = container.add_stream("aac", 44_100, layout="mono")
        for _ in range(6 * rate):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.full((240, 320, 3), 20, np.uint8), format="rgb24")))
        container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(np.sin(np.arange(44_100 * 6) / 20, dtype=np.float32)[None], format="fltp", layout="mono")
        frame.sample_rate = 44_100
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with av.open(str(path)) as container:
        before = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    assert show_label(path, WORDS) == WORDS
    with av.open(str(path)) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        assert [bytes(packet) for packet in container.demux(audio=0) if packet.size] == before
    labelled = [time for time, image in frames if image[200:, 200:].max() > 200]
    assert len(frames) == 60
    assert labelled[0] == 0.0
    assert 2.0 <= labelled[-1] <= 3.0
    assert len(labelled) == sum(time <= labelled[-1] for time, _ in frames), "without a gap"


@pytest.mark.parametrize("kind", ["wav", "mp3", "flac", "m4a"])
def test_a_sound_begins_with_the_rhythm_and_goes_on_as_it_was(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "wav":
        shutil.copy(SAMPLES / "librivox_speech.wav", path)
    else:
        with av.open(str(SAMPLES / "librivox_speech.wav")) as source, av.open(str(path), "w") as target:
            stream = target.add_stream({"mp3": "libmp3lame", "flac": "flac", "m4a": "aac"}[kind], source.streams.audio[0].rate)
            for frame in source.decode(audio=0):
                frame.pts = None
                target.mux(stream.encode(frame))
            target.mux(stream.encode(None))
    before, rate = samples_of(path)
    assert show_label(path, WORDS) == "rhythm"
    after, same_rate = samples_of(path)
    assert same_rate == rate
    added = (sum(RHYTHM) + len(RHYTHM)) * UNIT_S + PAUSE_S
    assert abs((len(after) - len(before)) / rate - added) < 0.12, "codecs fill up their last block"
    loud = np.array([np.abs(after[int(t * rate) : int((t + 0.02) * rate)]).max() > 0.1 for t in np.arange(0, added, 0.02)])
    turns = np.flatnonzero(np.diff(loud.astype(int)))
    lengths = np.diff(turns if not loud[0] else np.concatenate([[-1], turns])) * 0.02
    tones = lengths[::2][:4]
    assert [round(length / UNIT_S) for length in tones] == list(RHYTHM)
    begin = len(rhythm(rate))
    if kind in {"wav", "flac"}:
        assert np.allclose(after[begin : begin + 3 * rate], before[: 3 * rate], atol=1e-3)
    else:  # a codec that loses something shifts it too
        power = [np.sqrt(np.mean(block**2)) for block in (after[begin : begin + 3 * rate], before[: 3 * rate])]
        assert power[0] == pytest.approx(power[1], rel=0.1)


def samples_of(path):
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray().ravel() for frame in frames]), rate


def test_what_should_be_noticed_and_cannot_is_not_published(tmp_path):
    for name, data in (
        ("a.webm", b"\x1aE\xdf\xa3\x01\x00\x00\x00\x00\x00\x00\x1fB\x86\x81\x01B\x82\x84webm"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(99)),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(MarkingFailed):
            show_label(path, WORDS)
        assert path.read_bytes() == data
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.png", "a.webm"]
    words = tmp_path / "a.json"
    words.write_text("{}")
    assert show_label(words, WORDS) is None


class OneJob:
    id, kind, spec = "job-1", "faceswap", {}


def test_profile_cn_has_both_labels_and_says_so(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (300, 300)).save(path)
    marks = FileMarker(MarkingConfig(profile="cn")).mark(OneJob(), OutputFile(path, "a.png", "image/png"), {})
    assert marks == {"shown": WORDS, "aigc": "PNG tEXt AIGC"}
    with path.open("rb") as file:
        assert find_labels(file)[0]["ProduceID"] == "job-1"
    with Image.open(path) as image:
        assert np.asarray(image)[250:, 150:].max() > 240
    plain = tmp_path / "b.png"
    Image.new("RGB", (300, 300)).save(plain)
    assert FileMarker(MarkingConfig()).mark(OneJob(), OutputFile(plain, "b.png", "image/png"), {}) == {"aigc": "PNG tEXt AIGC"}
    with Image.open(plain) as image:
        assert np.asarray(image).max() == 0
