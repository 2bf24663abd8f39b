import numpy as np
import pytest

from deployments.engines.faces.warp import interpolate, map_coordinates, paste_blend, polygon_mask, rasterise

SQUARE = np.array([[4, 4], [28, 4], [28, 28], [4, 28]], np.float32)
HALVES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)


def test_rasterise_draws_later_triangles_over_earlier_ones():
    covering = rasterise(SQUARE, np.array([[0, 1, 2], [0, 2, 3], [0, 1, 2]], np.int32), (32, 32))
    assert set(np.unique(covering)) == {-1, 1, 2}


def test_map_coordinates_is_affine_inside(noise):
    image = noise.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    lookup = map_coordinates(rasterise(SQUARE, HALVES, (32, 32)), HALVES, SQUARE, SQUARE - [-20, -10])
    assert np.array_equal(lookup.sample(image)[6:27, 6:27], image[16:37, 26:47])


def test_map_coordinates_goes_on_beyond_the_edge():
    lookup = map_coordinates(rasterise(SQUARE, HALVES, (32, 32)), HALVES, SQUARE, SQUARE + 100)
    assert lookup.covered[3, 16] == 0
    assert lookup.y[2, 16] > 100


def test_map_coordinates_takes_triangles_without_area():
    flat = np.array([[4, 4], [28, 4], [16, 4], [16, 28]], np.float32)
    triangles = np.array([[0, 1, 2], [0, 1, 3]], np.int32)
    lookup = map_coordinates(rasterise(flat, triangles, (32, 32)), triangles, flat, flat)
    assert np.isfinite(lookup.x).all()


def test_interpolate_spreads_values_linearly():
    values = interpolate(rasterise(SQUARE, HALVES, (32, 32)), HALVES, SQUARE, SQUARE[:, 0])
    assert values[16, 10] == pytest.approx(10, abs=1e-3)
    assert values[0, 0] == 0


def test_sample_of_a_smaller_image_keeps_the_place():
    ramp = np.tile(np.arange(0, 64, dtype=np.uint8) * 2, (64, 1))
    half = ramp.reshape(32, 2, 32, 2).mean(axis=(1, 3)).astype(np.uint8)
    lookup = map_coordinates(rasterise(SQUARE, HALVES, (32, 32)), HALVES, SQUARE, SQUARE * 2)
    assert np.abs(lookup.sample(ramp)[8:24, 8:24].astype(int) - lookup.sample(half, 0.5)[8:24, 8:24]).max() <= 1


def test_polygon_mask_fills_and_antialiases():
    mask = polygon_mask(SQUARE + 0.5, (32, 32))
    assert mask[16, 16] == 255
    assert mask[0, 0] == 0
    assert mask.sum() / 255 == pytest.approx(25 * 25, rel=0.05)  # OpenCV counts the outline in


def test_paste_blend_keeps_the_bytes_where_the_weight_is_zero(noise):
    background, layer = noise.integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    before = background.copy()
    weight = np.zeros((40, 40), np.float32)
    weight[20:] = 1
    paste_blend(background, layer, weight)
    assert np.array_equal(background[:20], before[:20])
    assert np.array_equal(background[20:], layer[20:])
