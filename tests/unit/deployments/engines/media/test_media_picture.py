import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import fit_size, load_picture, picture_size, resize, save_picture
from deployments.jobs.errors import EngineFailed, MediaTooLarge, UnsupportedMedia

RED_BGR = (40, 30, 200)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks, body=b"\0" * 100, depth=8, color=2):
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def encoded(image, name, **options):
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


@pytest.fixture
def stored(tmp_path):
    def store(data, name="picture"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return store


RED = Image.new("RGB", (64, 48), RED_BGR[::-1])
FRAMES = [Image.new("RGB", (16, 16), (shade, 0, 0)) for shade in (0, 90, 180)]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (png(12_000, 12_000), MediaTooLarge),
        (png(20_000, 20_000), MediaTooLarge),
        (png(60_000, 60_000), MediaTooLarge),
        (png(1, 40_000), MediaTooLarge),
        (png(0, 0), UnsupportedMedia),
        (png(64, 64, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(70_000_000), 9))), UnsupportedMedia),
        (encoded(RED, "PNG")[:60], UnsupportedMedia),
        (encoded(RED, "JPEG")[:300], UnsupportedMedia),
        (encoded(RED, "WEBP")[:40], UnsupportedMedia),
        (png(64, 64), UnsupportedMedia),
        (encoded(RED, "TIFF"), UnsupportedMedia),
        (encoded(RED, "BMP"), UnsupportedMedia),
        (encoded(RED, "AVIF"), UnsupportedMedia),
        (encoded(RED, "GIF"), UnsupportedMedia),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"/>', UnsupportedMedia),
        (b"<html><script>alert(1)</script>", UnsupportedMedia),
        (b"", UnsupportedMedia),
        (encoded(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), UnsupportedMedia),
        (encoded(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), UnsupportedMedia),
    ],
    ids=["12k", "20k", "60k", "strip", "0x0", "ztxt", "cut-png", "cut-jpeg", "cut-webp", "no-pixels", "tiff", "bmp", "avif", "gif", "svg", "html", "empty", "apng", "anim-webp"],
)  # fmt: skip
def test_load_picture_refuses(stored, limits, data, error):
    with pytest.raises(error):
        load_picture(stored(data), limits)


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        (encoded(RED, "PNG"), 0),
        (encoded(RED, "JPEG", quality=95), 3),
        (encoded(RED, "JPEG", quality=95, progressive=True), 3),
        (encoded(RED, "WEBP", lossless=True), 0),
        (encoded(RED, "PNG") + b"PK\x03\x04" + b"A" * 500, 0),
        (encoded(RED.quantize(4), "PNG"), 0),
        (encoded(RED.convert("RGBA"), "PNG"), 0),
        (encoded(RED.convert("CMYK"), "JPEG", quality=95), 4),
        (encoded(Image.new("RGB", (1, 1), RED_BGR[::-1]), "PNG"), 0),
    ],
    ids=["png", "jpeg", "progressive", "webp", "zip-polyglot", "palette", "rgba", "cmyk", "1-px"],
)
def test_load_picture_gives_bgr(stored, limits, data, tolerance):
    image = load_picture(stored(data, "any.name"), limits)

    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - RED_BGR).max() <= tolerance


def test_load_picture_makes_three_channels_of_grey(stored, limits):
    image = load_picture(stored(encoded(Image.new("L", (8, 4), 77), "PNG")), limits)
    assert image.shape == (4, 8, 3)
    assert np.unique(image).tolist() == [77]


def test_load_picture_keeps_the_upper_bits_of_sixteen(stored, limits):
    image = load_picture(stored(encoded(Image.fromarray(np.full((4, 8), 0x8040, np.uint16)), "PNG")), limits)
    assert np.unique(image).tolist() == [0x80]


def test_load_picture_composites_transparency_over_white(stored, limits):
    layers = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    layers.putpixel((1, 0), (0, 0, 200, 255))
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([9, 9, 9])

    assert load_picture(stored(encoded(layers, "PNG")), limits).tolist() == [[[255, 255, 255], [200, 0, 0]]]
    assert load_picture(stored(encoded(palette, "PNG", transparency=0)), limits).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (1, 2)), (6, (0, 1)), (8, (2, 0))])
def test_load_picture_is_upright(stored, limits, orientation, corner):
    image = Image.new("RGB", (3, 2))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = stored(encoded(image, "PNG", exif=exif))

    upright = load_picture(path, limits)

    assert tuple(np.argwhere(upright[..., 0])[0]) == corner
    assert picture_size(path, limits) == upright.shape[1::-1]


def test_load_picture_converts_to_srgb_by_the_embedded_profile(stored, limits):
    # A profile whose red and blue primaries are swapped turns red into blue: nobody can miss whether it was applied.
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"

    image = load_picture(stored(encoded(Image.new("RGB", (4, 4), (255, 0, 0)), "PNG", icc_profile=bytes(profile))), limits)

    assert np.abs(image[0, 0].astype(int) - (255, 0, 0)).max() <= 2  # blue, in BGR


def test_load_picture_ignores_a_broken_profile(stored, limits):
    image = load_picture(stored(encoded(RED, "PNG", icc_profile=b"no profile at all")), limits)
    assert image[0, 0].tolist() == list(RED_BGR)


def test_load_picture_has_a_limit_on_pixels(stored):
    with pytest.raises(MediaTooLarge, match=r"more than 0\.003 million pixels"):
        load_picture(stored(encoded(RED, "PNG")), MediaLimits(max_pixels=3000))


def test_load_picture_leaves_a_missing_file_to_the_caller(tmp_path, limits):
    with pytest.raises(FileNotFoundError):
        load_picture(tmp_path / "none.png", limits)


@pytest.mark.parametrize(("media_type", "name", "error"), [("image/png", "PNG", 0), ("image/jpeg", "JPEG", 6), ("image/webp", "WEBP", 8)])
def test_save_picture_round_trip(tmp_path, limits, picture, media_type, name, error):
    image = picture()
    save_picture(image, tmp_path / "out", media_type)

    with Image.open(tmp_path / "out") as written:
        assert written.format == name
    assert np.abs(load_picture(tmp_path / "out", limits).astype(int) - image).mean() <= error


def test_save_picture_refuses_other_types(tmp_path, picture):
    with pytest.raises(EngineFailed):
        save_picture(picture(), tmp_path / "out", "image/gif")


@pytest.mark.parametrize(
    ("size", "box", "even", "expected"),
    [
        ((640, 360), None, False, (640, 360)),
        ((641, 361), None, True, (640, 360)),
        ((1, 1), None, True, (2, 2)),
        ((1920, 1080), (1280, 720), True, (1280, 720)),
        ((640, 360), (1280, 1280), True, (1280, 720)),
        ((360, 640), (1280, 720), True, (404, 720)),
        ((1000, 10), (100, 100), False, (100, 1)),
        ((1000, 1), (100, 100), False, (100, 1)),
        ((333, 333), (101, 77), True, (76, 76)),
    ],
)
def test_fit_size(size, box, even, expected):
    assert fit_size(*size, box, even=even) == expected


@pytest.mark.parametrize("size", [(80, 60), (320, 240), (160, 120)])
def test_resize_keeps_colours(picture, size):
    image = picture()
    scaled = resize(image, size)
    assert scaled.shape == (size[1], size[0], 3)
    assert scaled.dtype == np.uint8
    assert np.abs(scaled.mean((0, 1)) - image.mean((0, 1))).max() < 1
