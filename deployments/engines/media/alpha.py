"""A mask as the alpha of a picture, which is how ComfyUI's own mask editor stores one."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageOps

from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import SAVE_OPTIONS, open_picture
from deployments.jobs.errors import InvalidInput


def put_alpha(original: Path, mask: Path, limits: MediaLimits) -> bytes:
    """Return a picture with the alpha of another, as PNG; the colours under the alpha are kept.

    Args:
        original: PNG, JPEG or WebP whose colours are taken, upright.
        mask: PNG or WebP of the same size whose alpha is taken: 0 where ComfyUI shall paint.
        limits: of both.

    Raises:
        InvalidInput: the mask has no alpha, or another size.
        UnsupportedMedia: one of them is no such picture.
        MediaTooLarge: one of them is over the limits.
    """
    alpha = _load_alpha(mask, limits)
    with open_picture(original, limits) as image:
        profile = image.info.get("icc_profile")
        picture = ImageOps.exif_transpose(image).convert("RGBA").convert("RGB")
    if picture.size != alpha.size:
        sizes = [f"{image.width}x{image.height}" for image in (alpha, picture)]
        raise InvalidInput(f"the mask is {sizes[0]} and the picture {sizes[1]}: send a mask of the picture's size")
    picture.putalpha(alpha)
    buffer = io.BytesIO()
    name, options = SAVE_OPTIONS["image/png"]
    picture.save(buffer, format=name, icc_profile=profile, **options)
    return buffer.getvalue()


def _load_alpha(mask: Path, limits: MediaLimits) -> Image.Image:
    with open_picture(mask, limits) as image:
        if not image.has_transparency_data:
            raise InvalidInput("the mask has no alpha channel: send a PNG or WebP whose transparency is the mask")
        return ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")
