"""A sketch as it comes out of a web page: checked, with a small look of it that tells whether anything was drawn."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import SAVE_OPTIONS, load_picture, open_picture
from deployments.jobs.errors import InvalidInput
from deployments.jobs.media_types import SNIFF_BYTES, sniff

LOOK_SIDE = 64  # cells a side: a stroke of 3 pixels on a canvas of 512 changes a cell that it crosses by a third

Look = npt.NDArray[np.float32]  # shape (LOOK_SIDE, LOOK_SIDE), mean grey of each cell, 0..1


@dataclass(frozen=True, slots=True)
class Sketch:
    """A picture that may be sent to a backend."""

    data: bytes
    media_type: str
    width: int  # pixels
    height: int
    look: Look


def read_sketch(data: bytes, limits: MediaLimits) -> Sketch:
    """Check a PNG, JPEG or WebP and look at it.

    A picture with transparent pixels is laid over white, as the canvas shows it: ComfyUI's LoadImage drops the alpha, and what lies
    under it is black.

    Raises:
        InvalidInput: empty.
        UnsupportedMedia: none of these formats, broken, or animated.
        MediaTooLarge: over the limits; nothing was decoded.
    """
    if not data:
        raise InvalidInput("the sketch is empty: send a PNG, JPEG or WebP picture")
    with open_picture(data, limits) as image:
        image.load()  # whole, or a broken one would fail on the backend, with a traceback
        if not image.has_transparency_data:
            return Sketch(data, sniff(data[:SNIFF_BYTES]) or "image/png", image.width, image.height, _look_at(image))
    picture = Image.fromarray(np.ascontiguousarray(load_picture(data, limits)[..., ::-1]))  # from BGR
    return Sketch(_to_png(picture), "image/png", picture.width, picture.height, _look_at(picture))


def largest_change(one: Look, other: Look) -> float:
    """Return by how much the cell that differs most differs, 0..1: the mean over a canvas hardly notices a stroke."""
    return float(np.abs(one - other).max())


def _look_at(image: Image.Image) -> Look:
    cells = image.convert("L").resize((LOOK_SIDE, LOOK_SIDE), Image.Resampling.BOX)  # the mean of each cell
    return np.asarray(cells, np.float32) / np.float32(255)


def _to_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    name, options = SAVE_OPTIONS["image/png"]
    picture.save(buffer, format=name, **options)
    return buffer.getvalue()
