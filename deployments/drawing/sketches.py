"""Sketches as clients send them, read away from the event loop."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import TYPE_CHECKING

from deployments.engines.media.limits import MediaLimits
from deployments.jobs.errors import InvalidInput, MediaTooLarge
from deployments.jobs.ports import PART_BYTES

if TYPE_CHECKING:  # codecs: an ingress in which nobody draws does without them
    from deployments.engines.media.sketch import Sketch


async def read(data: bytes, limits: MediaLimits) -> Sketch:
    """Check a picture; raises as :func:`deployments.engines.media.sketch.read_sketch`, and MediaTooLarge for too many bytes."""
    if len(data) > limits.max_bytes:
        raise MediaTooLarge(f"a sketch has at most {limits.max_bytes} bytes: send it smaller, or as WebP or JPEG")
    from deployments.engines.media.sketch import read_sketch

    sketch = await asyncio.to_thread(read_sketch, data, limits)
    if len(sketch.data) > PART_BYTES:  # a transparent photograph, which became an opaque PNG
        raise MediaTooLarge("the sketch is transparent and too large for that: send it opaque, or smaller")
    return sketch


def is_alike(one: Sketch, other: Sketch, threshold: float) -> bool:
    """Whether two sketches show the same: of one size, and no part of them has changed by more than the threshold."""
    from deployments.engines.media.sketch import largest_change

    if (one.width, one.height) != (other.width, other.height):
        return False
    return one.data == other.data or (threshold > 0 and largest_change(one.look, other.look) <= threshold)


def decode_base64(text: str, max_bytes: int) -> bytes:
    """Read base64, with or without the prefix of a data: URL in front.

    Raises:
        InvalidInput: it is none.
        MediaTooLarge: too long.
    """
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise InvalidInput("sketch_data is no data: URL in base64: send what canvas.toDataURL() gives")
    if len(text) * 3 // 4 > max_bytes + 2:
        raise MediaTooLarge(f"a sketch has at most {max_bytes} bytes: send it smaller, or as WebP or JPEG")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("sketch_data is no base64: send what canvas.toDataURL() gives") from None
