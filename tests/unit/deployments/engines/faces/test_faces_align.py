import numpy as np
import pytest

from deployments.engines.faces.align import ARCFACE_TEMPLATE_112, align_crop, fit_similarity


def rotation(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


@pytest.mark.parametrize("angle", [0.0, 0.8, 3.0])
def test_fit_similarity_recovers_scale_rotation_and_shift(noise, angle):
    points = noise.normal(size=(7, 2))
    found = fit_similarity(points, 2.5 * points @ rotation(angle).T + [3, -4])
    assert found.scale == pytest.approx(2.5)
    assert np.allclose(found.rotation, rotation(angle))
    assert np.allclose(found.shift, [3, -4])


def test_fit_similarity_never_mirrors(noise):
    points = noise.normal(size=(7, 2))
    assert np.linalg.det(fit_similarity(points, points * [-1, 1]).rotation) == pytest.approx(1)


def test_fit_similarity_works_in_space(noise):
    points = noise.normal(size=(9, 3))
    assert np.allclose(fit_similarity(points, points * 3 + 1).apply(points), points * 3 + 1)


def test_align_crop_of_an_aligned_crop_is_itself(noise):
    image = noise.integers(0, 256, (112, 112, 3), dtype=np.uint8)
    assert np.array_equal(align_crop(image, ARCFACE_TEMPLATE_112), image)
