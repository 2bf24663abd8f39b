"""Pictures as arrays, and as files that say what made them.

Everything that leaves the server carries the words "fake backend": drawn into the lower left corner (nothing narrower than
``LABEL_MIN_WIDTH`` px can hold them) and, in PNG, in a text chunk.
"""

from __future__ import annotations

import io
import json
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deployments.fake_comfyui.graph import JsonObject

Picture: TypeAlias = NDArray[np.uint8]  # BGR, (height, width, 3)
Pictures: TypeAlias = NDArray[np.uint8]  # BGR, (batch, height, width, 3)
Masks: TypeAlias = NDArray[np.float32]  # 0 to 1, (batch, height, width)

LABEL = "fake backend"
LABEL_MIN_WIDTH = 64
PREVIEW_MAX_SIDE = 512  # --preview-size of ComfyUI

GLYPHS = {  # 3x5 dots, a row a number: a font file would draw other dots on other machines
    "f": (0b011, 0b100, 0b110, 0b100, 0b100),
    "a": (0b000, 0b011, 0b101, 0b101, 0b011),
    "k": (0b100, 0b101, 0b110, 0b110, 0b101),
    "e": (0b000, 0b010, 0b111, 0b100, 0b011),
    " ": (0b000, 0b000, 0b000, 0b000, 0b000),
    "b": (0b100, 0b110, 0b101, 0b101, 0b110),
    "c": (0b000, 0b011, 0b100, 0b100, 0b011),
    "n": (0b000, 0b110, 0b101, 0b101, 0b101),
    "d": (0b001, 0b011, 0b101, 0b101, 0b011),
}


def stamp(picture: Picture) -> Picture:
    """Return a copy with the label in its lower left corner, or ``picture`` itself where it has no room."""
    height, width = picture.shape[:2]
    label = draw_label(max(1, width // 170))
    if width < LABEL_MIN_WIDTH or height < label.shape[0]:
        return picture
    stamped = picture.copy()
    stamped[height - label.shape[0] :, : label.shape[1]] = label[..., None]
    return stamped


@lru_cache(maxsize=32)
def draw_label(dot_px: int) -> NDArray[np.uint8]:
    """Draw the label: white dots of ``dot_px`` pixels on black, grey uint8 (7 * dot_px, 49 * dot_px)."""
    rows = [[int(bit) for letter in LABEL for bit in f"{GLYPHS[letter][row]:03b}0"] for row in range(5)]
    dots = np.pad(np.array(rows, np.uint8) * 255, ((1, 1), (1, 0)))
    return np.repeat(np.repeat(dots, dot_px, axis=0), dot_px, axis=1)


def encode_png(
    picture: Picture, graph: JsonObject | None = None, extra_pnginfo: JsonObject | None = None, compress_level: int = 4
) -> bytes:
    """Encode a picture with its label; ``graph`` and ``extra_pnginfo`` become text chunks as ComfyUI writes them."""
    chunks = PngInfo()
    if graph is not None:
        chunks.add_text("prompt", json.dumps(graph))
    for name, value in (extra_pnginfo or {}).items():
        chunks.add_text(name, json.dumps(value))
    chunks.add_text("software", LABEL)
    buffer = io.BytesIO()
    _to_pillow(stamp(picture)).save(buffer, format="PNG", pnginfo=chunks, compress_level=compress_level)
    return buffer.getvalue()


def encode_preview(picture: Picture) -> bytes:
    """Encode a sampler's preview: a JPEG with the label, at most ``PREVIEW_MAX_SIDE`` px a side."""
    image = _to_pillow(picture)
    image.thumbnail((PREVIEW_MAX_SIDE, PREVIEW_MAX_SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    _to_pillow(stamp(np.asarray(image)[..., ::-1])).save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


def _to_pillow(picture: Picture) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture[..., ::-1]))  # Pillow is RGB
