"""How far the nodes of one prompt are: ``progress_state`` tells of all begun nodes at every step, ``progress`` of one."""

from __future__ import annotations

from collections.abc import Callable

from deployments.fake_comfyui.graph import JsonObject
from deployments.fake_comfyui.messages import PictureFormat, encode_json, encode_picture, encode_picture_with_metadata
from deployments.fake_comfyui.pictures import Picture, encode_preview
from deployments.fake_comfyui.socket_hub import SocketHub


class PromptProgress:
    """The progress of one prompt; without a client id everybody is told."""

    def __init__(self, hub: SocketHub, prompt_id: str, client_id: str | None, *, previews: bool) -> None:
        self._hub = hub
        self._prompt_id = prompt_id
        self._client_id = client_id
        self._previews = previews
        self._states: dict[str, JsonObject] = {}

    def begin(self, node_id: str) -> None:
        """A node starts."""
        self._update(node_id, 0.0, 1.0, "running")

    def advance(self, node_id: str, value: int, total: int, preview: Callable[[], Picture] | None = None) -> None:
        """A node has done ``value`` of ``total`` steps; ``preview`` paints what it has so far."""
        jpeg = encode_preview(preview()) if preview is not None and self._previews else None
        with_metadata = self._hub.wants_metadata(self._client_id)
        self._update(node_id, value, total, "running")
        if jpeg is not None and with_metadata:
            self._hub.post(encode_picture_with_metadata(jpeg, node_id, self._prompt_id), self._client_id)
        progress = {"value": value, "max": total, "prompt_id": self._prompt_id, "node": node_id}
        self._hub.post(encode_json("progress", progress), self._client_id)
        if jpeg is not None and not with_metadata:
            self._hub.post(encode_picture(jpeg, PictureFormat.JPEG), self._client_id)

    def finish(self, node_id: str) -> None:
        """A node is done, by execution or from the cache."""
        total = self._states.get(node_id, {}).get("max", 1)
        self._update(node_id, total, total, "finished")

    def _update(self, node_id: str, value: float, total: float, state: str) -> None:
        self._states[node_id] = {
            "value": value,
            "max": total,
            "state": state,
            "node_id": node_id,
            "prompt_id": self._prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }
        self._hub.post(encode_json("progress_state", {"prompt_id": self._prompt_id, "nodes": self._states}), self._client_id)
