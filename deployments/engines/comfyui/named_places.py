"""Where a bare name such as ``prompt`` or ``steps`` belongs in a graph that declares no parameters."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from deployments.engines.comfyui.graph import PromptGraph, is_link, topological_order
from deployments.engines.comfyui.places import Place
from deployments.engines.comfyui.seeds import SEED_INPUTS

# Literal inputs that hold what a person wrote, of encoders and of the primitives that feed them.
TEXT_INPUTS = ("text", "text_g", "text_l", "clip_l", "t5xxl", "prompt", "string", "value")
POSITIVE_ROOTS = ("positive", "conditioning", "guider")  # samplers with one conditioning have no side


def places_by_name(graph: PromptGraph, name: str, order: Sequence[str] | None = None) -> tuple[Place, ...]:
    """Return the inputs that a name means; none when there are none.

    ``prompt`` is the text that the sampler is drawn to and ``negative_prompt`` the one that it is kept from, whatever their encoders
    call it. ``seed`` is the first seed. Any other name is the first input of that name, in the order of computing.

    Args:
        graph: to look in.
        name: as a client sent it.
        order: ``topological_order(graph)``, for whoever looks for several names.
    """
    order = topological_order(graph) if order is None else order
    if name == "prompt":
        return _positive_texts(graph, order) or _first(graph, ["prompt"], order) or _first(graph, ["text"], order)
    if name == "negative_prompt":
        return _negative_texts(graph, order) or _first(graph, [name], order)
    return _first(graph, SEED_INPUTS if name in SEED_INPUTS else [name], order)


def _positive_texts(graph: PromptGraph, order: Sequence[str]) -> tuple[Place, ...]:
    """Return the inputs that hold the positive prompt; several where one encoder takes it in several forms."""
    return next((found for root in POSITIVE_ROOTS if (found := _texts(graph, root, "positive", order))), ())


def _negative_texts(graph: PromptGraph, order: Sequence[str]) -> tuple[Place, ...]:
    """Return the inputs that hold the negative prompt; none where it is the positive one, zeroed."""
    found = _texts(graph, "negative", "negative", order)
    return () if set(found) & set(_positive_texts(graph, order)) else found


def _first(graph: PromptGraph, names: Sequence[str], order: Sequence[str]) -> tuple[Place, ...]:
    for node in order:
        for name in names:
            value = graph[node]["inputs"].get(name)
            if value is not None and not is_link(value):
                return (Place(node, name),)
    return ()


def _texts(graph: PromptGraph, root: str, side: str, order: Sequence[str]) -> tuple[Place, ...]:
    seen: set[str] = set()  # nodes that lead to no text, whoever asks
    for node in order:
        link = graph[node]["inputs"].get(root)
        found = _texts_behind(graph, link[0], side, seen) if is_link(link) else ()
        if found:
            return found
    return ()


def _texts_behind(graph: PromptGraph, start: str, side: str, seen: set[str]) -> tuple[Place, ...]:
    """Walk upstream to the nearest texts; a node with both sides, such as a ControlNet, is passed on its own side."""
    waiting = deque([start])
    while waiting:
        node = waiting.popleft()
        if node in seen:
            continue
        seen.add(node)
        inputs = graph[node]["inputs"]
        texts = tuple(Place(node, name) for name in TEXT_INPUTS if isinstance(inputs.get(name), str))
        if texts:
            return texts
        names = [side] if is_link(inputs.get(side)) else list(inputs)
        waiting += [inputs[name][0] for name in names if is_link(inputs[name])]
    return ()
