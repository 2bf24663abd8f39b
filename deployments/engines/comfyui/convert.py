"""From the format that ComfyUI's editor saves to the API graph that its server runs.

The editor does this in the browser. Its rules, as observed:

- A node of the server becomes an entry; notes, reroutes, primitives and GetNode/SetNode pairs dissolve, muted nodes vanish, bypassed
  ones pass their inputs through (``sources``).
- Widget values get the names of their inputs from the server's ``/object_info`` (``widgets``); a link wins over the value.
- Nodes inside a subgraph are named ``outer:inner``; its promoted widgets hold their values on the instance (``scopes``).

What scripts of custom nodes add in the browser, and wildcards such as ``{a|b}`` in texts, cannot be known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from deployments.engines.comfyui.drawing import BYPASSED, MALFORMED, MUTED, TOO_LARGE, DrawnNode, read_drawing
from deployments.engines.comfyui.graph import MAX_NODES, PromptGraph
from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.engines.comfyui.scopes import Scope, open_scopes
from deployments.engines.comfyui.sources import VIRTUAL, Output, SourceFinder, Value
from deployments.engines.comfyui.widgets import to_value, widget_inputs
from deployments.jobs.errors import WorkflowNotConvertible
from deployments.jobs.model import JsonObject

UNKNOWN_CLASS = "the server does not know this class"
GROUP_NODE = "group nodes have been replaced by subgraphs: open the workflow in a current ComfyUI and convert the group"
NO_SUBGRAPH = "its subgraph is not in the file"

_GROUP_PREFIXES = ("workflow>", "workflow/")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def to_api(document: JsonObject, info: ObjectInfo) -> PromptGraph:
    """Convert a UI-format workflow. The result has still to be checked: it may hold a cycle or nothing at all.

    Args:
        document: as saved by ComfyUI's editor, see ``detect_format``; it is not modified.
        info: of the server that will run it: it names the widgets.

    Raises:
        WorkflowNotConvertible: names the node that stands in the way, and why.
    """
    finder = SourceFinder()
    graph: PromptGraph = {}
    for scope, comfy_node in _living(open_scopes(read_drawing(document))):
        if len(graph) == MAX_NODES:
            raise WorkflowNotConvertible("root", "workflow", f"{TOO_LARGE}: at most {MAX_NODES} nodes are taken")
        node_id = scope.id_of(comfy_node)
        if node_id in graph:  # a root node may be called 2:1
            raise WorkflowNotConvertible(node_id, comfy_node.type, f"{MALFORMED}: two nodes have this id")
        graph[node_id] = _entry(scope, comfy_node, info, finder)
    return graph


def _living(scope: Scope) -> Iterator[tuple[Scope, DrawnNode]]:
    """Iterate over the nodes that reach the server, those of a subgraph in place of its instance."""
    for comfy_node in scope.drawing.nodes.values():
        if comfy_node.mode in {MUTED, BYPASSED} or comfy_node.type in VIRTUAL:
            continue
        if comfy_node.id in scope.children:
            yield from _living(scope.children[comfy_node.id])  # nested MAX_NESTING deep at most
        else:
            yield scope, comfy_node


def _entry(scope: Scope, comfy_node: DrawnNode, info: ObjectInfo, finder: SourceFinder) -> JsonObject:
    comfy_class = info.nodes.get(comfy_node.type)
    if comfy_class is None:
        raise WorkflowNotConvertible(scope.id_of(comfy_node), comfy_node.type, _why_unknown(comfy_node.type))
    inputs = widget_inputs(comfy_class, comfy_node.values)
    for one in comfy_node.inputs:
        source = finder.find(scope, one.link) if one.name and one.link is not None else None
        if isinstance(source, Output):
            inputs[one.name] = [source.node_id, source.slot]
        elif isinstance(source, Value):
            inputs[one.name] = to_value(source.value)
    return {"class_type": comfy_node.type, "inputs": inputs, "_meta": {"title": comfy_node.title or comfy_class.display_name}}


def _why_unknown(kind: str) -> str:
    if kind.startswith(_GROUP_PREFIXES):
        return GROUP_NODE
    return NO_SUBGRAPH if _UUID.fullmatch(kind) else UNKNOWN_CLASS
