import numpy as np
import pytest

from deployments.engines.face2face.mouth_rig import MouthRig
from deployments.engines.faces.expression import mouth_openness
from deployments.engines.faces.geometry import MOUTH_CORNERS, NOSE_TIP


@pytest.fixture
def rig(canonical):
    return MouthRig(canonical)


@pytest.fixture
def face(people):
    return people["astronaut.png"].landmarks  # smiles, and shows teeth


def gap(points):
    return float(np.linalg.norm(points[13, :2] - points[14, :2]))


def test_a_smile_at_rest_is_shut(rig, face):
    rest = rig.mouth_at_rest(face[None])
    assert mouth_openness(face) > 0.12
    assert mouth_openness(rig.speak(face, rest, 0.0, 0.0)) < 0.02


def test_the_gap_grows_with_the_opening_and_only_below_the_nose(rig, face):
    rest = rig.mouth_at_rest(face[None])
    gaps = [gap(rig.speak(face, rest, opening, 0.0)) for opening in (0.0, 0.3, 0.6, 1.0)]
    assert gaps == sorted(gaps)
    assert gaps[-1] > 0.12 * np.ptp(face[:468, 0])
    shut, wide = (rig.speak(face, rest, opening, 0.0) for opening in (0.0, 1.0))
    forehead = [10, 151, 9, 8, 107, 336]
    np.testing.assert_allclose(shut[forehead], wide[forehead], atol=0.05)
    assert abs(wide[NOSE_TIP, 1] - shut[NOSE_TIP, 1]) < 0.5


def test_width_spreads_and_rounds_the_corners(rig, face):
    rest = rig.mouth_at_rest(face[None])
    left, right = MOUTH_CORNERS
    widths = [np.ptp(rig.speak(face, rest, 0.3, width)[[left, right], 0]) for width in (-1.0, 0.0, 1.0)]
    assert widths[0] < 0.95 * widths[1] < widths[1] < 0.98 * widths[2]


def test_the_rest_is_that_of_the_frames_that_are_least_open(rig, face):
    open_frames = np.stack([rig.speak(face, rig.mouth_at_rest(face[None]), 0.8, 0.0)] * 8)
    shut = rig.speak(face, rig.mouth_at_rest(face[None]), 0.0, 0.0)
    mixed = rig.mouth_at_rest(np.concatenate([open_frames, shut[None], shut[None]]))
    np.testing.assert_allclose(mixed, rig.mouth_at_rest(shut[None]), atol=1e-3)
