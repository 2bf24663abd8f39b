"""A drawn workflow with its subgraphs opened: one scope for the root and one for every living instance of a subgraph.

An instance's nodes are named ``outer:inner``, as ComfyUI's editor names them in an API graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.engines.comfyui.drawing import BYPASSED, MUTED, TOO_LARGE, Drawing, DrawnNode, DrawnWorkflow
from deployments.jobs.errors import WorkflowNotConvertible

MAX_DRAWN_NODES = 10_000  # in all scopes together: subgraphs inside subgraphs multiply
MAX_NESTING = 20  # the deepest template has four

CYCLIC = "the subgraph contains itself"
TOO_NESTED = "subgraphs are nested too deep"


@dataclass(eq=False, slots=True)
class Scope:
    """The root of a workflow, or one instance of a subgraph."""

    drawing: Drawing
    prefix: str = ""  # of the ids of its nodes
    parent: Scope | None = None
    linked: Mapping[str, str] = field(default_factory=dict)  # link in the parent by name of the subgraph's input
    values: Mapping[str, Any] = field(default_factory=dict)  # of the subgraph's promoted widgets, where the instance stores them
    children: dict[str, Scope] = field(default_factory=dict)  # by id of the instance

    def id_of(self, comfy_node: DrawnNode) -> str:
        """Return the id of a node in the API graph."""
        return self.prefix + comfy_node.id


def open_scopes(workflow: DrawnWorkflow) -> Scope:
    """Open all instances of subgraphs that are neither muted nor bypassed.

    Raises:
        WorkflowNotConvertible: a subgraph that contains itself, is nested too deep, or unfolds to too many nodes.
    """
    root = Scope(workflow.root)
    waiting, drawn = [(root, frozenset[str]())], 0
    while waiting:
        scope, path = waiting.pop()
        drawn += len(scope.drawing.nodes)
        if drawn > MAX_DRAWN_NODES:
            raise WorkflowNotConvertible(scope.prefix.rstrip(":") or "root", "workflow", f"{TOO_LARGE}: over {MAX_DRAWN_NODES} nodes")
        for comfy_node in scope.drawing.nodes.values():
            if comfy_node.type in workflow.subgraphs and comfy_node.mode not in {MUTED, BYPASSED}:
                _check_nesting(scope, comfy_node, path)
                scope.children[comfy_node.id] = child = _open(scope, comfy_node, workflow.subgraphs[comfy_node.type])
                waiting.append((child, path | {comfy_node.type}))
    return root


def _check_nesting(scope: Scope, comfy_node: DrawnNode, path: frozenset[str]) -> None:
    if comfy_node.type in path:
        raise WorkflowNotConvertible(scope.id_of(comfy_node), comfy_node.type, CYCLIC)
    if len(path) >= MAX_NESTING:
        raise WorkflowNotConvertible(scope.id_of(comfy_node), comfy_node.type, f"{TOO_NESTED}: at most {MAX_NESTING} levels are taken")


def _open(scope: Scope, comfy_node: DrawnNode, drawing: Drawing) -> Scope:
    # Older files store no values, or fewer than there are widgets: the values of the nodes inside count then.
    values = comfy_node.values if isinstance(comfy_node.values, dict) else dict(zip(drawing.promoted, comfy_node.values, strict=False))
    linked = {slot.name: slot.link for slot in reversed(comfy_node.inputs) if slot.link is not None}
    return Scope(drawing, f"{scope.id_of(comfy_node)}:", scope, linked, values)
