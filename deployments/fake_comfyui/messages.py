"""Messages of the WebSocket, encoded: JSON texts and three binary events.

::

    1 PREVIEW_IMAGE                 u32 1, u32 format (1 JPEG, 2 PNG), bytes
    3 TEXT                          u32 3, u32 length, node id, UTF-8 text
    4 PREVIEW_IMAGE_WITH_METADATA   u32 4, u32 length, JSON, bytes

All numbers are big-endian.
"""

from __future__ import annotations

import json
import struct
from enum import IntEnum

from deployments.fake_comfyui.graph import JsonObject

Message = str | bytes


class PictureFormat(IntEnum):
    """How the bytes of event 1 are encoded."""

    JPEG = 1
    PNG = 2


def encode_json(event: str, data: JsonObject) -> str:
    """Return a text message."""
    return json.dumps({"type": event, "data": data})


def encode_picture(data: bytes, picture_format: PictureFormat) -> bytes:
    """Return event 1, which names neither prompt nor node."""
    return struct.pack(">II", 1, picture_format) + data


def encode_text(node_id: str, text: str) -> bytes:
    """Return event 3."""
    name = node_id.encode()
    return struct.pack(">II", 3, len(name)) + name + text.encode()


def encode_picture_with_metadata(jpeg: bytes, node_id: str, prompt_id: str) -> bytes:
    """Return event 4."""
    metadata = {
        "node_id": node_id,
        "prompt_id": prompt_id,
        "display_node_id": node_id,
        "parent_node_id": None,
        "real_node_id": node_id,
        "image_type": "image/jpeg",
    }
    head = json.dumps(metadata).encode()
    return struct.pack(">II", 4, len(head)) + head + jpeg
