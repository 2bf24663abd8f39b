"""Sketches: what is refused before decoding, what transparency becomes, and when two of them look alike."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.sketch import LOOK_SIDE, largest_change, read_sketch
from deployments.jobs.errors import InvalidInput, MediaTooLarge, UnsupportedMedia

LIMITS = MediaLimits(max_side_px=4096)
SIDE = 512


def encode(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def drawing(lines=(), mode="RGB", background="white"):
    image = Image.new(mode, (SIDE, SIDE), background)
    pen = ImageDraw.Draw(image)
    for line in lines:
        pen.line(line, fill="black", width=3)
    return image


@pytest.mark.parametrize(("form", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")])
def test_opaque_pictures_stay_as_they_are(form, media_type):
    data = encode(drawing([(0, 0, SIDE, SIDE)]), form)
    sketch = read_sketch(data, LIMITS)
    assert (sketch.data, sketch.media_type, sketch.width, sketch.height) == (data, media_type, SIDE, SIDE)
    assert sketch.look.shape == (LOOK_SIDE, LOOK_SIDE)
    assert sketch.look.max() == pytest.approx(1, abs=0.02)


def test_a_transparent_canvas_is_seen_as_it_is_shown():
    data = encode(drawing([(0, 256, SIDE, 256)], "RGBA", (0, 0, 0, 0)))
    sketch = read_sketch(data, LIMITS)
    pixels = np.asarray(Image.open(io.BytesIO(sketch.data)))
    assert sketch.media_type == "image/png"
    assert pixels.shape == (SIDE, SIDE, 3), "LoadImage drops an alpha, and what lies under it is black"
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[256, 100].tolist() == [0, 0, 0]


@pytest.mark.parametrize("stroke", [(10, 10, 14, 10), (0, 256, SIDE, 256), (500, 500, 511, 511)])
def test_any_stroke_is_a_change(stroke):
    before, after = read_sketch(encode(drawing()), LIMITS), read_sketch(encode(drawing([stroke])), LIMITS)
    assert largest_change(before.look, after.look) > 0.05


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_the_noise_of_an_encoder_is_none(form):
    image = drawing([(0, 0, SIDE, SIDE), (0, 300, SIDE, 100)])
    exact, lossy = read_sketch(encode(image), LIMITS), read_sketch(encode(image, form, quality=90), LIMITS)
    assert 0 < largest_change(exact.look, lossy.look) < 0.02


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", InvalidInput),
        (b"GIF89a", UnsupportedMedia),
        (encode(drawing())[:-200], UnsupportedMedia),
        (encode(Image.new("1", (10_000, 4))), MediaTooLarge),
        (encode(Image.new("1", (4, 10_000))), MediaTooLarge),
    ],
)
def test_others_are_refused(data, error):
    with pytest.raises(error):
        read_sketch(data, LIMITS)
