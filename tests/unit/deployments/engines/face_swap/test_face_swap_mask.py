import numpy as np
import pytest

from deployments.engines.face_swap.mask import face_mask, feathered, kept_features

SIZE = (200, 200)


@pytest.fixture
def points(people):
    """A smiling face, 180 px wide in a square of 200."""
    landmarks = people["synthetic_man_1.jpg"].landmarks[:468]
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    scale = 180 / (high - low).max()
    return ((landmarks - [*low, 0]) * scale + [10, 10, 0]).astype(np.float32)


def with_mouth_shut(points):
    shut = points.copy()
    shut[[80, 81, 82, 13, 312, 311, 310]] = shut[[88, 178, 87, 14, 317, 402, 318]]
    return shut


def with_eyes_shut(points):
    shut = points.copy()
    shut[[159, 386], :2] = shut[[145, 374], :2]
    return shut


def at(mask, points, vertex):
    x, y = points[vertex, :2].round().astype(int)
    return mask[y, x]


def test_face_mask_ends_inside_the_oval(points):
    mask = face_mask(points, np.full(SIZE, 255, np.uint8))
    assert at(mask, points, 1) == 255
    assert at(mask, points, 10) == 0
    assert mask.mean() > 60


def test_face_mask_ends_where_the_mesh_does(points):
    covered = np.zeros(SIZE, np.uint8)
    covered[:, :100] = 255
    assert not face_mask(points, covered)[:, 100:].any()


def test_feathered_is_soft_and_no_larger_than_the_oval(points):
    mask = feathered(face_mask(points, np.full(SIZE, 255, np.uint8)), points)
    assert len(np.unique(mask)) > 50
    assert at(mask, points, 10) < 128


def test_kept_features_are_the_teeth_of_an_open_mouth(points):
    kept = kept_features(points, points, SIZE)
    middle = points[[13, 14]].mean(0)[None]
    assert at(kept, middle, 0) > 200
    assert at(kept, points, 1) == 0


def test_kept_features_are_none_with_mouth_shut_and_eyes_alike(points):
    shut = with_mouth_shut(points)
    assert not kept_features(shut, shut, SIZE).any()


@pytest.mark.parametrize("target_shut", [True, False])
def test_kept_features_are_eyes_that_the_source_cannot_fill(points, target_shut):
    shut, open_ = with_eyes_shut(with_mouth_shut(points)), with_mouth_shut(points)
    kept = kept_features(*((shut, open_) if target_shut else (open_, shut)), SIZE)
    assert at(kept, points, 145) > 150
    assert at(kept, points, 374) > 150
    assert at(kept, points, 1) == 0


def test_kept_features_of_two_sleepers_are_none(points):
    shut = with_eyes_shut(with_mouth_shut(points))
    assert not kept_features(shut, shut, SIZE).any()
