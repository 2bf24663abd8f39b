import numpy as np
import pytest

from deployments.engines.face2face.playback import FrameReel, play_order, resampled
from deployments.jobs.errors import EngineFailed


@pytest.mark.parametrize(
    ("frames", "shown", "loop", "window", "order"),
    [
        (4, 3, "pingpong", 4, [0, 1, 2]),
        (4, 9, "pingpong", 4, [0, 1, 2, 3, 2, 1, 0, 1, 2]),
        (4, 9, "loop", 4, [0, 1, 2, 3, 0, 1, 2, 3, 0]),
        (5, 9, "pingpong", 2, [0, 1, 2, 3, 4, 3, 4, 3, 4]),
        (1, 3, "pingpong", 1, [0, 0, 0]),
        (5, 8, "loop", 2, [0, 1, 2, 3, 4, 3, 4, 3]),
    ],
)
def test_play_order(frames, shown, loop, window, order):
    assert play_order(frames, shown, loop, window).tolist() == order


def test_another_frame_rate_shows_what_is_current():
    assert resampled(6, 24.0, 48.0).tolist() == [0, 0, 1, 1, 2, 2]
    assert resampled(4, 50.0, 25.0).tolist() == [0, 2, 4, 6]


def numbered(count):
    return iter([np.full((2, 3, 3), number, np.uint8) for number in range(count)])


def test_frames_come_again_from_disk(tmp_path):
    reel = FrameReel(numbered(9), first=2, count=5, scratch=tmp_path / "frames", window=3)
    order = play_order(5, 12, "pingpong", 3)
    assert [int(reel.frame(number)[0, 0, 0]) for number in order] == [number + 2 for number in order]
    assert (tmp_path / "frames").stat().st_size == 3 * 18


def test_a_frame_may_be_drawn_on(tmp_path):
    reel = FrameReel(numbered(2), first=0, count=2, scratch=tmp_path / "frames", window=2)
    reel.frame(1)[:] = 99
    reel.frame(0)[:] = 99
    assert (reel.frame(1).max(), reel.frame(0).max()) == (1, 0)


def test_a_reel_says_what_it_cannot_show(tmp_path):
    reel = FrameReel(numbered(3), first=0, count=3, scratch=None, window=1)
    reel.frame(2)
    with pytest.raises(EngineFailed, match="not kept"):
        reel.frame(0)
    with pytest.raises(EngineFailed, match="fewer frames"):
        reel.frame(3)
