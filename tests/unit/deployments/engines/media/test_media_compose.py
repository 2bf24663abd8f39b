import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from deployments.engines.media.compose import compose_video, fixed_rate
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.probe import probe, probe_video
from deployments.engines.media.video import read_frames
from deployments.jobs.errors import UnsupportedMedia

LIMITS = MediaLimits()
SIZE = (64, 48)


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 8000 * 2))
    return path


def grey(number):
    return np.full((SIZE[1], SIZE[0], 3), 20 + 4 * number, np.uint8)


def test_frames_are_those_that_were_drawn_in_order(sound, tmp_path):
    path = tmp_path / "out.mp4"
    steps = list(compose_video(grey, 50, sound, path, traits=fixed_rate(SIZE, Fraction(25)), size=SIZE, limits=LIMITS))
    assert [(step.frame, step.frames) for step in steps] == [(number, 50) for number in range(1, 51)]
    levels = [frame.mean() for frame in read_frames(path, probe_video(path, LIMITS), LIMITS)]
    np.testing.assert_allclose(levels, [20 + 4 * number for number in range(50)], atol=2)


def test_it_is_scaled_and_keeps_the_shape_of_pixels_that_its_frames_had(sound, tmp_path, samples):
    like = probe_video(samples / "woman_face.mp4", LIMITS)
    wide = type(like)(like.info, like.rotation, like.color, like.time_base, Fraction(16, 15))
    path = tmp_path / "out.mp4"
    list(compose_video(grey, 5, sound, path, traits=fixed_rate(SIZE, Fraction(24000, 1001), wide), size=(32, 24), limits=LIMITS))
    info = probe(path, LIMITS)
    assert (info.width, info.height, info.fps, probe_video(path, LIMITS).pixel_aspect) == (32, 24, Fraction(24000, 1001), Fraction(16, 15))


def test_a_fault_while_drawing_comes_through_and_leaves_nothing(sound, tmp_path):
    def draw(number):
        if number == 3:
            raise UnsupportedMedia("damaged")
        return grey(number)

    with pytest.raises(UnsupportedMedia, match="damaged"):
        list(compose_video(draw, 50, sound, tmp_path / "out.mp4", traits=fixed_rate(SIZE, Fraction(25)), size=SIZE, limits=LIMITS))
    assert [path.name for path in tmp_path.iterdir()] == ["sound.wav"]


def test_it_is_given_up_without_a_trace(sound, tmp_path):
    steps = compose_video(grey, 50, sound, tmp_path / "out.mp4", traits=fixed_rate(SIZE, Fraction(25)), size=SIZE, limits=LIMITS)
    next(steps)
    steps.close()
    assert [path.name for path in tmp_path.iterdir()] == ["sound.wav"]


def test_browsers_can_begin_before_they_have_all_of_it(sound, tmp_path):
    path = tmp_path / "out.mp4"
    list(compose_video(grey, 5, sound, path, traits=fixed_rate(SIZE, Fraction(25)), size=SIZE, limits=LIMITS))
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(path) as container:
        assert [stream.codec_context.name for stream in container.streams] == ["h264", "aac"]
