"""Put the inputs of a request into a copy of the workflow's graph."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.engines.comfyui.graph import MAX_PROBLEMS, PromptGraph, is_link, topological_order
from deployments.engines.comfyui.media_inputs import TO_BE_UPLOADED, MediaBinding, media_kind, reference_of
from deployments.engines.comfyui.named_places import places_by_name
from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.engines.comfyui.overrides import value_at
from deployments.engines.comfyui.places import Place, closest, copy_graph, find_comfy_node, find_place, input_info, problem_at, titles_of
from deployments.engines.comfyui.seeds import RANDOM_SEED, draw_seed, draw_seeds, is_seed_at
from deployments.engines.comfyui.typed_inputs import is_first_choice, raise_if_any, typed_inputs
from deployments.engines.comfyui.values import Accepted, shown, to_integer
from deployments.engines.comfyui.workflow_file import ParameterSpec, WorkflowMeta
from deployments.jobs.errors import NodeProblem


@dataclass(frozen=True, slots=True)
class BoundGraph:
    """A graph with the inputs of one job in it."""

    graph: PromptGraph
    media: dict[str, MediaBinding] = field(default_factory=dict)  # by role: the parameter's name, "name#2" for its second place
    seeds: dict[str, int] = field(default_factory=dict)  # by place "<id>.<input>": those that were drawn or sent
    choices_open: tuple[str, ...] = ()  # places that take the first choice of the backend: see fill_choices


def bind_inputs(
    graph: PromptGraph, meta: WorkflowMeta, inputs: Mapping[str, Any], info: ObjectInfo | None, generator: random.Random
) -> BoundGraph:
    """Check the inputs of a request and bind them to the graph, which is not modified.

    A name that the workflow does not declare, or declares without a place, goes to the input that ``places_by_name`` finds. Every
    seed of -1, those of the graph too, becomes a number that was drawn.

    Raises:
        WorkflowInvalid: names every input that is wrong, or that the graph has no place for.
    """
    values = typed_inputs(meta, inputs)
    binding = _Binding(copy_graph(graph), info, generator)
    for name, value in values.items():
        if len(binding.problems) >= MAX_PROBLEMS:
            break
        binding.bind(name, value, meta.parameters.get(name))
    for name, spec in meta.parameters.items():
        if name not in values and is_first_choice(spec):
            binding.leave_open(name, spec)
    raise_if_any(binding.problems)
    drawn = draw_seeds(binding.graph, info, generator)
    return BoundGraph(binding.graph, binding.media, binding.seeds | drawn, tuple(binding.choices_open))


def binding_problems(graph: PromptGraph, meta: WorkflowMeta, info: ObjectInfo | None = None) -> tuple[NodeProblem, ...]:
    """Return what is wrong with the places and outputs that a workflow's description names, whether or not a request uses them."""
    binding = _Binding(graph, info, random.Random(0))  # noqa: S311 -- nothing is drawn
    for name, spec in meta.parameters.items():
        if len(binding.problems) < MAX_PROBLEMS:
            binding.places(name, spec)
    titles = titles_of(graph)
    outputs = [find_comfy_node(graph, text, titles) for text in meta.outputs or ()]
    return (*binding.problems, *(found for found in outputs if isinstance(found, NodeProblem)))[:MAX_PROBLEMS]


def fill_choices(graph: PromptGraph, choices_open: Iterable[str], info: ObjectInfo) -> PromptGraph:
    """Return a copy in which the open places hold what the backend that ``info`` describes offers.

    That is the graph's own value where the backend has it, because a folder of models holds some that do not go together; else the
    first.

    Raises:
        WorkflowInvalid: it offers none.
    """
    copy, problems = copy_graph(graph), list[NodeProblem]()
    for text in choices_open:
        place = find_place(copy, text, info)
        if isinstance(place, NodeProblem):
            problems.append(place)
            continue
        described = input_info(copy, place, info)
        if described is None or not described.choices:
            problems.append(problem_at(copy, place, "value_not_in_list", f"the backend offers nothing for {place}", None, []))
            continue
        inputs = copy[place.comfy_node]["inputs"]
        inputs[place.input] = inputs[place.input] if inputs[place.input] in described.choices else described.choices[0]
    raise_if_any(problems)
    return copy


class _Binding:
    """Collects what the inputs of a request do to a graph, and what is wrong with them."""

    def __init__(self, graph: PromptGraph, info: ObjectInfo | None, generator: random.Random) -> None:
        self.graph = graph
        self.media: dict[str, MediaBinding] = {}
        self.seeds: dict[str, int] = {}
        self.choices_open: list[str] = []
        self.problems: list[NodeProblem] = []
        self._info = info
        self._titles = titles_of(graph)
        self._order = topological_order(graph)
        self._generator = generator

    def bind(self, name: str, value: Any, spec: ParameterSpec | None) -> None:  # noqa: ANN401 -- a JSON value
        places = self.places(name, spec)
        if spec is not None and spec.type == "seed" and value == RANDOM_SEED:
            value = self._draw(places, spec)  # one for all its places
        for n, place in enumerate(places, start=1):
            self._put(name if n == 1 else f"{name}#{n}", place, value, spec)

    def leave_open(self, name: str, spec: ParameterSpec) -> None:
        self.choices_open += [str(place) for place in self.places(name, spec)]

    def places(self, name: str, spec: ParameterSpec | None) -> list[Place]:
        if spec is None or not spec.bind:
            found: list[Place | NodeProblem] = [*places_by_name(self.graph, name, self._order)] or [self._nowhere(name)]
        else:
            found = [find_place(self.graph, text, self._info, self._titles) for text in spec.bind]
        places = [one for one in found if isinstance(one, Place)]
        self.problems += [one for one in found if isinstance(one, NodeProblem)]
        linked = [place for place in places if is_link(self.graph[place.comfy_node]["inputs"].get(place.input))]
        self.problems += [problem_at(self.graph, place, "is_linked", f"{place} takes its value from another node") for place in linked]
        return [place for place in places if place not in linked]

    def _put(self, role: str, place: Place, value: Any, spec: ParameterSpec | None) -> None:  # noqa: ANN401 -- a JSON value
        if spec is None:
            value = self._taken(place, value)
        takes_media = spec.is_media if spec else media_kind(self.graph, place, self._info) is not None
        reference = reference_of(value) if takes_media else None
        if reference is not None:
            self.media[role] = MediaBinding(place.comfy_node, place.input, reference)
            value = TO_BE_UPLOADED
        seed = to_integer(value)
        if seed is not None and ((spec is not None and spec.type == "seed") or is_seed_at(self.graph, place, self._info)):
            self.seeds[str(place)] = seed
        self.graph[place.comfy_node]["inputs"][place.input] = value

    def _taken(self, place: Place, value: Any) -> Any:  # noqa: ANN401 -- a JSON value
        found = value_at(self.graph, place, value, self._info, self._generator)
        if isinstance(found, Accepted):
            return found.value
        self.problems.append(problem_at(self.graph, place, found.kind, f"{place} {found.message}", shown(value), found.allowed))
        return None

    def _draw(self, places: list[Place], spec: ParameterSpec) -> int:
        infos = [described for place in places if (described := input_info(self.graph, place, self._info))]
        lows = [low for low in (spec.minimum, *(one.minimum for one in infos)) if low is not None]
        highs = [high for high in (spec.maximum, *(one.maximum for one in infos)) if high is not None]
        return draw_seed(self._generator, max(lows, default=None), min(highs, default=None))

    def _nowhere(self, name: str) -> NodeProblem:
        names = (key for node in self.graph.values() for key, value in node["inputs"].items() if not is_link(value))
        message = f"the workflow has no input for {shown(name)!r}"
        return NodeProblem("", "", str(shown(name)), "unknown_parameter", message, None, closest(name, dict.fromkeys(names)) or None)
