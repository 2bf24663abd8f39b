"""Pictures that are rare and right come out as Pillow reads them: eight bits, BGR, upright."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import load_picture
from tests.unit.hostile.files import png

NOISE = Image.merge("RGB", [Image.effect_noise((48, 32), spread) for spread in (20, 60, 100)])
ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(kind: str, orientation: int, mode: str = "RGB", **options: object) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(NOISE.convert(mode), kind, exif=exif, **options)


def two_in_one() -> bytes:
    return encoded(NOISE, "MPO", save_all=True, append_images=[NOISE.rotate(180)])


CASES = {
    "cmyk": encoded(NOISE.convert("CMYK"), "JPEG", quality=95),
    "grey-jpeg": encoded(NOISE.convert("L"), "JPEG"),
    "progressive": encoded(NOISE, "JPEG", progressive=True),
    "palette": encoded(NOISE.quantize(200), "PNG"),
    "palette-of-two": encoded(NOISE.quantize(2), "PNG", bits=1),
    "one-bit": encoded(NOISE.convert("1"), "PNG"),
    "grey": encoded(NOISE.convert("L"), "PNG"),
    "webp": encoded(NOISE, "WEBP", quality=80),
    "webp-lossless": encoded(NOISE, "WEBP", lossless=True),
    "colour-16-bit": png(32, 16, depth=16, color=2, data=b"".join(b"\0" + bytes(range(192)) for _ in range(16))),
    "interlaced": png(8, 8, data=b"".join(b"\0" + bytes(range(n * 3)) for n in (1, 1, 2, 2, 2, 4, 4, 4, 4, 4, 4, 8, 8, 8, 8)), interlace=1),
    "two-in-one": two_in_one(),
    "apng-of-one": encoded(NOISE, "PNG", save_all=True),
}
CASES |= {f"turned-{kind.lower()}-{n}": turned(kind, n) for kind in ("PNG", "JPEG", "WEBP") for n in range(1, 9)}
CASES |= {f"turned-cmyk-{n}": turned("JPEG", n, "CMYK") for n in (3, 6)}


@pytest.mark.parametrize("name", list(CASES))
def test_an_odd_picture_comes_out_as_pillow_reads_it(name):
    with Image.open(io.BytesIO(CASES[name])) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))[..., ::-1]
    found = load_picture(CASES[name], MediaLimits())
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_of_sixteen_bit_grey_is_upright_and_keeps_its_upper_half(orientation):
    grey = np.arange(32 * 48, dtype=np.uint16).reshape(32, 48) * 40
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    found = load_picture(encoded(Image.fromarray(grey), "PNG", exif=exif), MediaLimits())
    turning = Image.fromarray((grey >> 8).astype(np.uint8))
    turning.getexif()[ORIENTATION] = orientation
    expected = np.asarray(ImageOps.exif_transpose(turning))
    assert np.array_equal(found, np.repeat(expected[..., None], 3, 2))


def test_of_several_pictures_in_one_jpeg_the_first_is_taken():
    found = load_picture(two_in_one(), MediaLimits())
    assert (
        np.abs(found[..., ::-1].astype(int) - np.asarray(NOISE)).mean()
        < np.abs(found[..., ::-1].astype(int) - np.asarray(NOISE.rotate(180))).mean()
    )
