"""Typed inputs of a workflow whose owner lists only their names, as registrations of the task service do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from deployments.engines.comfyui.graph import PromptGraph, is_link, topological_order
from deployments.engines.comfyui.named_places import places_by_name
from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.engines.comfyui.parameters import Parameter, find_parameters
from deployments.engines.comfyui.places import Place, closest, find_place, problem_at, titles_of
from deployments.engines.comfyui.typed_inputs import raise_if_any
from deployments.jobs.errors import NodeProblem
from deployments.jobs.model import JsonObject


def infer_parameters(graph: PromptGraph, info: ObjectInfo | None, inputs: Mapping[str, str | None]) -> dict[str, JsonObject]:
    """Return the ``parameters`` of a workflow's description, see ``workflow_file``.

    Args:
        graph: of the workflow.
        info: of the backends; without it types come from what is known of ComfyUI's own nodes, else from the values in the graph.
        inputs: by name, ``"<node id or title>.<input>"``; None means the place that the name itself means, see ``places_by_name``.

    Raises:
        WorkflowInvalid: names every input that has no place in the graph, or one that takes its value from another node.
    """
    known = {parameter.place: parameter for parameter in find_parameters(graph, info)}
    order, titles = topological_order(graph), titles_of(graph)
    described: dict[str, JsonObject] = {}
    problems: list[NodeProblem] = []
    for name, text in inputs.items():
        found = places_by_name(graph, name, order) if text is None else (find_place(graph, text, info, titles),)
        wrong = [_problem(graph, place) for place in found] if found else [_nowhere(name, known.values())]
        problems += [problem for problem in wrong if problem is not None]
        places = [place for place in found if isinstance(place, Place) and str(place) in known]
        if places:
            described[name] = _describe(known[str(places[0])]) | {"bind": [str(place) for place in places]}
    raise_if_any(problems)
    return described


def _problem(graph: PromptGraph, place: Place | NodeProblem) -> NodeProblem | None:
    if isinstance(place, NodeProblem):
        return place
    value = graph[place.comfy_node]["inputs"].get(place.input)
    return problem_at(graph, place, "is_linked", f"{place} takes its value from another node") if is_link(value) else None


def _nowhere(name: str, known: Iterable[Parameter]) -> NodeProblem:
    names = dict.fromkeys(parameter.name for parameter in known)
    return NodeProblem("", "", name, "unknown_parameter", f"the workflow has no input for {name!r}", None, closest(name, names) or None)


def _describe(parameter: Parameter) -> JsonObject:
    if parameter.is_seed:
        return {"type": "seed"}
    if parameter.media is not None:
        return {"type": parameter.media}
    if parameter.type in {"integer", "number"}:
        bounds = {"minimum": parameter.minimum, "maximum": parameter.maximum}
        return {"type": parameter.type} | {name: bound for name, bound in bounds.items() if bound is not None}
    if parameter.type == "string":
        return {"type": "string", "multiline": parameter.multiline}
    return {"type": parameter.type if parameter.type in {"boolean", "choice"} else "string"}
