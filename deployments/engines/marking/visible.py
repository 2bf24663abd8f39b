"""The label that people see: GB 45438-2025 asks for words on pictures and on the first seconds of videos.

The words name artificial intelligence and what it did. They are at least a twentieth of the shortest side high, in a corner, white on a
dark plate, so that they can be read over anything.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, ImageSequence
from PIL.PngImagePlugin import PngInfo

from deployments.engines.images import BgrImage
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.probe import probe_video
from deployments.engines.media.video import transform_video
from deployments.jobs.errors import MarkingFailed, ServiceError

FONT = Path(__file__).with_name("font") / "AtelierLabel-Bold.otf"
HEIGHT = 0.055  # of the shortest side: the rule says 0.05, and rounding must not fall below it
LEGIBLE_PX = 12  # on small pictures, as far as there is room
SHOWN = Fraction(3)  # seconds of a video: the rule says 2, and frames may come at an uneven pace
USUAL_FPS = Fraction(60)  # where a file does not say: rather too long than too short
PLATE_ALPHA = 0.6
PICTURES = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/gif": "GIF"}
VIDEOS = frozenset({"video/mp4", "video/quicktime"})
SAVED: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 3},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 92, "method": 4},
    "GIF": {},
}
OWN = MediaLimits(max_bytes=2**40, max_pixels=10**9, max_side_px=65_535, max_video_pixels=10**9, max_duration_s=10**6, max_frames=10**8)


def label_picture(path: Path, media_type: str, text: str) -> None:
    """Draw the label on a picture, or on every frame of an animated one, and save it in its format; its metadata stay.

    Raises:
        MarkingFailed: it cannot be read or written.
    """
    kind = PICTURES[media_type]
    made = path.with_name(f".labelled-{path.name}")
    try:
        with Image.open(path, formats=(kind,)) as image:
            frames = [_labelled(frame, text, kind) for frame in ImageSequence.Iterator(image)]
            options = SAVED[kind] | _kept(image, kind)  # afterwards: it takes the orientation away
        if len(frames) > 1:
            options |= {"save_all": True, "append_images": frames[1:], "duration": [frame.info.get("duration", 100) for frame in frames]}
        frames[0].save(made, kind, **options)
        made.replace(path)
    except (OSError, ValueError, SyntaxError) as error:
        raise MarkingFailed(path.name, f"the visible label could not be drawn ({type(error).__name__})") from error
    finally:
        made.unlink(missing_ok=True)


def label_video(path: Path, text: str) -> None:
    """Draw the label on the first seconds of a video, which is encoded once more for it; its sound stays as it is.

    Raises:
        MarkingFailed: it cannot be decoded.
    """
    made = path.with_name(f".labelled-{path.name}")
    try:
        info = probe_video(path, OWN).info
        last = math.ceil(SHOWN * (info.fps or USUAL_FPS))
        for _ in transform_video(path, made, lambda frame, n: draw_label(frame, text) if n < last else frame, limits=OWN):
            pass
        made.replace(path)
    except ServiceError as error:
        raise MarkingFailed(path.name, f"the visible label could not be drawn: {error}") from error
    finally:
        made.unlink(missing_ok=True)


def draw_label(image: BgrImage, text: str) -> BgrImage:
    """Draw the label into the lower right corner.

    Args:
        image: uint8 BGR, shape (height, width, 3); changed.
        text: words of which the font has the characters.
    """
    height, width = image.shape[:2]
    patch = _patch(width, height, text)
    top, left = _corner(width, height, patch)
    place = image[top : top + patch.shape[0], left : left + patch.shape[1]]
    words = patch[..., None].astype(np.float32) / 255
    plate = place * (1 - PLATE_ALPHA)
    place[:] = np.rint(plate + (255 - plate) * words).astype(np.uint8)
    return image


def text_height(width: int, height: int) -> int:
    """Return how high the words are on a picture, in pixels."""
    short = min(width, height)
    return max(math.ceil(short * HEIGHT), min(LEGIBLE_PX, short // 4), 1)


@lru_cache(maxsize=8)
def _patch(width: int, height: int, text: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the words as coverage, 0..255, with the room around them that the plate has."""
    wanted = text_height(width, height)
    size = 100
    left, top, right, bottom = ImageFont.truetype(FONT, size).getbbox(text)
    font = ImageFont.truetype(FONT, math.ceil(size * wanted / (bottom - top)))
    left, top, right, bottom = font.getbbox(text)
    edge = max(1, wanted // 3)
    words = Image.new("L", (int(right - left) + 2 * edge, int(bottom - top) + 2 * edge))
    ImageDraw.Draw(words).text((edge - left, edge - top), text, font=font, fill=255)
    return np.asarray(words)[:height, :width]


def _corner(width: int, height: int, patch: np.ndarray[Any, np.dtype[np.uint8]]) -> tuple[int, int]:
    margin = text_height(width, height) // 2
    return max(0, height - patch.shape[0] - margin), max(0, width - patch.shape[1] - margin)


def _labelled(frame: Image.Image, text: str, kind: str) -> Image.Image:
    upright = ImageOps.exif_transpose(frame)
    layers = upright.convert("RGBA" if upright.has_transparency_data and kind != "JPEG" else "RGB")
    pixels = np.array(layers)
    pixels[..., :3] = draw_label(np.ascontiguousarray(pixels[..., :3]), text)  # white and grey: the order of the colours does not matter
    if pixels.shape[2] == 4:
        patch = _patch(upright.width, upright.height, text)
        top, left = _corner(upright.width, upright.height, patch)
        pixels[top : top + patch.shape[0], left : left + patch.shape[1], 3] = 255
    made = Image.fromarray(pixels)
    made.info = {"duration": frame.info["duration"]} if "duration" in frame.info else {}
    return made


def _kept(image: Image.Image, kind: str) -> dict[str, Any]:
    kept: dict[str, Any] = {name: image.info[name] for name in ("icc_profile", "dpi", "loop") if name in image.info}
    if image.mode in {"CMYK", "L", "I", "I;16", "LAB"}:  # saved as RGB, which their profiles are not for
        kept.pop("icc_profile", None)
    exif = image.getexif()
    exif.pop(0x0112, None)  # the pixels are upright now
    if len(exif) and kind != "GIF":
        kept["exif"] = exif
    texts = getattr(image, "text", None) if kind == "PNG" else None
    if texts:  # a workflow of ComfyUI, for one
        kept["pnginfo"] = PngInfo()
        for name, value in texts.items():
            kept["pnginfo"].add_itxt(name, value) if not value.isascii() else kept["pnginfo"].add_text(name, value)
    return kept
