from fractions import Fraction

import av
import numpy as np
import pytest

from deployments.engines.media.compose import compose_video, fixed_rate
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.probe import probe
from deployments.engines.media.sound import load_samples
from deployments.jobs.errors import MediaTooLarge, UnsupportedMedia

BEEPS_S = (0.5, 1.0, 2.0)
SECONDS = 2.6
LIMITS = MediaLimits()


def beeps(rate, channels, begin_s=0.0):
    samples = np.zeros((channels, int(SECONDS * rate)), np.float32)
    for at in BEEPS_S:
        begin = int((at - begin_s) * rate)
        samples[:, begin : begin + rate // 50] = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(rate // 50) / rate)
    return samples


@pytest.fixture
def make_sound(tmp_path):
    """Write beeps in a container and codec of choice and return the path."""

    def make(name, codec, rate, layout, begin_s=0.0):
        path = tmp_path / name
        channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
        with av.open(path, "w") as output:
            stream = output.add_stream(codec, rate=rate, layout=layout)
            frame = av.AudioFrame.from_ndarray(beeps(rate, channels, begin_s), "fltp", layout)
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(begin_s * rate)
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        return path

    return make


def onsets(samples, rate=16_000):
    loud = np.abs(samples) > 0.2
    return [int(np.argmax(loud[int((at - 0.1) * rate) :]) + int((at - 0.1) * rate)) for at in BEEPS_S]


def speak(sound, destination, fps=Fraction(25)):
    frames = round(len(load_samples(sound, 16_000, LIMITS)) / 16_000 * fps)
    grey = np.full((64, 64, 3), 90, np.uint8)
    traits = fixed_rate((64, 64), fps)
    steps = list(compose_video(lambda _: grey, frames, sound, destination, traits=traits, size=(64, 64), limits=LIMITS))
    assert [step.frame for step in steps] == list(range(1, frames + 1))
    return frames


FORMATS = [
    ("a.wav", "pcm_s16le", 16_000, "mono"),
    ("b.wav", "pcm_s16le", 8000, "mono"),
    ("c.wav", "pcm_s16le", 48_000, "5.1"),
    ("d.wav", "pcm_u8", 16_000, "mono"),
    ("e.flac", "flac", 44_100, "stereo"),
    ("f.ogg", "libopus", 48_000, "stereo"),
    ("g.m4a", "aac", 44_100, "stereo"),
    ("h.webm", "libopus", 48_000, "mono"),
]


@pytest.mark.parametrize("given", FORMATS, ids=lambda given: given[0])
def test_every_sample_keeps_its_place(make_sound, tmp_path, given):
    sound = make_sound(*given)
    before = load_samples(sound, 16_000, LIMITS)
    assert len(before) == pytest.approx(SECONDS * 16_000, abs=1)
    assert onsets(before) == pytest.approx([at * 16_000 for at in BEEPS_S], abs=3)
    frames = speak(sound, tmp_path / "out.mp4")
    after = load_samples(tmp_path / "out.mp4", 16_000, LIMITS)
    assert len(after) == pytest.approx(len(before), abs=1)
    assert onsets(after) == pytest.approx(onsets(before), abs=2)
    info = probe(tmp_path / "out.mp4", LIMITS)
    assert info.frames == frames
    assert info.duration_s == pytest.approx(SECONDS, abs=0.04)


def test_the_delay_of_an_mp3_is_the_same_in_picture_and_sound(make_sound, tmp_path):
    sound = make_sound("a.mp3", "libmp3lame", 44_100, "stereo")
    speak(sound, tmp_path / "out.mp4")
    before, after = load_samples(sound, 16_000, LIMITS), load_samples(tmp_path / "out.mp4", 16_000, LIMITS)
    assert onsets(after) == pytest.approx(onsets(before), abs=2)


def test_aac_of_an_mp4_is_copied_bit_for_bit(make_sound, tmp_path):
    sound = make_sound("a.m4a", "aac", 44_100, "stereo")
    speak(sound, tmp_path / "out.mp4")
    packets = []
    for path in (sound, tmp_path / "out.mp4"):
        with av.open(path) as container:
            packets.append([bytes(packet) for packet in container.demux(audio=0) if packet.size])
    assert packets[0] == packets[1]


def test_a_late_beginning_is_silence(make_sound):
    samples = load_samples(make_sound("a.mkv", "flac", 16_000, "mono", begin_s=0.3), 16_000, LIMITS)
    assert not samples[: int(0.29 * 16_000)].any()
    assert onsets(samples) == pytest.approx([at * 16_000 for at in BEEPS_S], abs=20)


def test_sound_over_the_limit_is_refused(make_sound):
    with pytest.raises(MediaTooLarge, match="longer than 2 seconds"):
        load_samples(make_sound("a.wav", "pcm_s16le", 16_000, "mono"), 16_000, MediaLimits(max_duration_s=2))


def test_two_hours_of_sound_are_refused_at_once(tmp_path):
    path = tmp_path / "long.wav"
    header = b"RIFF" + (36 + 115_200_000).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    header += (1).to_bytes(2, "little") * 2 + (8000).to_bytes(4, "little") * 2 + (1).to_bytes(2, "little") + (8).to_bytes(2, "little")
    with path.open("wb") as file:
        file.write(header + b"data" + (57_600_000).to_bytes(4, "little"))
        file.truncate(44 + 57_600_000)  # sparse: 7200 s at 8000 bytes a second
    with pytest.raises(MediaTooLarge, match="longer than 600 seconds"):
        load_samples(path, 16_000, LIMITS)


def test_what_has_no_sound_is_refused(media, tmp_path, make_sound):
    cut = tmp_path / "cut.m4a"
    cut.write_bytes(make_sound("a.m4a", "aac", 44_100, "mono").read_bytes()[:2000])
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    for path in (media / "astronaut.png", cut, empty):
        with pytest.raises(UnsupportedMedia):
            load_samples(path, 16_000, LIMITS)
