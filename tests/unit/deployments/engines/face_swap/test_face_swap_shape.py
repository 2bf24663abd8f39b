import numpy as np
import pytest

from deployments.engines.face_swap.render import region_of
from deployments.engines.face_swap.shape import reshape_face
from deployments.engines.faces.align import fit_similarity
from deployments.engines.faces.geometry import FACE_OVAL


def region_and_points(person):
    points = person.landmarks[:468]
    rect = region_of(points, person.image.shape, 0.35)
    return person.image[rect].copy(), points - np.array([rect[1].start, rect[0].start, 0], np.float32)


def shape_error(points, source):
    oval = list(FACE_OVAL)
    aligned = fit_similarity(source[:468], points).apply(source[:468])
    return np.linalg.norm((aligned - points)[oval, :2], axis=1).mean()


def test_reshape_face_moves_the_outline_towards_the_source(people):
    region, points = region_and_points(people["synthetic_man_2.jpg"])
    source = people["synthetic_woman.jpg"].landmarks[:468]
    before = region.copy()
    moved = reshape_face(region, points, source, 0.7)
    assert shape_error(moved, source) < 0.85 * shape_error(points, source)
    assert not np.array_equal(region, before)


def test_reshape_face_changes_nothing_for_the_same_shape(people):
    region, points = region_and_points(people["astronaut.png"])
    before = region.copy()
    moved = reshape_face(region, points, points * 3 + np.float32(7), 1.0)
    assert np.allclose(moved, points, atol=1e-2)
    assert np.abs(region.astype(int) - before).max() <= 8  # fixed-point maps round to 1/32 of a pixel


def test_reshape_face_leaves_the_border(people):
    region, points = region_and_points(people["synthetic_man_2.jpg"])
    before = region.copy()
    reshape_face(region, points, people["astronaut.png"].landmarks[:468], 1.0)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        assert np.array_equal(region[edge], before[edge])


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_reshape_face_moves_in_proportion(people, strength):
    region, points = region_and_points(people["synthetic_man_2.jpg"])
    source = people["astronaut.png"].landmarks[:468]
    full = reshape_face(region.copy(), points, source, 1.0) - points
    assert np.allclose(reshape_face(region, points, source, strength) - points, full * strength, atol=1e-3)
