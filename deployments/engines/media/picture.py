"""Still pictures: bytes on disk to a BGR array and back, through Pillow with everything hostile refused before decoding."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps

from deployments.engines.images import BgrImage
from deployments.engines.media.jpeg_scans import check_scans
from deployments.engines.media.limits import MediaLimits
from deployments.jobs.errors import EngineFailed, MediaTooLarge, UnsupportedMedia

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP")  # the only Pillow decoders that ever see a user's bytes
SAVE_OPTIONS: dict[str, tuple[str, dict[str, int]]] = {
    "image/png": ("PNG", {"compress_level": 3}),  # 3: a third of the time of Pillow's 6 for about 3 % more bytes
    "image/jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),  # 4:4:4: lips and eyes are small and saturated
    "image/webp": ("WEBP", {"quality": 92, "method": 4}),
}
WHITE = (255, 255, 255)

# What Pillow and zlib raise on broken bytes; all of it means that the file is bad, none of it that we are.
_BROKEN_FILE = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, OverflowError)

# Pillow only warns between one and two times its limit. An error for the whole process: a filter set per call is not thread-safe.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def picture_size(path: Path, limits: MediaLimits) -> tuple[int, int]:
    """Return (width, height) in pixels as displayed, from the header alone.

    Raises:
        UnsupportedMedia: not a PNG, JPEG or WebP, broken, or animated.
        MediaTooLarge: over the limits.
    """
    with open_picture(path, limits) as image:
        turned = image.getexif().get(0x0112) in (5, 6, 7, 8)  # EXIF orientations that swap the sides
        return (image.height, image.width) if turned else (image.width, image.height)


def load_picture(source: Path | bytes, limits: MediaLimits) -> BgrImage:
    """Decode a PNG, JPEG or WebP to BGR: upright, in sRGB, eight bits a channel.

    Transparent pixels are composited over white: what lies hidden under alpha is often noise, and white is what viewers show.
    Sixteen-bit greys keep their upper eight bits. CMYK and other colour spaces go through the embedded ICC profile where it works.

    Raises:
        UnsupportedMedia: not one of these formats, broken, or animated.
        MediaTooLarge: over the limits; nothing was decoded.
    """
    with open_picture(source, limits) as image:
        image.load()
        rgb = _to_rgb(ImageOps.exif_transpose(image))
        return np.ascontiguousarray(np.asarray(rgb)[..., ::-1])  # Pillow is RGB, we are BGR


def save_picture(image: BgrImage, path: Path, media_type: str) -> None:
    """Write a picture as ``image/png``, ``image/jpeg`` (quality 95, 4:4:4) or ``image/webp`` (quality 92)."""
    if media_type not in SAVE_OPTIONS:
        raise EngineFailed(f"pictures are not written as {media_type}: choose image/png, image/jpeg or image/webp")
    name, options = SAVE_OPTIONS[media_type]
    Image.fromarray(np.ascontiguousarray(image[..., ::-1])).save(path, format=name, **options)


def fit_size(width: int, height: int, box: tuple[int, int] | None, *, even: bool = False) -> tuple[int, int]:
    """Return the size that fits inside ``box``, scaled up or down with the aspect kept; without a box, the size itself.

    Args:
        width: pixels.
        height: pixels.
        box: (width, height) in pixels.
        even: round both sides down to even numbers, as 4:2:0 video needs them.
    """
    if box is not None:
        scale = min(box[0] / width, box[1] / height)
        width, height = min(round(width * scale), box[0]), min(round(height * scale), box[1])
    if even:
        return max(width & ~1, 2), max(height & ~1, 2)
    return max(width, 1), max(height, 1)


def resize(image: BgrImage, size: tuple[int, int]) -> BgrImage:
    """Scale to ``size`` = (width, height) pixels: averaging when it shrinks, bicubic when it grows."""
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    shrinks = size[0] * size[1] < width * height
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC), np.uint8)


@contextmanager
def open_picture(source: Path | bytes, limits: MediaLimits) -> Iterator[Image.Image]:
    """Open a PNG, JPEG or WebP, a file or what one holds, and check what its header says; what breaks while decoding is its fault too.

    Raises:
        UnsupportedMedia: not one of these formats, broken, or animated.
        MediaTooLarge: over the limits; nothing was decoded.
    """
    check_scans(source)
    # A missing file is our fault, not the sender's: outside of the guard.
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        try:
            with Image.open(file, formats=PICTURE_FORMATS) as image:
                _check(image, limits)
                yield image
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise _too_many_pixels(limits) from None
        except _BROKEN_FILE as error:
            raise UnsupportedMedia("the picture cannot be read: send a whole PNG, JPEG or WebP file") from error


def _check(image: Image.Image, limits: MediaLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise _too_many_pixels(limits)
    if max(width, height) > limits.max_side_px:
        raise MediaTooLarge(f"the picture is {width}x{height}: scale it so that no side is over {limits.max_side_px} pixels")
    # A JPEG with more pictures behind the first (MPO: depth, a second lens, a preview) is a photo of a telephone, and no animation.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise UnsupportedMedia("animated PNG and WebP are not supported: send a GIF or an MP4, or a still picture")


def _too_many_pixels(limits: MediaLimits) -> MediaTooLarge:
    return MediaTooLarge(f"the picture has more than {limits.max_pixels / 1e6:g} million pixels: scale it down")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray(_upper_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, WHITE)
        canvas.paste(_to_srgb(layers.convert("RGB"), image.info.get("icc_profile")), mask=layers.getchannel("A"))
        return canvas
    if image.mode in ("P", "1"):
        image = image.convert("RGB")
    return _to_srgb(image, image.info.get("icc_profile"))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None  # a broken profile, or one of another colour space: show the numbers as they are, as browsers do
        if converted is not None:
            return converted
    return image.convert("RGB")


def _upper_eight_bits(grey: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(grey, 0, 0xFFFF) >> 8, np.uint8)
