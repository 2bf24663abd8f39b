"""What a node class is: its inputs and outputs as ComfyUI describes them, and the function behind it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from deployments.fake_comfyui.config import FakeConfig
from deployments.fake_comfyui.dice import Dice
from deployments.fake_comfyui.files import FileStore
from deployments.fake_comfyui.graph import Graph, JsonObject
from deployments.fake_comfyui.pictures import Picture

MAX_SIDE_PX = 16384  # MAX_RESOLUTION of ComfyUI
HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}  # of the nodes that save: written into their files

Options = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Site:
    """What nodes find around them: the files and the configuration of their server."""

    config: FakeConfig
    files: FileStore
    dice: Dice
    temp_suffix: str  # of the names of previews: another one after each start


Choices = Callable[[Site], list[str]]


class NodeContext(Protocol):
    """What a running node may ask of its executor."""

    node_id: str
    graph: Graph
    extra_data: JsonObject
    site: Site

    def wait(self, seconds: float) -> None:
        """Sleep.

        Raises:
            Interrupted: somebody interrupts the prompt meanwhile.
        """

    def report(self, value: int, total: int, preview: Callable[[], Picture] | None = None) -> None:
        """Tell how far the node is; ``preview`` is called only when previews are wanted.

        Raises:
            Interrupted: somebody interrupts the prompt.
        """

    def send_picture(self, picture: Picture, value: int, total: int) -> None:
        """Send a picture as PNG over the socket, as SaveImageWebsocket does."""

    def send_text(self, text: str) -> None:
        """Show a text at the node."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What an output node gives: ``ui`` goes to the client and into the history."""

    ui: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a node class."""

    name: str
    kind: str | tuple[str, ...] | Choices  # a type, fixed choices, or choices that depend on the site
    options: Options | None = None
    optional: bool = False

    def describe(self, site: Site) -> list[Any]:  # a type and its options are JSON of any shape
        """Return the input in the form of ``/object_info``: ``[type or choices, options]``, the latter only where there are some."""
        kind = self.kind if isinstance(self.kind, str) else list(self.kind) if isinstance(self.kind, tuple) else self.kind(site)
        return [kind] if self.options is None else [kind, dict(self.options)]


@dataclass(frozen=True)
class NodeClass:
    """A node class. ``run`` takes the inputs by keyword, and ``context`` if it names such an argument."""

    name: str
    run: Callable[..., tuple[object, ...] | Shown]
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    hidden: Mapping[str, str] = field(default_factory=dict)
    display_name: str = ""
    description: str = ""
    category: str = "image"
    is_output: bool = False
    fingerprint: Callable[..., str] | None = None  # of what the inputs do not show, such as a file's content; takes site and the inputs
    check: Callable[..., str | None] | None = None  # takes site and one input, returns what is wrong with it
    checked_input: str | None = None

    @cached_property
    def wants_context(self) -> bool:
        """Whether ``run`` takes the context."""
        return "context" in inspect.signature(self.run).parameters

    @cached_property
    def by_name(self) -> dict[str, Input]:
        """The inputs by their names."""
        return {spec.name: spec for spec in self.inputs}
