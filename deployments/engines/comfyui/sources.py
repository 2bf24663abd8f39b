"""Where a drawn link really comes from: through reroutes, bypassed nodes and the walls of subgraphs, to an output or to a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deployments.engines.comfyui.drawing import BYPASSED, MUTED, SUBGRAPH_INPUT, DrawnNode, kinds
from deployments.engines.comfyui.scopes import Scope
from deployments.jobs.errors import WorkflowNotConvertible

PRIMITIVE = "PrimitiveNode"
GETTER = "GetNode"
SETTER = "SetNode"
REROUTES = frozenset({"Reroute", "Reroute (rgthree)", SETTER})  # pass their first input on
NOTES = frozenset(  # drawn for people, or switches that act in the editor
    {
        "Note",
        "MarkdownNote",
        "Label (rgthree)",
        "Bookmark (rgthree)",
        "Fast Groups Muter (rgthree)",
        "Fast Groups Bypasser (rgthree)",
    }
)
VIRTUAL = REROUTES | NOTES | {PRIMITIVE, GETTER}  # never reach the server

LOOPING = "its reroutes or bypasses lead back to it"
NO_SETTER = "no SetNode has the name that it asks for"


@dataclass(frozen=True, slots=True)
class Output:
    """An output of a node that will be in the API graph."""

    node_id: str
    slot: int


@dataclass(frozen=True, slots=True)
class Value:
    """A plain value: of a primitive, or of a widget on a subgraph's instance."""

    value: Any  # JSON


Source = Output | Value | None  # None: nothing, such as a muted node
_Place = tuple[Scope, str | None]  # a link by its id, and where it is drawn


class SourceFinder:
    """Follows links back to their sources and remembers every step, so that a long chain is walked once."""

    def __init__(self) -> None:
        self._found: dict[_Place, Source] = {}

    def find(self, scope: Scope, link: str | None) -> Source:
        """Return what a link carries.

        Raises:
            WorkflowNotConvertible: the way never ends, or a GetNode names nothing.
        """
        place: _Place | Output | Value | None = (scope, link)
        path: dict[_Place, None] = {}
        while isinstance(place, tuple):
            if place in path:
                raise _looping(place)
            if place in self._found:
                place = self._found[place]
                break
            path[place] = None
            place = _step(*place)
        self._found.update(dict.fromkeys(path, place))
        return place


def _looping(place: _Place) -> WorkflowNotConvertible:
    scope, link = place
    drawn = scope.drawing.links.get(link or "")
    comfy_node = scope.drawing.nodes.get(drawn.origin) if drawn else None
    if comfy_node is None:  # a link out of a subgraph
        return WorkflowNotConvertible(scope.prefix.rstrip(":") or "root", "workflow", LOOPING)
    return WorkflowNotConvertible(scope.id_of(comfy_node), comfy_node.type, LOOPING)


def _step(scope: Scope, link: str | None) -> _Place | Output | Value | None:
    """Go one step back."""
    drawn = scope.drawing.links.get(link) if link is not None else None
    if drawn is None:
        return None
    if drawn.origin == SUBGRAPH_INPUT and scope.parent is not None:
        return _out_of_subgraph(scope, scope.parent, drawn.origin_slot)
    comfy_node = scope.drawing.nodes.get(drawn.origin)
    if comfy_node is None or comfy_node.mode == MUTED or comfy_node.type in NOTES:
        return None
    return _through(scope, comfy_node, drawn.origin_slot)


def _through(scope: Scope, comfy_node: DrawnNode, slot: int) -> _Place | Output | Value | None:
    """Go from a node's output to what stands for it."""
    if comfy_node.mode == BYPASSED:
        return scope, _bypass(comfy_node, slot)
    if comfy_node.type in REROUTES:
        return scope, comfy_node.inputs[0].link if comfy_node.inputs else None
    if comfy_node.type == GETTER:
        return _setter(scope, comfy_node)
    if comfy_node.type == PRIMITIVE:
        return None if comfy_node.first_value is None else Value(comfy_node.first_value)
    if comfy_node.id in scope.children:
        child = scope.children[comfy_node.id]
        return child, child.drawing.output_links.get(slot)
    return Output(scope.id_of(comfy_node), slot)


def _out_of_subgraph(scope: Scope, parent: Scope, slot: int) -> _Place | Value | None:
    """Go from a subgraph's input to what its instance gets there: a link, or else the value of the promoted widget."""
    if not 0 <= slot < len(scope.drawing.inputs):
        return None
    name = scope.drawing.inputs[slot].name
    if name in scope.linked:
        return parent, scope.linked[name]
    return Value(scope.values[name]) if scope.values.get(name) is not None else None


def _setter(scope: Scope, getter: DrawnNode) -> _Place:
    looked: Scope | None = scope
    while looked is not None:
        setter = looked.drawing.setters.get(getter.first_value) if isinstance(getter.first_value, str) else None
        if setter is not None:
            return looked, setter.inputs[0].link if setter.inputs and setter.mode != MUTED else None
        looked = looked.parent
    raise WorkflowNotConvertible(scope.id_of(getter), getter.type, NO_SETTER)


def _bypass(comfy_node: DrawnNode, slot: int) -> str | None:
    """Return the link that a bypassed node passes on: of the input across, or the first of the same type, or the first that fits."""
    wanted = comfy_node.outputs[slot] if 0 <= slot < len(comfy_node.outputs) else "*"
    if 0 <= slot < len(comfy_node.inputs) and comfy_node.inputs[slot].fits(wanted):
        return comfy_node.inputs[slot].link
    if wanted in comfy_node.first_of_type:
        return comfy_node.inputs[comfy_node.first_of_type[wanted]].link
    if "*" in kinds(wanted):
        return comfy_node.inputs[0].link if comfy_node.inputs else None
    fitting = [comfy_node.first_of_kind[kind] for kind in kinds(wanted) | {"*"} if kind in comfy_node.first_of_kind]
    return comfy_node.inputs[min(fitting)].link if fitting else None
