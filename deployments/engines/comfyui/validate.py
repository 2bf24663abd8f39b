"""What a ComfyUI server would refuse of a graph, found before it is asked, and what it refused, in the same words.

The server is stricter about custom nodes than its description tells, and laxer where a node checks its own inputs. So only what it
surely refuses is reported: what is not described passes here and meets the server.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deployments.engines.comfyui.graph import MAX_PROBLEMS, PromptGraph, is_link, links, title_of, topological_order
from deployments.engines.comfyui.object_info import DYNAMIC_COMBO, InputInfo, NodeInfo, ObjectInfo
from deployments.engines.comfyui.outputs import needed_nodes
from deployments.engines.comfyui.places import Place, input_info, problem_at
from deployments.engines.comfyui.values import describe, shown, shown_choices
from deployments.jobs.errors import NodeProblem, WorkflowInvalid

# Types whose links the server compares by name. Custom types, and wildcards that pretend to equal everything, are left to it.
LITERAL_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN"})
CORE_TYPES = LITERAL_TYPES | {
    *("MODEL", "CLIP", "VAE", "CONDITIONING", "LATENT", "IMAGE", "MASK", "AUDIO", "VIDEO", "CONTROL_NET", "CLIP_VISION"),
    *("CLIP_VISION_OUTPUT", "STYLE_MODEL", "UPSCALE_MODEL", "GLIGEN", "NOISE", "SAMPLER", "SIGMAS", "GUIDER"),
}
DYNAMIC_PREFIX = "COMFY_"  # inputs that bring others along: COMFY_AUTOGROW_V3, COMFY_MATCHTYPE_V3 ...


def find_problems(graph: PromptGraph, info: ObjectInfo) -> tuple[NodeProblem, ...]:
    """Return what the server that ``info`` describes would refuse, at most ``MAX_PROBLEMS``.

    As on the server, the class of every node has to exist, but only the inputs of nodes that an output needs are looked at. Names of
    media files are not: the job brings them. Nothing is raised, whatever the links and values.
    """
    missing = [
        NodeProblem(
            node_id, title_of(graph, node_id), "", "missing_node_type", f"the backend has no node class {shown(node['class_type'])}"
        )
        for node_id, node in graph.items()
        if node["class_type"] not in info.nodes
    ]
    if missing:
        return tuple(missing[:MAX_PROBLEMS])
    outputs = [node_id for node_id, node in graph.items() if info.nodes[node["class_type"]].output_node]
    if not outputs:
        return (NodeProblem("", "", "", "prompt_no_outputs", "the workflow has no output node, such as SaveImage"),)
    if all(link.origin in graph for link in links(graph)):
        try:
            topological_order(graph)
        except WorkflowInvalid as cycle:
            return cycle.problems
    needed = needed_nodes(graph, outputs)
    found = (problem for node_id in graph if node_id in needed for problem in _node_problems(graph, node_id, info))
    return tuple(problem for _, problem in zip(range(MAX_PROBLEMS), found, strict=False))


def _node_problems(graph: PromptGraph, node_id: str, info: ObjectInfo) -> Iterator[NodeProblem]:
    inputs = graph[node_id]["inputs"]
    for described in info.nodes[graph[node_id]["class_type"]].inputs:
        if described.required and described.name not in inputs and not _comes_in_parts(described):
            yield problem_at(graph, Place(node_id, described.name), "required_input_missing", f"{described.name} is required")
    for name, value in inputs.items():
        place = Place(node_id, name)
        wanted = input_info(graph, place, info)
        if wanted is None:
            continue  # the server ignores inputs that it does not know
        problem = (
            _link_problem(graph, place, value, wanted, info) if isinstance(value, list) else _value_problem(graph, place, value, wanted)
        )
        if problem is not None:
            yield problem


def _comes_in_parts(described: InputInfo) -> bool:
    return described.type.startswith(DYNAMIC_PREFIX) and described.type != DYNAMIC_COMBO


def _link_problem(graph: PromptGraph, place: Place, value: list[Any], wanted: InputInfo, info: ObjectInfo) -> NodeProblem | None:
    if not is_link(value) or value[0] not in graph:
        return problem_at(graph, place, "bad_linked_input", f"{place.input} links to a node that the workflow does not hold")
    origin: NodeInfo = info.nodes[graph[value[0]]["class_type"]]
    if value[1] >= len(origin.outputs):
        message = f"{place.input} links to output {value[1]} of node {value[0]}, which has {len(origin.outputs)}"
        return problem_at(graph, place, "bad_linked_input", message)
    offered = origin.outputs[value[1]]
    if _fits(offered, wanted.type):
        return None
    message = f"{place.input} takes {wanted.type}, but output {value[1]} of node {value[0]} is {offered}"
    return problem_at(graph, place, "return_type_mismatch", message, offered, [wanted.type])


def _fits(offered: str, wanted: str) -> bool:
    offers, wants = _types(offered), _types(wanted)
    if wants == {"COMBO"}:
        return not offers <= CORE_TYPES - LITERAL_TYPES  # a node may compute the name of a choice
    return bool(offers & wants) or not (offers <= CORE_TYPES and wants <= CORE_TYPES)


def _types(joined: str) -> set[str]:
    return {one.strip() for one in joined.split(",")}


def _value_problem(graph: PromptGraph, place: Place, value: object, wanted: InputInfo) -> NodeProblem | None:
    if isinstance(value, dict) and "__value__" in value:
        value = value["__value__"]
    if wanted.type in {"INT", "FLOAT"}:
        return _number_problem(graph, place, value, wanted)
    if wanted.type in {"COMBO", DYNAMIC_COMBO} and wanted.media is None and wanted.choices is not None:
        return _choice_problem(graph, place, value, wanted.choices)
    return None  # text and booleans are made out of anything; other types are links


def _number_problem(graph: PromptGraph, place: Place, value: object, wanted: InputInfo) -> NodeProblem | None:
    number = _as_server_reads(value, wanted.type)
    if number is None:
        what = "a whole number" if wanted.type == "INT" else "a number"
        return problem_at(graph, place, "invalid_input_type", f"{place.input} is {describe(value)}, but has to be {what}", shown(value))
    allowed = {"min": wanted.minimum, "max": wanted.maximum}
    if wanted.minimum is not None and number < wanted.minimum:
        message = f"{place.input} is {shown(number)}, at least {wanted.minimum} is allowed"
        return problem_at(graph, place, "value_smaller_than_min", message, shown(value), allowed)
    if wanted.maximum is not None and number > wanted.maximum:
        message = f"{place.input} is {shown(number)}, at most {wanted.maximum} is allowed"
        return problem_at(graph, place, "value_bigger_than_max", message, shown(value), allowed)
    return None


def _as_server_reads(value: object, kind: str) -> float | None:
    if not isinstance(value, bool | int | float | str):
        return None
    try:
        return int(value) if kind == "INT" else float(value)  # "64", 64.7 and true are numbers to it
    except (ValueError, OverflowError):
        return None


def _choice_problem(graph: PromptGraph, place: Place, value: object, choices: tuple[Any, ...]) -> NodeProblem | None:
    if value in choices or isinstance(value, list):  # a list: several choices at once, which the node checks itself
        return None
    message = f"{place.input} is {describe(value)}, which is not among the choices"
    return problem_at(graph, place, "value_not_in_list", message, shown(value), shown_choices(choices))
