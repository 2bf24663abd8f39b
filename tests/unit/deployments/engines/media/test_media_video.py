import gc
import threading
import time
from fractions import Fraction

import av
import numpy as np
import pytest

from deployments.engines.media import video as video_module
from deployments.engines.media.container import open_media
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.probe import probe
from deployments.engines.media.reader import VideoReader
from deployments.engines.media.video import FrameProgress, transform_video
from deployments.engines.media.writer import VideoWriter
from deployments.jobs.errors import EngineFailed, MediaTooLarge, UnsupportedMedia


def same(frame, _):
    return frame


def run(source, destination, change=same, *, limits=None, **options):
    return list(transform_video(source, destination, change, limits=limits or MediaLimits(), **options))


def times(path):
    with av.open(path) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def pictures(path):
    with av.open(path) as container:
        return [frame.to_ndarray(format="bgr24").astype(float) for frame in container.decode(video=0)]


def sound(path):
    with av.open(path) as container:
        stream = container.streams.audio[0]
        return stream.codec_context.name, [
            (packet.pts * packet.time_base, bytes(packet)) for packet in container.demux(stream) if packet.size
        ]


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((np.asarray(a, float) - b) ** 2))


def test_transform_video_keeps_length_sound_and_reports_every_frame(samples, tmp_path):
    source, out = samples / "woman_face.mp4", tmp_path / "out.mp4"

    progress = run(source, out)

    assert progress == [FrameProgress(n, 50) for n in range(1, 51)]
    assert times(out) == times(source)
    assert sound(out) == sound(source)
    before, after = probe(source, MediaLimits()), probe(out, MediaLimits())
    assert after == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_transform_video_puts_the_index_in_front(samples, tmp_path):
    run(samples / "woman_face.mp4", tmp_path / "out.mp4")
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_transform_video_calls_change_in_order_on_upright_bgr(make_video, tmp_path):
    seen = []

    def change(frame, n):
        seen.append((n, frame.shape, frame.dtype, frame.flags.c_contiguous, frame.flags.writeable))
        frame[:] = (200, 30, 40)
        return frame

    run(make_video(), tmp_path / "out.mp4", change)

    assert seen == [(n, (120, 160, 3), np.uint8, True, True) for n in range(10)]
    assert all(np.abs(picture - (200, 30, 40)).max() <= 3 for picture in pictures(tmp_path / "out.mp4"))


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1},
        {"colorspace": 6, "color_primaries": 6, "color_trc": 6, "color_range": 1},
    ],
)
def test_transform_video_keeps_colours(make_video, tmp_path, picture, tags, monkeypatch):
    monkeypatch.setattr("deployments.engines.media.writer.X264_OPTIONS", {"preset": "ultrafast", "crf": "1"})
    wanted, got = [], []
    source = make_video(color=tags, draw=lambda n: picture(320, 240, seed=n))

    def first(frame, _):
        wanted.append(frame.astype(float))
        return frame

    def second(frame, _):
        got.append(frame.astype(float))
        return frame

    run(source, tmp_path / "one.mp4", first)
    run(tmp_path / "one.mp4", tmp_path / "two.mp4", second)

    assert psnr(wanted, np.asarray(got)) >= 45
    assert np.abs(np.mean(np.asarray(got) - wanted, axis=(0, 1, 2))).max() < 0.3
    with av.open(tmp_path / "one.mp4") as container:
        context = container.streams.video[0].codec_context
        written = {tag: getattr(context, tag) for tag in tags}
        assert context.pix_fmt == "yuv420p"
    assert written == tags


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv444p", "yuvj420p"])
def test_transform_video_reads_other_pixel_formats(make_video, tmp_path, picture, pix_fmt):
    run(make_video(pix_fmt=pix_fmt), tmp_path / "out.mp4")
    assert psnr(pictures(tmp_path / "out.mp4"), [picture(seed=n) for n in range(10)]) > 30


def corner(_):
    frame = np.zeros((120, 160, 3), np.uint8)
    frame[:60, :80] = 255
    return frame


@pytest.mark.parametrize(("rotation", "row", "column"), [(0, 30, 40), (90, 120, 30), (180, 90, 120), (270, 40, 90)])
def test_transform_video_applies_rotation(make_video, tmp_path, rotation, row, column):
    run(make_video(draw=corner, rotation=rotation), tmp_path / "out.mp4")

    frame = pictures(tmp_path / "out.mp4")[0]

    assert frame.shape == ((160, 120, 3) if rotation in (90, 270) else (120, 160, 3))
    assert frame[row, column].min() > 240
    assert frame.mean() == pytest.approx(255 / 4, abs=3)


def test_transform_video_keeps_a_variable_frame_rate(make_video, tmp_path):
    ticks = (0, 1, 2, 5, 6, 9, 10, 11, 20, 21)
    source = make_video(pts=ticks, time_base=Fraction(1, 30), fps=30)

    run(source, tmp_path / "out.mp4")

    assert times(tmp_path / "out.mp4") == [Fraction(tick, 30) for tick in ticks]


def test_transform_video_shows_the_last_frame_as_long_as_before(make_video, tmp_path):
    source = make_video(pts=(0, 1, 2, 3, 13))
    run(source, tmp_path / "out.mp4")
    before, after = (probe(path, MediaLimits()).duration_s for path in (source, tmp_path / "out.mp4"))
    assert after == pytest.approx(before, abs=0.04)


@pytest.mark.parametrize(("size", "expected"), [(None, (160, 120)), ((320, 240), (320, 240)), ((80, 60), (80, 60))])
def test_transform_video_scales_after_the_change(make_video, tmp_path, picture, size, expected):
    run(make_video(), tmp_path / "out.mp4", size=size)
    frame = pictures(tmp_path / "out.mp4")[0]
    assert frame.shape == (expected[1], expected[0], 3)
    assert np.abs(frame.mean((0, 1)) - picture().mean((0, 1))).max() < 4  # the plain decoder of this test darkens by two levels


def test_transform_video_cuts_an_odd_line_instead_of_blurring(make_video, tmp_path, monkeypatch):
    monkeypatch.setattr("deployments.engines.media.writer.X264_OPTIONS", {"preset": "ultrafast", "crf": "1"})
    stripes = np.zeros((91, 121, 3), np.uint8)
    stripes[::2] = 255

    run(make_video(draw=lambda _: stripes, pix_fmt="yuv444p"), tmp_path / "out.mp4")

    frame = pictures(tmp_path / "out.mp4")[0]
    assert frame.shape == (90, 120, 3)
    assert frame[::2].min() > 250
    assert frame[1::2].max() < 5


def test_transform_video_keeps_the_shape_of_pixels(make_video, tmp_path):
    run(make_video(pixel_aspect=Fraction(4, 3), rotation=90), tmp_path / "out.mp4")
    with av.open(tmp_path / "out.mp4") as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(3, 4)


@pytest.mark.parametrize(
    ("name", "codec", "audio", "kept"),
    [
        ("a.webm", "libvpx-vp9", "libopus", "opus"),
        ("a.mkv", "libx264", "flac", "flac"),
        ("a.avi", "mpeg4", "libmp3lame", "mp3float"),
        ("a.mkv", "libx264", "ac3", "ac3"),
    ],
)
def test_transform_video_passes_sound_through(make_video, tmp_path, name, codec, audio, kept):
    source = make_video(name, codec=codec, audio=audio)
    run(source, tmp_path / "out.mp4")
    found, packets = sound(tmp_path / "out.mp4")
    assert found == kept
    assert [data for _, data in packets] == [data for _, data in sound(source)[1]]


@pytest.mark.parametrize(("name", "codec", "audio"), [("a.mov", "libx264", "pcm_s16le"), ("a.avi", "mpeg4", "pcm_s16le")])
def test_transform_video_encodes_sound_that_mp4_cannot_hold(make_video, tmp_path, name, codec, audio):
    run(make_video(name, codec=codec, audio=audio, pts=range(25)), tmp_path / "out.mp4")
    found, packets = sound(tmp_path / "out.mp4")
    assert found == "aac"
    assert float(packets[-1][0]) == pytest.approx(1.0, abs=0.05)


def test_transform_video_reads_a_gif(tmp_path, make_video):
    source = make_video("a.gif", codec="gif", pix_fmt="rgb8", fps=10)
    run(source, tmp_path / "out.mp4")
    assert len(times(tmp_path / "out.mp4")) == 10


def write_growing(path, picture, *parts):
    """Write H.264 streams of (frames, width, height), one behind the other: legal, and a way around a limit that only looks at the header."""
    packets = []
    for count, width, height in parts:
        encoder = av.CodecContext.create("libx264", "w")
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
        encoder.options = {"x264-params": "repeat-headers=1:bframes=0:threads=1:ref=1", "preset": "ultrafast", "tune": "zerolatency"}
        frame = av.VideoFrame.from_ndarray(picture(width, height), format="bgr24").reformat(format="yuv420p")
        for n in range(count):
            frame.pts = n
            packets += [bytes(packet) for packet in encoder.encode(frame)]
        packets += [bytes(packet) for packet in encoder.encode()]
    raw_path = path.with_suffix(".h264")
    raw_path.write_bytes(b"".join(packets))
    with av.open(raw_path, format="h264") as raw, av.open(path, "w") as output:
        stream = output.add_stream_from_template(raw.streams.video[0])
        for n, packet in enumerate(packet for packet in raw.demux() if packet.size):
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, n * 40, n * 40, Fraction(1, 1000)
            output.mux(packet)
    return path


def test_transform_video_takes_frames_that_change_their_size(tmp_path, picture):
    path = write_growing(tmp_path / "jump.mkv", picture, (5, 160, 120), (5, 320, 240))

    shapes = set()

    def note_shape(frame, _):
        shapes.add(frame.shape)
        return frame

    run(path, tmp_path / "out.mp4", note_shape)

    assert shapes == {(120, 160, 3)}
    with pytest.raises(MediaTooLarge, match="320x240"):
        run(path, tmp_path / "out.mp4", limits=MediaLimits(max_video_pixels=200 * 200))


def test_frames_that_grow_over_the_limit_are_refused_without_their_memory(tmp_path):
    def flat(width, height):
        return np.full((height, width, 3), 90, np.uint8)

    path = write_growing(tmp_path / "late.avi", flat, (60, 64, 64), (2, 1024, 1024))
    with pytest.raises((UnsupportedMedia, MediaTooLarge)):
        run(path, tmp_path / "out.mp4", limits=MediaLimits(max_video_pixels=256 * 256))
    with open_media(path, "video/x-msvideo", MediaLimits(max_video_pixels=256 * 256)) as container, pytest.raises(av.FFmpegError):
        for frame in container.decode(video=0):
            assert frame.width == 64  # the decoder itself refuses, before anyone could look at the frame
    with open_media(path, "video/x-msvideo", MediaLimits()) as container:
        assert {frame.width for frame in container.decode(video=0)} == {64, 1024}


def test_transform_video_encodes_mp3_of_low_rates_again(make_video, tmp_path):
    run(make_video("a.mkv", audio="libmp3lame", audio_rate=8000), tmp_path / "out.mp4")
    assert sound(tmp_path / "out.mp4")[0] == "aac"
    run(make_video("b.mkv", audio="libmp3lame", audio_rate=16_000), tmp_path / "out.mp4")
    assert sound(tmp_path / "out.mp4")[0] == "mp3float"


def test_closing_the_generator_works_within_a_long_sound(make_video, tmp_path):
    source = make_video("a.mkv", audio="flac", audio_s=60, pts=(0, 1))
    items = transform_video(source, tmp_path / "out.mp4", same, limits=MediaLimits())

    seen = [next(items) for _ in range(4)]
    items.close()

    assert max(progress.frame for progress in seen) <= 2  # more reports than frames
    assert threads() == []
    assert not (tmp_path / "out.mp4").exists()


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("video")]


def test_closing_the_generator_stops_threads_and_removes_the_file(samples, tmp_path):
    items = transform_video(samples / "woman_hand_over_face.mp4", tmp_path / "out.mp4", same, limits=MediaLimits())
    next(items)
    assert len(threads()) == 2
    assert [path.name for path in tmp_path.iterdir()] == [".out.mp4.partial"]

    items.close()

    assert threads() == []
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_published_when_change_fails(samples, tmp_path):
    (tmp_path / "out.mp4").write_bytes(b"the one before")

    def change(frame, n):
        if n == 7:
            raise EngineFailed("no more memory")
        return frame

    with pytest.raises(EngineFailed, match="no more memory"):
        run(samples / "woman_face.mp4", tmp_path / "out.mp4", change)

    assert threads() == []
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the one before"]


def test_a_broken_encoder_is_our_fault(samples, tmp_path, monkeypatch):
    def fail(self, item):
        raise av.error.InvalidDataError(1, "broken")

    monkeypatch.setattr(VideoWriter, "write", fail)
    with pytest.raises(EngineFailed):
        run(samples / "woman_face.mp4", tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_damaged_pictures_end_as_unsupported_media(make_video, tmp_path):
    source = make_video(pts=range(50))
    data = bytearray(source.read_bytes())
    start = data.index(b"mdat")
    middle = start + (len(data) - start) // 2
    data[middle : middle + 20_000] = b"\xff" * len(data[middle : middle + 20_000])
    source.write_bytes(data)
    with pytest.raises(UnsupportedMedia):
        run(source, tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == [source]


def test_transform_video_refuses_what_is_no_video(samples, tmp_path):
    for name in ("astronaut.png", "librivox_speech.wav"):
        with pytest.raises(UnsupportedMedia):
            run(samples / name, tmp_path / "out.mp4")


def test_frames_never_pile_up(make_video, tmp_path):
    decoded = 0
    source = make_video(pts=range(120))
    original = VideoReader._timed

    def counted(self, frame):
        nonlocal decoded
        decoded += 1
        return original(self, frame)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VideoReader, "_timed", counted)
        items = transform_video(source, tmp_path / "out.mp4", same, limits=MediaLimits())
        next(items)
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline and decoded < 120:
            time.sleep(0.01)  # give a decoder that does not wait the time to run away
        items.close()
    assert decoded <= 1 + video_module.MAX_QUEUED + 1
    gc.collect()
