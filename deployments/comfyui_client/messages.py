"""What a ComfyUI server says on its WebSocket, parsed without any I/O.

Events are hints: a prompt's end is read from the queue and the history. So whatever cannot be parsed is ignored, and the one message
whose size grows with the square of the graph (``progress_state``) is skipped by its prefix, before anybody parses it.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

from deployments.jobs.model import JsonObject

PREVIEW, TEXT, PREVIEW_WITH_METADATA = 1, 3, 4  # binary event types of server.py
IMAGE_TYPES = {1: "image/jpeg", 2: "image/png"}
SKIPPED_PREFIX = '{"type": "progress_state"'
FEATURE_FLAGS = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})


@dataclass(frozen=True, slots=True)
class Message:
    """A JSON message."""

    type: str
    data: JsonObject

    @property
    def prompt_id(self) -> str | None:
        """The prompt that it is about; None where the server does not say."""
        found = self.data.get("prompt_id")
        return found if isinstance(found, str) else None

    @property
    def comfy_node(self) -> str | None:
        """The node that it is about."""
        found = self.data.get("node", self.data.get("node_id"))
        return found if isinstance(found, str) else None


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in a binary message: a latent preview, or the output of a SaveImageWebsocket node."""

    media_type: str
    data: bytes
    prompt_id: str | None = None  # None: the old form, which does not say
    comfy_node: str | None = None
    metadata: JsonObject = field(default_factory=dict)


def parse_text(text: str, *, whole: bool = False) -> Message | None:
    """Read a text message; None for what is skipped or no message.

    Args:
        text: as received.
        whole: parse ``progress_state`` too: megabytes for a graph of a hundred nodes.
    """
    if not whole and text.startswith(SKIPPED_PREFIX):
        return None
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or not isinstance(raw.get("type"), str):
        return None
    data = raw.get("data")
    return Message(raw["type"], data if isinstance(data, dict) else {})


def parse_binary(data: bytes) -> Picture | None:
    """Read a binary message; None for what is no picture."""
    if len(data) < 8:
        return None
    kind, second = struct.unpack_from(">II", data)
    if kind == PREVIEW:
        media_type = IMAGE_TYPES.get(second)
        return Picture(media_type, data[8:]) if media_type else None
    if kind == PREVIEW_WITH_METADATA:
        return _with_metadata(data, second)
    return None


def _with_metadata(data: bytes, length: int) -> Picture | None:
    try:
        metadata: Any = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        return None
    if not isinstance(metadata, dict):
        return None
    media_type = metadata.get("image_type")
    if media_type not in IMAGE_TYPES.values():
        return None
    prompt_id, comfy_node = metadata.get("prompt_id"), metadata.get("node_id")
    return Picture(
        str(media_type),
        data[8 + length :],
        prompt_id if isinstance(prompt_id, str) else None,
        comfy_node if isinstance(comfy_node, str) else None,
        metadata,
    )
