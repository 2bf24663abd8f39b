import random
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.probe import MediaInfo, probe
from deployments.jobs.errors import MediaTooLarge, UnsupportedMedia


def test_probe_knows_the_samples(samples, limits):
    assert probe(samples / "woman_face.mp4", limits) == MediaInfo(
        "video", "video/mp4", 640, 360, 50, Fraction(24000, 1001), pytest.approx(50 * 1001 / 24000), has_audio=True
    )
    assert probe(samples / "astronaut.png", limits) == MediaInfo("picture", "image/png", 512, 512)
    assert probe(samples / "librivox_speech.wav", limits) == MediaInfo(
        "audio", "audio/wav", 0, 0, duration_s=pytest.approx(7.1), has_audio=True
    )


@pytest.mark.parametrize(
    ("name", "codec", "media_type"),
    [
        ("a.mp4", "libx264", "video/mp4"),
        ("a.mov", "libx264", "video/quicktime"),
        ("a.mkv", "libx264", "video/x-matroska"),
        ("a.webm", "libvpx-vp9", "video/webm"),
        ("a.avi", "mpeg4", "video/x-msvideo"),
    ],
)
def test_probe_reads_containers(make_video, limits, name, codec, media_type):
    info = probe(make_video(name, codec=codec), limits)
    assert (info.kind, info.media_type, info.width, info.height, info.frames, info.fps) == ("video", media_type, 160, 120, 10, Fraction(25))
    assert info.duration_s == pytest.approx(0.4, abs=0.002)


def test_probe_takes_a_gif_as_video(tmp_path, limits):
    frames = [Image.new("RGB", (32, 16), (shade, 0, 0)) for shade in (0, 90, 180)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    info = probe(tmp_path / "a.gif", limits)
    assert (info.kind, info.width, info.height, info.frames) == ("video", 32, 16, 3)


@pytest.mark.parametrize(("rotation", "size"), [(0, (160, 120)), (90, (120, 160)), (180, (160, 120)), (270, (120, 160))])
def test_probe_gives_the_displayed_size(make_video, limits, rotation, size):
    info = probe(make_video(rotation=rotation), limits)
    assert (info.width, info.height) == size


def test_probe_finds_audio(make_video, make_sound, limits):
    assert probe(make_video(audio="aac"), limits).has_audio
    assert not probe(make_video("silent.mp4"), limits).has_audio
    sound = probe(make_sound(), limits)
    assert (sound.kind, sound.media_type, sound.width) == ("audio", "audio/mp4", 0)
    assert sound.duration_s == pytest.approx(0.5, abs=0.1)


def test_probe_takes_a_song_with_a_cover_as_audio(make_sound, tmp_path, limits):
    with av.open(make_sound()) as song, av.open(tmp_path / "cover.m4a", "w", format="mp4") as output:
        audio = output.add_stream_from_template(song.streams.audio[0])
        cover = output.add_stream("mjpeg", rate=1, options={"strict": "unofficial"})
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="bgr24")
        output.mux(cover.encode(frame.reformat(format="yuvj420p")))
        for packet in song.demux(audio=0):
            if packet.size:
                packet.stream = audio
                output.mux(packet)
    assert probe(tmp_path / "cover.m4a", limits).kind == "audio"


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 19076 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
DASH = '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet><Representation><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>'


@pytest.mark.parametrize("text", [PLAYLIST, "ffconcat version 1.0\nfile '{target}'\n", SDP, DASH, "<html>", "<svg/>", "hello", ""])
@pytest.mark.parametrize("disguise", ["", "\0\0\0\x18ftypmp42"])
def test_probe_never_follows_a_text(make_video, tmp_path, limits, text, disguise):
    other = make_video("other.mp4")
    trap = tmp_path / "trap.mp4"
    trap.write_text(disguise + text.replace("{target}", f"file://{other}"))
    with pytest.raises(UnsupportedMedia):
        probe(trap, limits)


def damaged(path, kind):
    data = bytearray(path.read_bytes())
    if kind == "no moov":
        data = data[: data.index(b"moov") - 4]
    elif kind == "cut":
        data = data[: len(data) // 3]
    elif kind == "zeros":
        data[200:] = bytes(len(data) - 200)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ["no moov", "cut", "zeros"])
def test_probe_refuses_damaged_files(make_video, limits, kind):
    with pytest.raises(UnsupportedMedia):
        probe(damaged(make_video(), kind), limits)


def test_probe_survives_flipped_bytes(make_video, limits):
    path = make_video(audio="aac")
    original = path.read_bytes()
    dice = random.Random(1)
    outcomes = set()
    for _ in range(60):
        data = bytearray(original)
        for _ in range(20):
            data[dice.randrange(len(data))] ^= dice.randrange(1, 256)
        path.write_bytes(data)
        try:
            outcomes.add(probe(path, limits).kind)
        except (UnsupportedMedia, MediaTooLarge) as error:
            outcomes.add(error.code)
    assert "video" in outcomes
    assert "unsupported_media" in outcomes


def test_probe_refuses_codecs_that_are_not_listed(make_video, make_sound, limits):
    with pytest.raises(UnsupportedMedia, match=r"mpeg1video is not supported: encode it as H\.264"):
        probe(make_video("a.mkv", codec="mpeg1video"), limits)
    with pytest.raises(UnsupportedMedia, match="encode it as AAC"):
        probe(make_sound("a.wav", codec="adpcm_ima_wav"), limits)


@pytest.mark.parametrize("name", ["AVIF", "TIFF", "BMP"])
def test_probe_names_pictures_that_are_not_read(tmp_path, limits, name):
    Image.new("RGB", (32, 32)).save(tmp_path / "picture", name)
    with pytest.raises(UnsupportedMedia):
        probe(tmp_path / "picture", limits)


def test_probe_refuses_a_codec_that_nobody_knows(make_video, limits):
    path = make_video()
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(UnsupportedMedia, match="the video codec of this file is not supported"):
        probe(path, limits)


@pytest.mark.parametrize(
    ("name", "codec", "audio"), [("a.avi", "mpeg4", "pcm_s16le"), ("a.mov", "libx264", "pcm_s16le"), ("a.mkv", "libx264", "flac")]
)
def test_probe_counts_the_length_of_sound_in_a_video(make_video, name, codec, audio):
    path = make_video(name, codec=codec, audio=audio, audio_rate=16_000, audio_s=12)
    assert probe(path, MediaLimits(max_duration_s=13)).has_audio
    with pytest.raises(MediaTooLarge, match="longer than 10 seconds"):
        probe(path, MediaLimits(max_duration_s=10))


def test_probe_refuses_a_video_without_frames(tmp_path, limits):
    with av.open(tmp_path / "empty.mp4", "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.open()
        output.start_encoding()
    with pytest.raises(UnsupportedMedia):
        probe(tmp_path / "empty.mp4", limits)


def test_probe_refuses_a_false_header_of_8k(make_video, limits):
    path = make_video()
    data = path.read_bytes()
    entry = data.index(b"avc1", data.index(b"stsd"))
    path.write_bytes(data[: entry + 28] + struct.pack(">HH", 7680, 4320) + data[entry + 32 :])
    try:
        info = probe(path, limits)
    except MediaTooLarge:
        return
    assert (info.width, info.height) == (160, 120)  # the decoder's word counts more than the container's


def test_probe_refuses_real_8k(make_video, limits):
    with pytest.raises(MediaTooLarge, match="the video is 3856x2176"):
        probe(make_video(draw=lambda _: np.zeros((2176, 3856, 3), np.uint8), pts=(0,)), limits)


def test_probe_refuses_a_declared_duration_of_days(make_video, limits):
    path = make_video("long.mkv")
    data = bytearray(path.read_bytes())
    duration = data.index(b"\x44\x89\x88")  # Matroska's Duration, a double of eight bytes, in milliseconds
    struct.pack_into(">d", data, duration + 3, 1e9)
    path.write_bytes(data)
    with pytest.raises(MediaTooLarge, match="longer than 600 seconds"):
        probe(path, limits)


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        ({"max_frames": 9}, "more than 9 frames"),
        ({"max_duration_s": 0.3}, "longer than 0.3 seconds"),
        ({"max_bytes": 1000}, "longer than"),
        ({"max_video_pixels": 10_000}, "the video is 160x120"),
        ({"max_side_px": 159}, "the video is 160x120"),
    ],
)
def test_probe_keeps_to_the_limits(make_video, bound, words):
    with pytest.raises(MediaTooLarge, match=words):
        probe(make_video(), MediaLimits(**bound))


def test_probe_counts_frames_at_1000_fps(make_video):
    path = make_video(fps=1000, pts=range(40), draw=lambda _: np.zeros((16, 16, 3), np.uint8))
    assert probe(path, MediaLimits()).fps == 1000
    with pytest.raises(MediaTooLarge, match="more than 30 frames"):
        probe(path, MediaLimits(max_frames=30))
