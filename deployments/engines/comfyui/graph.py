"""The API graph of ComfyUI, which it calls a prompt: node id -> ``{"class_type", "inputs", "_meta"}``.

An input holds a value or a link ``[id, slot]`` to an output of another node. Everything here walks the graph without recursion: it
comes from outside, and its chains may be as long as it has nodes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeGuard

from deployments.engines.comfyui.embedded import PICTURE_SIGNATURES, embedded_texts
from deployments.jobs.errors import InvalidInput, NodeProblem, WorkflowInvalid
from deployments.jobs.model import JsonObject

PromptGraph = dict[str, JsonObject]

MAX_WORKFLOW_BYTES = 16 * 2**20  # the largest of ComfyUI's own templates has 0.3 MiB
MAX_PICTURE_BYTES = 64 * 2**20  # a picture that carries a workflow in its metadata
MAX_NODES = 2000
MAX_DEPTH = 64  # of objects and lists inside each other
MAX_CHAIN = 900  # nodes behind each other: ComfyUI validates by recursion and breaks above 981
MAX_PROBLEMS = 100  # reported at once
MAX_NAME_LENGTH = 200  # of ids, which nested subgraphs join with colons, and of classes and titles

EXPORT_HINT = 'in ComfyUI choose "Export (API)" or "Save", and send that file'


class GraphLink(NamedTuple):
    """One link: input ``input`` of node ``target`` takes output ``slot`` of node ``origin``."""

    target: str
    input: str
    origin: str
    slot: int


def read_workflow(data: bytes) -> JsonObject:
    """Read a workflow file: JSON, or a PNG or WebP that ComfyUI saved with its workflow inside.

    Of a picture's two documents ``prompt``, the graph that was run, is preferred to ``workflow``, the editor's drawing of it.

    Raises:
        InvalidInput: too large, not JSON, nested too deep, or a picture without a workflow.
    """
    if not data.startswith(PICTURE_SIGNATURES):
        return _parse(data)
    if len(data) > MAX_PICTURE_BYTES:
        raise InvalidInput(f"the picture is longer than {MAX_PICTURE_BYTES // 2**20} MiB: send the workflow as JSON")
    texts = embedded_texts(data, frozenset({"prompt", "workflow"}), MAX_WORKFLOW_BYTES)
    for name in ("prompt", "workflow"):
        if name in texts:
            return _parse(texts[name])
    raise InvalidInput(f"the picture carries no workflow: {EXPORT_HINT}")


def unwrap(document: JsonObject) -> JsonObject:
    """Take a workflow out of ``{"prompt": ...}``, the body of ``POST /prompt``, or ``{"workflow": ...}``."""
    for name in ("prompt", "workflow"):
        inner = document.get(name)
        if isinstance(inner, dict) and "class_type" not in inner:  # else it is a node with that id
            return inner
    return document


def detect_format(document: JsonObject) -> Literal["api", "ui"]:
    """Tell an API graph from the format that ComfyUI's editor saves; a wrapped one is judged by its content.

    Raises:
        InvalidInput: neither.
    """
    inner = unwrap(document)
    if isinstance(inner.get("nodes"), list):
        return "ui"
    if any(isinstance(comfy_node, dict) and "class_type" in comfy_node for comfy_node in inner.values()):
        return "api"
    raise InvalidInput(f"the document is no ComfyUI workflow: {EXPORT_HINT}")


def check_graph(document: JsonObject) -> PromptGraph:
    """Check the structure of an API graph and return a copy that holds only what ComfyUI reads.

    Types and values need the server's ``/object_info`` and are not looked at.

    Raises:
        WorkflowInvalid: names every node and input that is wrong, or the nodes of a cycle.
    """
    inner = unwrap(document)
    _check_size(inner)
    problems = [problem for node_id, comfy_node in inner.items() for problem in _node_problems(node_id, comfy_node, inner)]
    if problems:
        raise WorkflowInvalid(f"{len(problems)} of the workflow's nodes and inputs are malformed", problems[:MAX_PROBLEMS])
    graph = {node_id: _clean(comfy_node) for node_id, comfy_node in inner.items()}
    _check_chains(graph, topological_order(graph))
    return graph


def is_link(value: object) -> TypeGuard[list[Any]]:  # Any: a list of a string and an integer has no type of its own
    """Whether an input's value is a link ``[id, slot]``."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
        and value[1] >= 0
    )


def links(graph: Mapping[str, JsonObject]) -> Iterator[GraphLink]:
    """Iterate over the links in the order of the nodes and their inputs."""
    for node_id, comfy_node in graph.items():
        for name, value in comfy_node["inputs"].items():
            if is_link(value):
                yield GraphLink(node_id, name, value[0], value[1])


def ancestors(graph: Mapping[str, JsonObject], node_id: str) -> frozenset[str]:
    """Return the ids of all nodes that a node depends on, itself left out."""
    found: set[str] = set()
    waiting = [node_id]
    while waiting:
        for value in graph[waiting.pop()]["inputs"].values():
            if is_link(value) and value[0] not in found:
                found.add(value[0])
                waiting.append(value[0])
    return frozenset(found - {node_id})


def title_of(graph: Mapping[str, JsonObject], node_id: str) -> str:
    """Return what a person calls the node: its title, or else its class."""
    comfy_node = graph[node_id]
    meta = comfy_node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    return title[:MAX_NAME_LENGTH] if isinstance(title, str) and title else str(comfy_node["class_type"])


def topological_order(graph: Mapping[str, JsonObject]) -> list[str]:
    """Return the node ids so that each comes after those it depends on; otherwise in the order of the graph.

    Raises:
        WorkflowInvalid: the links of some nodes form a cycle.
    """
    dependants: dict[str, list[str]] = {node_id: [] for node_id in graph}
    missing = dict.fromkeys(graph, 0)
    for link in links(graph):
        dependants[link.origin].append(link.target)
        missing[link.target] += 1
    order = [node_id for node_id, count in missing.items() if not count]
    for node_id in order:  # grows while it is walked
        for target in dependants[node_id]:
            missing[target] -= 1
            if not missing[target]:
                order.append(target)
    if len(order) < len(graph):
        _refuse_cycle(graph, set(graph) - set(order))
    return order


def _refuse_cycle(graph: Mapping[str, JsonObject], left: set[str]) -> None:
    """Name the nodes of one cycle: those left over also hold everything behind it."""
    origins = {link.target: link.origin for link in links(graph) if link.target in left and link.origin in left}
    node_id, seen = min(left), list[str]()
    while node_id not in seen:
        seen.append(node_id)
        node_id = origins[node_id]
    cycle = seen[seen.index(node_id) :]
    problems = [
        NodeProblem(comfy_node, title_of(graph, comfy_node), "", "dependency_cycle", "depends on its own output") for comfy_node in cycle
    ]
    names = ", ".join(cycle[:10]) + (" ..." if len(cycle) > 10 else "")
    raise WorkflowInvalid(f"the links of these nodes form a cycle: {names}", problems[:MAX_PROBLEMS])


def _check_chains(graph: PromptGraph, order: list[str]) -> None:
    length: dict[str, int] = {}
    for node_id in order:
        length[node_id] = 1 + max((length[value[0]] for value in graph[node_id]["inputs"].values() if is_link(value)), default=0)
    longest = max(length, key=length.__getitem__)
    if length[longest] > MAX_CHAIN:
        raise WorkflowInvalid(f"node {longest} is the end of a chain of {length[longest]} nodes: at most {MAX_CHAIN} are taken")


def _check_size(inner: JsonObject) -> None:
    if not inner:
        raise WorkflowInvalid("the workflow holds no node")
    if len(inner) > MAX_NODES:
        raise WorkflowInvalid(f"the workflow holds {len(inner)} nodes: at most {MAX_NODES} are taken")
    if _too_deep(inner):
        raise WorkflowInvalid(f"the workflow nests objects and lists deeper than {MAX_DEPTH}")


def _node_problems(node_id: object, comfy_node: object, inner: JsonObject) -> Iterator[NodeProblem]:
    if not isinstance(node_id, str) or not 0 < len(node_id) <= MAX_NAME_LENGTH:
        yield NodeProblem(
            str(node_id)[:MAX_NAME_LENGTH], "", "", "invalid_node_id", f"ids are strings of 1 to {MAX_NAME_LENGTH} characters"
        )
        return
    kind = comfy_node.get("class_type") if isinstance(comfy_node, dict) else None
    if not isinstance(comfy_node, dict) or not isinstance(kind, str) or not 0 < len(kind) <= MAX_NAME_LENGTH:
        yield NodeProblem(node_id, "", "", "missing_node_type", 'a node is {"class_type": "...", "inputs": {...}}')
        return
    title = title_of(inner, node_id)
    if not isinstance(comfy_node.get("inputs"), dict):
        yield NodeProblem(node_id, title, "", "missing_inputs", "inputs has to be an object, empty if there are none")
        return
    for name, value in comfy_node["inputs"].items():
        if not isinstance(value, list):
            continue
        if not is_link(value):
            message = 'a list is a link ["node id", slot]: write a list of values as {"__value__": [...]}'
            yield NodeProblem(node_id, title, name, "bad_linked_input", message, _brief(value))
        elif value[0] not in inner:
            yield NodeProblem(node_id, title, name, "bad_linked_input", "links to a node that the workflow does not hold", _brief(value))


def _brief(value: list[Any]) -> Any:  # noqa: ANN401 - a JSON value
    """Return a value as sent, or the beginning of its text: it will be shown to its sender."""
    text = str(value)
    return value if len(text) <= MAX_NAME_LENGTH else f"{text[:MAX_NAME_LENGTH]}..."


def _clean(comfy_node: JsonObject) -> JsonObject:
    clean = {"class_type": comfy_node["class_type"], "inputs": dict(comfy_node["inputs"])}
    if isinstance(comfy_node.get("_meta"), dict):
        clean["_meta"] = dict(comfy_node["_meta"])
    return clean


def _parse(data: bytes) -> JsonObject:
    if len(data) > MAX_WORKFLOW_BYTES:
        raise InvalidInput(f"the workflow is longer than {MAX_WORKFLOW_BYTES // 2**20} MiB: send media as files, not inside it")
    try:
        # ComfyUI writes NaN, which is no JSON; its editor reads it as null too.
        document = json.loads(data.decode("utf-8-sig"), parse_constant=lambda _: None, parse_float=_finite)
        if b"\\ud" in data.lower():
            json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair would break every later writer
    except (ValueError, RecursionError):
        raise InvalidInput(f"the workflow is not JSON in UTF-8: {EXPORT_HINT}") from None
    if not isinstance(document, dict):
        raise InvalidInput(f"the workflow has to be a JSON object: {EXPORT_HINT}")
    if _too_deep(document):
        raise InvalidInput(f"the workflow nests objects and lists deeper than {MAX_DEPTH}")
    return document


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _too_deep(document: JsonObject) -> bool:
    level: list[Any] = [document]  # Any: whatever JSON holds
    for _ in range(MAX_DEPTH):
        level = [
            inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer) if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
