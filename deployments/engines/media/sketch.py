"""A sketch as it comes out of a web page: checked, with a small look of it that tells whether anything was drawn."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
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
    with tempfile.NamedTemporaryFile(prefix="sketch-") as file:
        file.write(data)
        file.flush()
        path = Path(file.name)
        with open_picture(path, limits) as image:
            is_transparent = image.has_transparency_data
        picture = load_picture(path, limits)
    height, width = picture.shape[:2]
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    look = cv2.resize(grey, (LOOK_SIDE, LOOK_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(255)
    if is_transparent:
        return Sketch(_to_png(picture), "image/png", width, height, look)
    return Sketch(data, sniff(data[:SNIFF_BYTES]) or "image/png", width, height, look)


def largest_change(one: Look, other: Look) -> float:
    """Return by how much the cell that differs most differs, 0..1: the mean over a canvas hardly notices a stroke."""
    return float(np.abs(one - other).max())


def _to_png(picture: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    name, options = SAVE_OPTIONS["image/png"]
    Image.fromarray(np.ascontiguousarray(picture[..., ::-1])).save(buffer, format=name, **options)
    return buffer.getvalue()
