import cv2
import numpy as np
import pytest

from deployments.engines.faces.relight import relight

FULL = np.full((120, 100), 255, np.uint8)


@pytest.fixture
def face(people):
    """Skin, 120 by 100."""
    return np.asarray(cv2.resize(people["synthetic_man_2.jpg"].image[250:650, 200:560], (100, 120)), np.uint8)


def test_relight_of_the_target_itself_changes_little(face):
    assert np.abs(relight(face, face, FULL).astype(int) - face).mean() < 2


def test_relight_takes_the_targets_colour(face):
    target = np.asarray(cv2.GaussianBlur(cv2.convertScaleAbs(face, alpha=0.4, beta=10), (0, 0), 3), np.uint8)
    lit = relight(face, target, FULL)
    assert np.abs(lit.mean((0, 1)) - target.mean((0, 1))).max() < 5


def test_relight_keeps_the_sources_detail(face):
    lit = relight(face, np.full_like(face, 120), FULL)
    source, result = (cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.CV_32F).ravel() for image in (face, lit))
    assert np.corrcoef(source, result)[0, 1] > 0.9


def test_relight_in_black_and_white_is_grey(face):
    grey = np.asarray(cv2.cvtColor(cv2.cvtColor(face, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)
    lit = relight(face, grey, FULL).astype(int)
    assert np.ptp(lit, axis=2).mean() < 4


def test_relight_ignores_what_is_not_drawn(face):
    bordered, mask = face.copy(), FULL.copy()
    bordered[:, :30], mask[:, :30] = 0, 0
    assert np.abs(relight(bordered, face, mask)[:, 50:].astype(int) - face[:, 50:]).mean() < 3


def test_relight_takes_an_empty_mask(face):
    assert relight(face, face, np.zeros((8, 8), np.uint8)).shape == face.shape
