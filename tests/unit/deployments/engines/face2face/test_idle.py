import numpy as np
import pytest

from deployments.engines.face2face.idle import BLINK_EVERY_S, IdleMotion, StillAnimator
from deployments.engines.faces.expression import eye_openness

STEP_S = 0.02


def test_blinks_come_as_often_as_people_blink_and_shut_the_eyes():
    motion = IdleMotion(seed=7, duration_s=120)
    shut = np.array([motion.blink(time_s) for time_s in np.arange(0, 120, STEP_S)])
    blinks = ((shut[1:] > 0.5) & (shut[:-1] <= 0.5)).sum()
    assert 120 / BLINK_EVERY_S[1] <= blinks <= 120 / BLINK_EVERY_S[0]
    assert shut.max() > 0.9
    assert (shut > 0).mean() < 0.15


def test_a_clip_of_three_seconds_has_a_blink():
    for seed in range(20):
        motion = IdleMotion(seed, 3.0)
        assert max(motion.blink(time_s) for time_s in np.arange(0, 3, STEP_S)) > 0.8


def test_motion_is_small_steady_and_its_seeds():
    poses = np.array([IdleMotion(1, 60).pose(time_s) for time_s in np.arange(0, 60, STEP_S)])
    assert np.abs(poses).max(0) == pytest.approx([0.009, 0.006, 0.012], rel=0.1)
    assert np.abs(np.diff(poses, axis=0)).max() < 0.0006
    np.testing.assert_array_equal(IdleMotion(1, 9).pose(3.3), IdleMotion(1, 9).pose(3.3))
    assert not np.allclose(IdleMotion(1, 9).pose(3.3), IdleMotion(2, 9).pose(3.3))


@pytest.fixture
def still(canonical, people):
    person = people["astronaut.png"]
    return person, StillAnimator(canonical, person.landmarks, person.image.shape)


def test_a_blink_shuts_the_eyes_and_touches_nothing_else(still, analysis):
    person, animator = still
    frame = person.image.copy()
    animator.blink(frame, 1.0)
    assert max(eye_openness(analysis.faces(frame)[0])) < 0.6 * min(eye_openness(person.landmarks))
    mouth = slice(int(person.landmarks[4, 1]), None)
    np.testing.assert_array_equal(frame[mouth], person.image[mouth])


def test_a_sway_moves_the_head_as_asked_and_leaves_the_corners(still, analysis):
    person, animator = still
    moved = animator.sway(person.image, np.array([0.05, 0.0, 0.0]))
    shift = analysis.faces(moved)[0][:468, :2].mean(0) - person.landmarks[:468, :2].mean(0)
    width = float(np.ptp(person.landmarks[:468, 0]))
    assert shift == pytest.approx([0.05 * width, 0], abs=0.01 * width)
    turned = analysis.faces(animator.sway(person.image, np.array([0.0, 0.0, 0.08])))[0]
    eyes = turned[263, :2] - turned[33, :2]
    before = person.landmarks[263, :2] - person.landmarks[33, :2]
    assert np.arctan2(eyes[1], eyes[0]) - np.arctan2(before[1], before[0]) == pytest.approx(0.08, abs=0.02)
    for corner in (np.s_[:20, :20], np.s_[-20:, -20:]):
        np.testing.assert_array_equal(moved[corner], person.image[corner])
