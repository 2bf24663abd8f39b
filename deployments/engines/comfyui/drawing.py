"""The format in which ComfyUI's editor saves a workflow: nodes with slots, a table of links, and subgraphs with drawings of their own.

Read here into values of fixed shape. What the editor itself would shrug at (a link to nowhere, a slot without a type) is kept or
dropped silently; a node that cannot be told apart from others is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard

from deployments.engines.comfyui.graph import MAX_NAME_LENGTH, unwrap
from deployments.jobs.errors import WorkflowNotConvertible
from deployments.jobs.model import JsonObject

MAX_LINKS = 20_000  # of a file; ComfyUI's largest template has some hundreds

MAX_SLOTS = 500  # of a node or a subgraph
_MAX_TYPE_LENGTH = 1000

# Ends of links inside a subgraph that stand for the slots of its instance.
SUBGRAPH_INPUT = "-10"
SUBGRAPH_OUTPUT = "-20"

MUTED = 2
BYPASSED = 4

MALFORMED = "the file is malformed here"
TOO_LARGE = "the workflow is too large"


@dataclass(frozen=True, slots=True)
class Slot:
    """An input of a drawn node, or an input of a subgraph."""

    name: str
    type: str
    link: str | None = None
    is_widget: bool = False  # a widget that can also be linked

    def fits(self, other: str) -> bool:
        """Whether an output of another type may be linked here."""
        return "*" in (mine := kinds(self.type)) or "*" in (theirs := kinds(other)) or not mine.isdisjoint(theirs)


@dataclass(frozen=True, slots=True)
class DrawnLink:
    """One line of a table of links."""

    id: str
    origin: str
    origin_slot: int
    target: str
    target_slot: int


@dataclass(frozen=True)
class DrawnNode:
    """A node as drawn: of a class of the server, of the editor alone, or an instance of a subgraph."""

    id: str
    type: str  # class, or id of a subgraph
    mode: int
    title: str  # empty where nobody gave one
    inputs: tuple[Slot, ...]
    outputs: tuple[str, ...]  # their types
    values: list[Any] | JsonObject  # of the widgets: in their order, or by name

    @property
    def first_value(self) -> Any:  # noqa: ANN401 - a JSON value
        """The value of the first widget, None if there is none."""
        return self.values[0] if isinstance(self.values, list) and self.values else None

    @cached_property
    def first_of_type(self) -> Mapping[str, int]:
        """Number of the first input of each type."""
        return {slot.type: index for index, slot in reversed(list(enumerate(self.inputs)))}

    @cached_property
    def first_of_kind(self) -> Mapping[str, int]:
        """Number of the first input that takes each kind; of a type that is joined from several, each counts."""
        return {kind: index for index, slot in reversed(list(enumerate(self.inputs))) for kind in kinds(slot.type)}


@dataclass(frozen=True)
class Drawing:
    """The nodes and links of the whole workflow or of one subgraph."""

    nodes: Mapping[str, DrawnNode]
    links: Mapping[str, DrawnLink]
    inputs: tuple[Slot, ...] = ()  # of a subgraph

    @cached_property
    def output_links(self) -> Mapping[int, str]:
        """Link id by output slot of a subgraph."""
        return {link.target_slot: link.id for link in self.links.values() if link.target == SUBGRAPH_OUTPUT}

    @cached_property
    def promoted(self) -> tuple[str, ...]:
        """Names of a subgraph's inputs that end in a widget inside; an instance stores one value for each, in this order."""
        slots: set[int] = set()
        for link in self.links.values():
            comfy_node = self.nodes.get(link.target) if link.origin == SUBGRAPH_INPUT else None
            if comfy_node is not None and 0 <= link.target_slot < len(comfy_node.inputs) and comfy_node.inputs[link.target_slot].is_widget:
                slots.add(link.origin_slot)
        return tuple(slot.name for index, slot in enumerate(self.inputs) if index in slots)

    @cached_property
    def setters(self) -> Mapping[str, DrawnNode]:
        """The SetNodes by the name under which a GetNode finds them."""
        found: dict[str, DrawnNode] = {}
        for comfy_node in self.nodes.values():
            if comfy_node.type == "SetNode" and isinstance(comfy_node.first_value, str):
                found.setdefault(comfy_node.first_value, comfy_node)
        return found


@dataclass(frozen=True, slots=True)
class DrawnWorkflow:
    """A file of the editor."""

    root: Drawing
    subgraphs: Mapping[str, Drawing]


def kinds(type_name: str) -> frozenset[str]:
    """Return the kinds of data that a type stands for: several are joined with commas, ``*`` stands for all."""
    return frozenset(name.strip().upper() or "*" for name in type_name.split(","))


def read_drawing(document: JsonObject) -> DrawnWorkflow:
    """Read a UI-format document.

    Raises:
        WorkflowNotConvertible: a node without id or type, an id given twice, or more links and inputs than a person draws.
    """
    inner = unwrap(document)
    definitions = inner.get("definitions")
    raw_subgraphs = [raw for raw in _dicts(definitions.get("subgraphs")) if _key(raw.get("id"))] if isinstance(definitions, dict) else []
    if sum(len(_items(raw.get("links"))) for raw in (inner, *raw_subgraphs)) > MAX_LINKS:
        raise WorkflowNotConvertible("root", "workflow", f"{TOO_LARGE}: at most {MAX_LINKS} links are taken")
    return DrawnWorkflow(_drawing(inner), {_key(raw["id"]): _drawing(raw) for raw in raw_subgraphs})


def _drawing(raw: JsonObject) -> Drawing:
    nodes: dict[str, DrawnNode] = {}
    for one in _items(raw.get("nodes")):
        comfy_node = _node(one)
        if comfy_node.id in nodes:
            raise WorkflowNotConvertible(comfy_node.id, comfy_node.type, f"{MALFORMED}: two nodes have this id")
        nodes[comfy_node.id] = comfy_node
    inputs = tuple(_slot(slot if isinstance(slot, dict) else {}) for slot in _items(raw.get("inputs"))[:MAX_SLOTS])
    return Drawing(nodes, {link.id: link for link in _links(raw.get("links"))}, inputs)


def _node(raw: object) -> DrawnNode:
    node_id, kind = (_key(raw.get("id")), raw.get("type")) if isinstance(raw, dict) else ("", None)
    if not isinstance(raw, dict) or not _is_name(node_id) or not _is_name(kind):
        named = kind[:MAX_NAME_LENGTH] if isinstance(kind, str) else "?"
        raise WorkflowNotConvertible(node_id[:MAX_NAME_LENGTH] or "?", named or "?", f"{MALFORMED}: a node has an id and a type")
    values, title = raw.get("widgets_values"), raw.get("title")
    if max(len(_items(raw.get("inputs"))), len(values) if isinstance(values, dict) else 0) > MAX_SLOTS:
        raise WorkflowNotConvertible(node_id, kind, f"{TOO_LARGE}: at most {MAX_SLOTS} inputs of a node are taken")
    return DrawnNode(
        id=node_id,
        type=kind,
        mode=raw["mode"] if isinstance(raw.get("mode"), int) else 0,
        title=title if isinstance(title, str) else "",
        # Slots are found by their number: one that is no object keeps its place.
        inputs=tuple(_slot(slot if isinstance(slot, dict) else {}) for slot in _items(raw.get("inputs"))),
        outputs=tuple(_slot(slot if isinstance(slot, dict) else {}).type for slot in _items(raw.get("outputs"))),
        values=values if isinstance(values, list | dict) else [],
    )


def _slot(raw: JsonObject) -> Slot:
    name, kind = raw.get("name"), raw.get("type")
    # 0, null and a list of choices come up as types in old files.
    typed = isinstance(kind, str) and 0 < len(kind) <= _MAX_TYPE_LENGTH
    return Slot(
        name=name if isinstance(name, str) else "",
        type=str(kind) if typed else "*",
        link=_key(raw.get("link")) or None,
        is_widget=isinstance(raw.get("widget"), dict),
    )


def _links(raw: object) -> Iterator[DrawnLink]:
    for one in _items(raw):
        if isinstance(one, dict):
            fields = [one.get(name) for name in ("id", "origin_id", "origin_slot", "target_id", "target_slot")]
        else:
            fields = _items(one)[:5]
        if len(fields) == 5:
            link, origin, origin_slot, target, target_slot = fields
            if _is_slot(origin_slot) and _is_slot(target_slot):
                yield DrawnLink(_key(link), _key(origin), origin_slot, _key(target), target_slot)


def _is_slot(raw: object) -> TypeGuard[int]:
    return isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0


def _is_name(raw: object) -> TypeGuard[str]:
    return isinstance(raw, str) and 0 < len(raw) <= MAX_NAME_LENGTH


def _key(raw: object) -> str:
    """Return an id as a string: files hold numbers and strings. What is neither becomes the empty string."""
    return str(raw) if isinstance(raw, int | str) and not isinstance(raw, bool) else ""


def _items(raw: object) -> list[Any]:  # Any: nothing is known of them yet
    return raw if isinstance(raw, list) else []


def _dicts(raw: object) -> list[JsonObject]:
    return [one for one in _items(raw) if isinstance(one, dict)]
