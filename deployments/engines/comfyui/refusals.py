"""A server's refusal of a prompt, in the words that ``validate`` uses.

What a server says may hold tracebacks, its paths and its command line; of its texts only those of known kinds are passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from deployments.engines.comfyui.graph import MAX_PROBLEMS, PromptGraph, title_of
from deployments.engines.comfyui.values import shown, shown_choices
from deployments.jobs.errors import NodeProblem
from deployments.jobs.model import JsonObject

KIND_LENGTH = 100
NAME_LENGTH = 300

# Kinds of which we know that a sentence of ours says all: it replaces the server's.
SENTENCES = {
    "no_prompt": "the server was sent no workflow",
    "invalid_prompt": "the server cannot read the workflow",
    "invalid_prompt_id": "the server refuses the id of the prompt",
    "prompt_no_outputs": "the workflow has no output node, such as SaveImage",
    "prompt_outputs_failed_validation": "the server refuses inputs of the workflow",
    "missing_node_type": "the backend has no such node class",
    "required_input_missing": "is required",
    "bad_linked_input": "is no link to an output of a node",
    "return_type_mismatch": "takes another type than the linked output has",
    "invalid_input_type": "has the wrong type",
    "value_smaller_than_min": "is smaller than allowed",
    "value_bigger_than_max": "is larger than allowed",
    "value_not_in_list": "is not among the choices",
    "custom_validation_failed": "is refused by the node, as a file that the backend does not have would be",
    "dependency_cycle": "depends on its own output",
}
ANY_OTHER = "is refused by the server"
OLD_NODE_ID = re.compile(r"Node ID '#(.+)'")


def problems_of_answer(body: JsonObject, graph: PromptGraph) -> tuple[NodeProblem, ...]:
    """Read the answer of ``POST /prompt``: a refusal, or an acceptance with ``node_errors`` of the outputs that it will leave out.

    Whatever the shape, nothing is raised; a refusal that names no node is a problem of the whole graph.
    """
    found = list(_of_nodes(body.get("node_errors"), graph))[:MAX_PROBLEMS]
    error = body.get("error")
    if found or error is None:
        return tuple(found)
    extra = _object(_object(error).get("extra_info"))
    kind = _text(_object(error).get("type"), KIND_LENGTH) or "refused"
    node_id = _text(extra.get("node_id"), NAME_LENGTH)
    named = OLD_NODE_ID.fullmatch(_text(_object(error).get("details"), NAME_LENGTH))
    if kind == "invalid_prompt" and named and named[1] in graph:  # before about 0.4, an unknown class was told so
        kind, node_id, extra = "missing_node_type", named[1], {"class_type": graph[named[1]]["class_type"]}
    message = SENTENCES.get(kind, "the server refuses the workflow")
    if kind == "missing_node_type" and extra.get("class_type"):
        message = f"the backend has no node class {_text(extra['class_type'], NAME_LENGTH)}"
    return (NodeProblem(node_id, _title(graph, node_id), "", kind, message),)


def _of_nodes(node_errors: object, graph: PromptGraph) -> Iterator[NodeProblem]:
    for node_id, refused in _object(node_errors).items():
        errors = _object(refused).get("errors")
        for error in errors if isinstance(errors, list) else []:
            if isinstance(error, dict):
                yield _of_input(str(node_id)[:NAME_LENGTH], error, graph)


def _of_input(node_id: str, error: JsonObject, graph: PromptGraph) -> NodeProblem:
    extra = _object(error.get("extra_info"))
    kind = _text(error.get("type"), KIND_LENGTH) or "refused"
    name = _text(extra.get("input_name"), NAME_LENGTH)
    if kind.startswith("exception_during"):  # its texts are tracebacks
        return NodeProblem(
            node_id, _title(graph, node_id), name, kind, "cannot be checked by the server: look at the node's links and inputs"
        )
    message = f"{name or 'the node'} {SENTENCES.get(kind, ANY_OTHER)}"
    received = _text(extra.get("received_type"), NAME_LENGTH) or shown(extra.get("received_value"))
    return NodeProblem(node_id, _title(graph, node_id), name, kind, message, received, _allowed(kind, extra.get("input_config")))


def _allowed(kind: str, config: object) -> Any:  # noqa: ANN401 -- as in NodeProblem
    if not isinstance(config, list) or not config:
        return None
    options = _object(config[1]) if len(config) > 1 else {}
    if kind == "value_not_in_list":
        choices = config[0] if isinstance(config[0], list) else options.get("options")
        return shown_choices(choices) if isinstance(choices, list) else None
    if kind in {"value_smaller_than_min", "value_bigger_than_max"}:
        return {"min": shown(options.get("min")), "max": shown(options.get("max"))}
    if kind == "return_type_mismatch" and isinstance(config[0], str):
        return [_text(config[0], NAME_LENGTH)]
    return None


def _title(graph: PromptGraph, node_id: str) -> str:
    return title_of(graph, node_id) if node_id in graph else ""


def _object(raw: object) -> Mapping[str, Any]:
    return raw if isinstance(raw, dict) else {}


def _text(raw: object, length: int) -> str:
    return raw[:length] if isinstance(raw, str) else ""
