"""Random seeds: ``-1`` asks for one, and the one that was drawn is shown so that the picture can be made again."""

from __future__ import annotations

import random

from deployments.engines.comfyui.graph import PromptGraph
from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.engines.comfyui.places import Place, input_info
from deployments.engines.comfyui.values import to_integer

RANDOM_SEED = -1  # what clients send for "any"
LARGEST_SEED = 2**64 - 1  # that ComfyUI takes
LARGEST_DRAWN = 2**53 - 1  # JavaScript reads numbers above it wrongly, and a seed that was read wrongly cannot be repeated
SEED_INPUTS = ("seed", "noise_seed")


def is_seed_at(graph: PromptGraph, place: Place, info: ObjectInfo | None) -> bool:
    """Whether an input takes a seed: by its name, or because ComfyUI's page draws a new value for it after each run."""
    described = input_info(graph, place, info)
    return place.input in SEED_INPUTS or (described is not None and described.type == "INT" and described.control_after_generate)


def draw_seed(generator: random.Random, minimum: float | None = None, maximum: float | None = None) -> int:
    """Draw a seed within the bounds of the input, where they are known, that every client can repeat."""
    low = 0 if minimum is None else _within(minimum)
    high = LARGEST_DRAWN if maximum is None else _within(maximum)
    return generator.randint(low, max(low, high))


def draw_seeds(graph: PromptGraph, info: ObjectInfo | None, generator: random.Random) -> dict[str, int]:
    """Replace every seed of -1 in a graph, in place, and return what was drawn by place.

    A node that takes -1 by its own description keeps it.
    """
    asking = [
        Place(node_id, name)
        for node_id, node in graph.items()
        for name, value in node["inputs"].items()
        if is_random_seed(graph, Place(node_id, name), value, info)
    ]
    for place in asking:
        graph[place.comfy_node]["inputs"][place.input] = draw_seed_at(graph, place, info, generator)
    return {str(place): graph[place.comfy_node]["inputs"][place.input] for place in asking}


def draw_seed_at(graph: PromptGraph, place: Place, info: ObjectInfo | None, generator: random.Random) -> int:
    """Draw a seed that the input at a place takes."""
    described = input_info(graph, place, info)
    return draw_seed(generator) if described is None else draw_seed(generator, described.minimum, described.maximum)


def is_random_seed(graph: PromptGraph, place: Place, value: object, info: ObjectInfo | None) -> bool:
    """Whether a value asks for a random seed at this place."""
    if to_integer(value) != RANDOM_SEED:
        return False
    described = input_info(graph, place, info)
    if described is None:
        return is_seed_at(graph, place, info)
    takes_it = described.minimum is not None and described.minimum <= RANDOM_SEED
    return described.type == "INT" and not takes_it and is_seed_at(graph, place, info)


def _within(bound: float) -> int:
    return int(max(0, min(LARGEST_DRAWN, bound)))  # in this order also of what no server should say, such as NaN
