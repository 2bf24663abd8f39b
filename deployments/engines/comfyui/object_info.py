"""What a ComfyUI server says of its node classes: a typed view of the answer of ``GET /object_info``.

The answer is made by whatever custom nodes a server has, so a class that is not described as the others are is left out, and what
is left out counts as unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, Self

from deployments.jobs.model import JsonObject

DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"  # its value chooses further inputs, named with a dot
AUTOGROW = "COMFY_AUTOGROW_V3"  # as many inputs as are linked, named with a dot

MediaKind = Literal["image", "mask", "audio", "video"]
Choice = str | int | float | bool

_WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR", DYNAMIC_COMBO})
_EDITOR_WIDGET_TYPES = frozenset(  # drawn by the editor's own extensions; each stores one value
    {"BOUNDING_BOX", "BOUNDING_BOXES", "CURVE", "IMAGECOMPARE", "LOAD_3D", "RANGE", "WEBCAM"}
)
_SEEDS = frozenset({"seed", "noise_seed"})  # the editor adds its control to these without being told
_UPLOADS: tuple[tuple[str, MediaKind], ...] = (("image_upload", "image"), ("audio_upload", "audio"), ("video_upload", "video"))
_MASK_CLASSES = frozenset({"LoadImageMask"})


@dataclass(frozen=True)
class InputInfo:
    """One input of a node class."""

    name: str
    type: str  # COMBO for a list of choices; several types are joined with commas, * takes all
    required: bool
    default: Any = None  # Any: JSON
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[Choice, ...] | None = None  # of a combo; None where the server lists none
    multiline: bool = False
    force_input: bool = False  # a link, never a widget
    control_after_generate: bool = False  # the editor stores what shall happen to the value after a run
    media: MediaKind | None = None  # the value names a file of the server's input folder
    options: JsonObject = field(default_factory=dict)  # everything the server says, unchecked

    @property
    def is_widget(self) -> bool:
        """Whether the editor draws a widget for it, and so stores a value."""
        if self.force_input:
            return False
        typed = self.type in _WIDGET_TYPES or self.type in _EDITOR_WIDGET_TYPES
        return typed or bool(self.options.get("socketless") or self.options.get("widgetType"))

    @property
    def initial(self) -> Any:  # noqa: ANN401 - a JSON value
        """The value of a new widget: the default, or else the first choice, or else the type's zero."""
        if self.default is not None:
            return self.default
        if self.choices:
            return self.choices[0]
        return {"INT": 0, "FLOAT": 0, "STRING": "", "BOOLEAN": False}.get(self.type)

    def branch(self, value: object) -> tuple[InputInfo, ...]:
        """Return the inputs that a value of a dynamic combo brings along, without the combo's name before theirs."""
        for option in _dicts(self.options.get("options")):
            if option.get("key") == value:
                return _nested(option.get("inputs"))
        return ()

    @cached_property
    def grown(self) -> InputInfo | None:
        """The input that an autogrow input repeats; None for every other type."""
        template = self.options.get("template")
        if self.type != AUTOGROW or not isinstance(template, dict):
            return None
        return next(iter(_nested(template.get("input"))), None)


@dataclass(frozen=True)
class NodeInfo:
    """One node class."""

    name: str
    display_name: str
    inputs: tuple[InputInfo, ...]  # required ones, then optional ones, in the order of the editor's widgets
    outputs: tuple[str, ...]  # their types; COMBO for a list of choices
    output_node: bool  # whether a graph runs for its sake

    @cached_property
    def by_name(self) -> Mapping[str, InputInfo]:
        """The inputs by their names."""
        return MappingProxyType({one.name: one for one in self.inputs})


@dataclass(frozen=True)
class ObjectInfo:
    """The node classes of a server by their names."""

    nodes: Mapping[str, NodeInfo]

    @classmethod
    def of(cls, raw: JsonObject) -> Self:
        """Read the answer of ``GET /object_info``; never raises, classes that cannot be read are left out."""
        nodes: dict[str, NodeInfo] = {}
        for name, described in raw.items():
            try:
                nodes[name] = _node(name, described)
            except _MalformedClassError:
                continue
        return cls(MappingProxyType(nodes))


def without_files(raw: JsonObject) -> JsonObject:
    """Return the answer of ``GET /object_info`` without the names of input files: whose files lie on a server is nobody's business."""
    return {name: _class_without_files(described) for name, described in raw.items()}


def _class_without_files(described: Any) -> Any:  # noqa: ANN401 - whatever a server says
    if not isinstance(described, dict) or not isinstance(described.get("input"), dict):
        return described
    sections = {
        section: {name: _spec_without_files(spec) for name, spec in specs.items()} if isinstance(specs, dict) else specs
        for section, specs in described["input"].items()
    }
    return described | {"input": sections}


def _spec_without_files(spec: Any) -> Any:  # noqa: ANN401 - whatever a server says
    options = spec[1] if isinstance(spec, list) and len(spec) > 1 and isinstance(spec[1], dict) else {}
    if not any(options.get(flag) for flag, _ in _UPLOADS):
        return spec
    listed = [] if isinstance(spec[0], list) else spec[0]
    return [listed, options | ({"options": []} if "options" in options else {}), *spec[2:]]


class _MalformedClassError(Exception):
    """A class is described in no way that we know."""


def _node(name: str, raw: object) -> NodeInfo:
    if not isinstance(raw, dict) or not isinstance(raw.get("input"), dict):
        raise _MalformedClassError
    order, outputs, display_name = raw.get("input_order"), raw.get("output"), raw.get("display_name")
    if outputs is not None and not isinstance(outputs, list):
        raise _MalformedClassError
    return NodeInfo(
        name=name,
        display_name=display_name if isinstance(display_name, str) and display_name else name,
        inputs=tuple(_inputs(raw["input"], order if isinstance(order, dict) else {}, name)),
        outputs=tuple(_type(output) for output in outputs or []),
        output_node=raw.get("output_node") is True,
    )


def _nested(sections: object) -> tuple[InputInfo, ...]:
    """Read the inputs that an input brings along; none where they are malformed."""
    try:
        return tuple(_inputs(sections, {}, ""))
    except _MalformedClassError:
        return ()


def _inputs(sections: object, order: JsonObject, class_name: str) -> Iterator[InputInfo]:
    if not isinstance(sections, dict):
        return
    for section in ("required", "optional"):
        specs = sections.get(section) or {}
        if not isinstance(specs, dict):
            raise _MalformedClassError
        named = order.get(section)
        first = [name for name in named if isinstance(name, str) and name in specs] if isinstance(named, list) else []
        for name in dict.fromkeys([*first, *specs]):
            yield _input(name, specs[name], required=section == "required", class_name=class_name)


def _input(name: str, spec: object, *, required: bool, class_name: str) -> InputInfo:
    if not isinstance(spec, list) or not spec:
        raise _MalformedClassError
    kind = _type(spec[0])
    options = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    return InputInfo(
        name=name,
        type=kind,
        required=required,
        default=options.get("default"),
        minimum=_number(options.get("min")),
        maximum=_number(options.get("max")),
        step=_number(options.get("step")),
        choices=_choices(spec[0], kind, options),
        multiline=options.get("multiline") is True,
        force_input=bool(options.get("forceInput")),
        control_after_generate=bool(options.get("control_after_generate")) or (kind == "INT" and name in _SEEDS),
        media=_media(options, class_name),
        options=options,
    )


def _type(raw: object) -> str:
    if isinstance(raw, list):
        return "COMBO"
    if not isinstance(raw, str):
        raise _MalformedClassError
    return raw


def _choices(raw: object, kind: str, options: JsonObject) -> tuple[Choice, ...] | None:
    if kind == DYNAMIC_COMBO:
        keys = [option.get("key") for option in _dicts(options.get("options"))]
        return tuple(key for key in keys if isinstance(key, Choice))
    listed = raw if isinstance(raw, list) else options.get("options")
    if kind != "COMBO" or not isinstance(listed, list):
        return None
    return tuple(choice for choice in listed if isinstance(choice, Choice))


def _media(options: JsonObject, class_name: str) -> MediaKind | None:
    for flag, kind in _UPLOADS:
        if options.get(flag):
            return "mask" if class_name in _MASK_CLASSES else kind
    return None


def _dicts(raw: object) -> list[JsonObject]:
    return [one for one in raw if isinstance(one, dict)] if isinstance(raw, list) else []


def _number(raw: object) -> float | None:
    return raw if isinstance(raw, int | float) and not isinstance(raw, bool) else None
