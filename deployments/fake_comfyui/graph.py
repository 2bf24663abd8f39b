"""An API graph: comfy nodes by id, each with a class and inputs that are values or links. Which node runs next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeGuard

JsonObject = dict[str, Any]  # JSON that a client sent or will get: any shape
Graph = dict[str, Any]  # an API graph as it was sent: a value may be anything until it has been validated


def is_link(value: object) -> TypeGuard[list[Any]]:  # the parts of a link are looked at by its reader
    """Tell whether an input's value names another node's output: ``[node id, slot]``."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)


def links_of(graph: Graph, node_id: str) -> Iterator[str]:
    """Yield the ids of the nodes that a node takes inputs from, in the order of its inputs."""
    for value in graph[node_id].get("inputs", {}).values():
        if is_link(value):
            yield value[0]


def sources_first(graph: Graph, node_id: str) -> list[str]:
    """Return a node and all that it needs and that exist, each after its sources (but for cycles).

    Without recursion: chains are longer than Python's stack.
    """
    found: dict[str, None] = {}
    begun: set[str] = set()
    stack = [(node_id, False)]
    while stack:
        current, sources_done = stack.pop()
        if sources_done:
            found[current] = None
        elif current in graph and current not in begun:
            begun.add(current)
            stack.append((current, True))
            stack.extend((source, False) for source in reversed(list(links_of(graph, current))))
    return list(found)


class ExecutionOrder:
    """Hands out the nodes that the wanted outputs need, each after its sources.

    Among the nodes that are ready, an output node comes first, then the direct source of one, then a source of such a source:
    so a picture is shown as soon as it can be.
    """

    def __init__(self, graph: Graph, outputs: Iterable[str], is_cached: Callable[[str], bool], is_output: Callable[[str], bool]) -> None:
        self._is_output = is_output
        self._sources: dict[str, set[str]] = {}
        self._targets: dict[str, list[str]] = {}
        for output in outputs:
            self._add(graph, output, is_cached)

    def next(self) -> str | None:
        """Return the node to execute now, or None when all are done."""
        ready = [node_id for node_id, sources in self._sources.items() if not sources]
        if not ready:
            return None
        return min(ready, key=self._distance_to_output)  # min keeps the first of equals

    def done(self, node_id: str) -> None:
        """Strike off a node."""
        del self._sources[node_id]
        for target in self._targets.pop(node_id, []):
            self._sources[target].discard(node_id)

    def _add(self, graph: Graph, output: str, is_cached: Callable[[str], bool]) -> None:
        waiting = [output]
        while waiting:
            node_id = waiting.pop()
            if node_id in self._sources:
                continue
            sources = [source for source in links_of(graph, node_id) if not is_cached(source)]
            self._sources[node_id] = set(sources)
            for source in set(sources):
                self._targets.setdefault(source, []).append(node_id)
            waiting.extend(sources)

    def _distance_to_output(self, node_id: str) -> int:
        if self._is_output(node_id):
            return 0
        targets = self._targets.get(node_id, [])
        if any(map(self._is_output, targets)):
            return 1
        return 2 if any(self._is_output(far) for target in targets for far in self._targets.get(target, [])) else 3
