"""A mask goes into a picture as its alpha."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from deployments.engines.media.alpha import put_alpha
from deployments.engines.media.limits import MediaLimits
from deployments.jobs.errors import InvalidInput, MediaTooLarge, UnsupportedMedia

LIMITS = MediaLimits()


@pytest.fixture
def save(tmp_path):
    def write(name, pixels, **options):
        path = tmp_path / name
        Image.fromarray(pixels).save(path, **options)
        return path

    return write


def colours(height=4, width=6):
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


def with_alpha(alpha):
    return np.dstack([np.zeros((*alpha.shape, 3), np.uint8), alpha])


def test_put_alpha_keeps_the_colours_and_takes_the_alpha(save):
    alpha = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    made = Image.open(io.BytesIO(put_alpha(save("a.png", colours()), save("m.png", with_alpha(alpha)), LIMITS)))
    assert (made.format, made.mode) == ("PNG", "RGBA")
    np.testing.assert_array_equal(np.asarray(made), np.dstack([colours(), alpha]))


def test_put_alpha_replaces_an_alpha_and_keeps_what_lay_under_it(save):
    old = np.dstack([colours(), np.zeros((4, 6), np.uint8)])
    alpha = np.full((4, 6), 200, np.uint8)
    made = np.asarray(Image.open(io.BytesIO(put_alpha(save("a.png", old), save("m.png", with_alpha(alpha)), LIMITS))))
    np.testing.assert_array_equal(made, np.dstack([colours(), alpha]))


def test_put_alpha_turns_the_picture_upright_first(save):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = save("a.png", colours(), exif=exif)
    alpha = np.full((6, 4), 9, np.uint8)
    made = np.asarray(Image.open(io.BytesIO(put_alpha(turned, save("m.png", with_alpha(alpha)), LIMITS))))
    np.testing.assert_array_equal(made[..., :3], np.rot90(colours(), -1))


def test_put_alpha_refuses_what_is_no_mask_for_the_picture(save, tmp_path):
    picture = save("a.png", colours())
    with pytest.raises(InvalidInput, match="no alpha channel"):
        put_alpha(picture, picture, LIMITS)
    with pytest.raises(InvalidInput, match="the mask is 2x2 and the picture 6x4"):
        put_alpha(picture, save("m.png", with_alpha(np.zeros((2, 2), np.uint8))), LIMITS)
    (tmp_path / "x").write_bytes(b"GIF89a")
    with pytest.raises(UnsupportedMedia):
        put_alpha(tmp_path / "x", save("m.png", with_alpha(np.zeros((4, 6), np.uint8))), LIMITS)
    with pytest.raises(MediaTooLarge):
        put_alpha(picture, save("m.png", with_alpha(np.zeros((4, 6), np.uint8))), MediaLimits(max_pixels=20))
