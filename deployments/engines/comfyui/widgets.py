"""Widget values of a drawn node, given back the names of the inputs that they belong to.

The editor stores the values as a bare list in the order in which it draws the widgets, with entries in between that are no inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from deployments.engines.comfyui.object_info import DYNAMIC_COMBO, InputInfo, NodeInfo
from deployments.jobs.model import JsonObject

_CONTROLS = frozenset({"fixed", "increment", "decrement", "randomize", "increment-wrap"})
_UPLOAD_FLAGS = ("image_upload", "audio_upload", "video_upload", "file_upload")
# What the buttons beside a file's name store.
_UPLOAD_BUTTONS = frozenset({"image", "audio", "video", "file", "upload3dmodel", "uploadExtraResources", "clear"})


def widget_inputs(comfy_class: NodeInfo, values: list[Any] | JsonObject) -> JsonObject:  # Any: JSON values
    """Return the widgets' values by input name, ready for an API graph.

    A widget that is linked has an entry too. Entries that are missing at the end get the value of a new widget.

    Args:
        comfy_class: the node's class.
        values: what the editor stored: a list in the order of the widgets, or, by some custom nodes, an object.
    """
    if isinstance(values, dict):
        return dict(_named(comfy_class, values))
    return dict(_walk(comfy_class.inputs, _Entries(values), ""))


def to_value(value: Any) -> Any:  # noqa: ANN401 - a JSON value
    """Wrap a list, which in an API graph would be a link."""
    return {"__value__": value} if isinstance(value, list) else value


class _Entries:
    """The list of stored values, read front to back."""

    def __init__(self, values: list[Any]) -> None:  # Any: JSON values
        self._values = values
        self._position = 0

    def take(self, one: InputInfo) -> Any:  # noqa: ANN401 - a JSON value
        if self._position >= len(self._values):
            return one.initial
        self._position += 1
        return self._values[self._position - 1]

    def skip(self, words: frozenset[str], *, at_most: int = 1) -> None:
        for value in self._values[self._position : self._position + at_most]:
            if not isinstance(value, str) or value not in words:
                return
            self._position += 1


def _walk(inputs: Iterable[InputInfo], entries: _Entries, prefix: str) -> Iterator[tuple[str, Any]]:
    for one in inputs:
        if not one.is_widget:
            continue
        value = entries.take(one)
        if value is not None:
            yield prefix + one.name, to_value(value)
        if one.control_after_generate:
            entries.skip(_CONTROLS)
        if any(one.options.get(flag) for flag in _UPLOAD_FLAGS):
            entries.skip(_UPLOAD_BUTTONS, at_most=3)
        if one.type == DYNAMIC_COMBO:
            yield from _walk(one.branch(value), entries, f"{prefix}{one.name}.")


def _named(comfy_class: NodeInfo, values: JsonObject) -> Iterator[tuple[str, Any]]:
    """Take the class's own inputs, and what a custom node adds by script: simple values under a proper name.

    The rest are captions of buttons and the state of previews.
    """
    for name, value in values.items():
        own = name in comfy_class.by_name
        added = name.partition(".")[0].isidentifier() and isinstance(value, str | int | float)
        if (own or added) and value is not None:
            yield name, to_value(value)
