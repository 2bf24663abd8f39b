"""How far a prompt is, from the nodes that have run and the steps of the one that runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from deployments.engines.comfyui.graph import PromptGraph, is_link, links, title_of
from deployments.engines.comfyui.outputs import needed_nodes
from deployments.engines.comfyui.values import to_integer

HEAVIEST = 10_000  # steps that a sampler takes at most
NOT_DONE = 0.999  # until the job has ended, its outputs are still to be taken out


class GraphProgress:
    """Follows the messages of a server about one prompt; those about unknown nodes, or out of order, do no harm.

    A node weighs as much as it has steps, or 1. Nodes that come out of a node while it runs (``12.0.3``) count as that node.
    """

    def __init__(self, graph: PromptGraph, outputs: Collection[str] | None = None) -> None:
        """``outputs``: the nodes that are asked for; None: those that no other node depends on."""
        self._graph = graph
        used = {link.origin for link in links(graph)}
        needed = needed_nodes(graph, [node_id for node_id in graph if node_id not in used] if outputs is None else outputs)
        self._weights = {node_id: _weight(graph[node_id]["inputs"].get("steps")) for node_id in needed}
        self._total = sum(self._weights.values())
        self._done: dict[str, float] = {}  # share of the node's work
        self._done_weight = 0.0
        self._current: str | None = None
        self._steps: tuple[int, int] | None = None
        self._fraction = 0.0

    @property
    def fraction(self) -> float:
        """Share of the work that is done: never falls, and stays below 1."""
        return self._fraction

    @property
    def comfy_node(self) -> str | None:
        """Id in the graph of the node that runs."""
        return self._current

    @property
    def title(self) -> str | None:
        """What a person calls the node that runs."""
        return None if self._current is None else title_of(self._graph, self._current)

    @property
    def step(self) -> int | None:
        """Steps that the node has done, where it tells."""
        return self._steps[0] if self._steps else None

    @property
    def steps(self) -> int | None:
        """Steps that the node takes, where it tells."""
        return self._steps[1] if self._steps else None

    def on_cached(self, comfy_nodes: Iterable[str]) -> None:
        """Take note of nodes whose results the server still had."""
        for comfy_node in comfy_nodes:
            if comfy_node in self._graph:  # a cached child says nothing about its parent
                self._advance(comfy_node, 1.0)

    def on_executing(self, comfy_node: str | None) -> None:
        """Take note of the node that begins; None: there is no further one."""
        known = None if comfy_node is None else self._known(comfy_node)
        if comfy_node is not None and known is None:
            return
        if known == self._current and known is not None:  # another child of it
            return
        if self._current is not None:
            self._advance(self._current, 1.0)
        self._current, self._steps = known, None

    def on_progress(self, comfy_node: str, value: float, maximum: float) -> None:
        """Take note of the steps of a node."""
        known = self._known(comfy_node)
        if known is None or not (math.isfinite(value) and math.isfinite(maximum) and value >= 0 and maximum >= 1):
            return
        if known != self._current:
            self.on_executing(comfy_node)
        self._steps = (int(min(value, maximum)), int(maximum))
        if known == comfy_node:  # how many children a node brings forth is not known: theirs are shown, but not counted
            self._advance(known, min(1.0, value / maximum))

    def on_executed(self, comfy_node: str) -> None:
        """Take note of a node that has ended."""
        if comfy_node in self._graph:
            self._advance(comfy_node, 1.0)

    def _known(self, comfy_node: str) -> str | None:
        """Return the node of the graph that an id means: itself or a parent."""
        while comfy_node not in self._graph:
            cut = max(comfy_node.rfind("."), comfy_node.rfind(":"))
            if cut <= 0:
                return None
            comfy_node = comfy_node[:cut]
        return comfy_node

    def _advance(self, comfy_node: str, share: float) -> None:
        gained = share - self._done.get(comfy_node, 0.0)
        if comfy_node not in self._weights or gained <= 0:
            return
        self._done[comfy_node] = share
        self._done_weight += gained * self._weights[comfy_node]
        self._fraction = max(self._fraction, min(NOT_DONE, self._done_weight / self._total))


def _weight(steps: object) -> int:
    count = None if is_link(steps) else to_integer(steps)
    return 1 if count is None else min(max(1, count), HEAVIEST)
