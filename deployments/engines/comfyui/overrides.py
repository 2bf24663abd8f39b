"""Change single inputs of a graph by name: ``{"6.text": "a fox", "Sampler.steps": 8}``."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from deployments.engines.comfyui.graph import MAX_PROBLEMS, PromptGraph, is_link
from deployments.engines.comfyui.media_inputs import media_kind, reference_of
from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.engines.comfyui.places import Place, copy_graph, find_place, input_info, problem_at, titles_of
from deployments.engines.comfyui.seeds import RANDOM_SEED, draw_seed_at, is_random_seed, is_seed_at
from deployments.engines.comfyui.typed_inputs import raise_if_any
from deployments.engines.comfyui.values import Accepted, Refusal, Wanted, coerce, shown, to_integer
from deployments.jobs.errors import InvalidInput, NodeProblem, WorkflowInvalid

MAX_OVERRIDES = 5000


def apply_overrides(
    graph: PromptGraph, overrides: Mapping[str, Any], info: ObjectInfo | None, generator: random.Random
) -> tuple[PromptGraph, dict[str, int]]:
    """Set inputs by the id or unique title of their node.

    Links are not cut: what another node computes is changed there. Media places take references; see ``take_references``.

    Args:
        graph: not modified.
        overrides: values by ``"<node id or title>.<input>"``; a seed of -1 draws one.
        info: of the backends; without it values are taken as they are.
        generator: of seeds.

    Returns:
        A copy with the values, and the seeds among them by place ``"<id>.<input>"``.

    Raises:
        WorkflowInvalid: names every override that names no place, a linked one, or a value that does not fit.
    """
    if len(overrides) > MAX_OVERRIDES:
        raise WorkflowInvalid(f"{len(overrides)} inputs are overridden: at most {MAX_OVERRIDES} may be")
    copy, seeds, titles = copy_graph(graph), dict[str, int](), titles_of(graph)
    problems: list[NodeProblem] = []
    for text, value in overrides.items():
        if len(problems) == MAX_PROBLEMS:
            break
        place = find_place(graph, text, info, titles)
        if isinstance(place, NodeProblem):
            problems.append(place)
            continue
        found = value_at(graph, place, value, info, generator)
        if isinstance(found, Refusal):
            problems.append(problem_at(graph, place, found.kind, f"{place} {found.message}", shown(value), found.allowed))
            continue
        copy[place.comfy_node]["inputs"][place.input] = found.value
        seed = to_integer(found.value)
        if seed is not None and is_seed_at(graph, place, info):
            seeds[str(place)] = seed
    raise_if_any(problems)
    return copy, seeds


def changed_graph(graph: PromptGraph, overrides: Mapping[str, Any], info: ObjectInfo | None) -> PromptGraph:
    """Return a graph to keep, with other values: a seed of -1 stays, since each run draws its own.

    Raises:
        InvalidInput: media by reference, which a kept graph cannot have: they belong to a run.
        WorkflowInvalid: as :func:`apply_overrides`.
    """
    titles = titles_of(graph)
    random_places: list[Place] = []
    for text, value in overrides.items():
        place = find_place(graph, text, info, titles)
        if not isinstance(place, Place):
            continue  # named by apply_overrides
        if media_kind(graph, place, info) is not None and reference_of(value) is not None:
            raise InvalidInput(f"{text} takes the name of a file here, such as one that was uploaded: a URL belongs to a run")
        if is_random_seed(graph, place, value, info):
            random_places.append(place)
    changed, _ = apply_overrides(graph, overrides, info, random.Random(0))  # noqa: S311 -- what it draws is not kept
    for place in random_places:
        changed[place.comfy_node]["inputs"][place.input] = RANDOM_SEED
    return changed


def value_at(graph: PromptGraph, place: Place, value: object, info: ObjectInfo | None, generator: random.Random) -> Accepted | Refusal:
    """Turn a value that a client sent for a place into what the graph gets there."""
    if is_link(graph[place.comfy_node]["inputs"].get(place.input)):
        return Refusal("is_linked", "takes its value from another node: change it there")
    if is_random_seed(graph, place, value, info):
        return Accepted(draw_seed_at(graph, place, info, generator))
    if media_kind(graph, place, info) is not None and reference_of(value) is not None:
        return Accepted(value)
    described = input_info(graph, place, info)
    return coerce(value, Wanted("any") if described is None else Wanted.by(described))
