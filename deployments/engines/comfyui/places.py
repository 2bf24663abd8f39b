"""Places of a graph that hold a value, and the names that clients call them by: ``<node id or title>.<input>``.

Ids of nodes in subgraphs hold colons, inputs of dynamic combos and titles of nodes hold dots. ``57:3.resize_type.width`` is the input
``resize_type.width`` of node ``57:3``. So every split is tried: by ids first, then by titles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice

from deployments.engines.comfyui.graph import PromptGraph, is_link, title_of
from deployments.engines.comfyui.object_info import InputInfo, ObjectInfo
from deployments.jobs.errors import NodeProblem

MAX_NAME_LENGTH = 300  # of a place: the length of an id and of an input's name
MATCHES_SHOWN = 5
COMPARED = 500  # names at most,
COMPARED_LENGTH = 60  # and characters of each
LIKELY = 0.5  # of 1: "stepz" and "steps" have 0.67

Titles = Mapping[str, Sequence[str]]

HOW_TO_NAME = 'name an input as "<node id or title>.<input>", such as "6.text"'


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """One input of one node."""

    comfy_node: str
    input: str

    def __str__(self) -> str:
        return f"{self.comfy_node}.{self.input}"


def titles_of(graph: PromptGraph) -> Titles:
    """Return the ids of the nodes by title. Whoever looks for several places makes this once."""
    titles: dict[str, list[str]] = {}
    for node in graph:
        titles.setdefault(title_of(graph, node), []).append(node)
    return titles


def find_place(graph: PromptGraph, text: str, info: ObjectInfo | None = None, titles: Titles | None = None) -> Place | NodeProblem:
    """Find the place that a client means.

    An input that the graph does not mention is found when the node's class is known to have it.

    Returns:
        The place, or what is wrong with its name and what comes close.
    """
    titles = titles_of(graph) if titles is None else titles
    splits = list(_splits(text[:MAX_NAME_LENGTH]))
    by_id = [Place(node, name) for node, name in splits if node in graph and _has_input(graph, node, name, info)]
    if len(by_id) == 1:
        return by_id[0]
    titled = [] if by_id else [(node, name) for title, name in splits for node in titles.get(title, ())]
    by_title = [Place(node, name) for node, name in titled if _has_input(graph, node, name, info)]
    if len(by_title) == 1:
        return by_title[0]
    found = by_id or by_title
    if found:
        return _problem(text, "ambiguous_place", "could be any of several inputs: use the node's id", [str(place) for place in found])
    return _not_found(graph, text, splits, info, titles)


def find_comfy_node(graph: PromptGraph, text: str, titles: Titles | None = None) -> str | NodeProblem:
    """Find the node that a client means by its id or its title."""
    if text in graph:
        return text
    titles = titles_of(graph) if titles is None else titles
    titled = titles.get(text, ())
    if len(titled) == 1:
        return titled[0]
    kind, message = "unknown_node", "the workflow has no node with this id or title"
    if titled:
        kind, message = "ambiguous_place", "several nodes have this title: use an id"
    near = list(titled) or closest(text, [*graph, *titles])
    return NodeProblem(text[:MAX_NAME_LENGTH], "", "", kind, message, None, near[:MATCHES_SHOWN] or None)


def input_info(graph: PromptGraph, place: Place, info: ObjectInfo | None) -> InputInfo | None:
    """Return what the server says of an input, also of one that a dynamic combo or a growing list brought along; None if nothing."""
    node = graph[place.comfy_node]
    node_info = info.nodes.get(node["class_type"]) if info else None
    if node_info is None:
        return None
    if place.input in node_info.by_name or "." not in place.input:
        return node_info.by_name.get(place.input)
    return _nested_info(node["inputs"], node_info.by_name.get(place.input.split(".")[0]), place.input)


def closest(name: str, names: Iterable[str]) -> list[str]:
    """Return the names that a mistyped one most likely meant, the likeliest first.

    Likeness is the Dice coefficient of the pairs of letters; difflib's takes seconds for names that a hostile client made up.
    """
    wanted = _pairs(name)
    scored = [(_likeness(wanted, _pairs(candidate)), candidate) for candidate in islice(dict.fromkeys(names), COMPARED)]
    likely = [(likeness, candidate) for likeness, candidate in scored if likeness >= LIKELY]
    return [candidate for _, candidate in nlargest(MATCHES_SHOWN, likely)]


def problem_at(graph: PromptGraph, place: Place, kind: str, message: str, received: object = None, allowed: object = None) -> NodeProblem:
    """Return a problem with the input at a place."""
    return NodeProblem(place.comfy_node, title_of(graph, place.comfy_node), place.input, kind, message, received, allowed)


def copy_graph(graph: PromptGraph) -> PromptGraph:
    """Return a copy whose inputs may be replaced."""
    return {node_id: {**node, "inputs": dict(node["inputs"])} for node_id, node in graph.items()}


def _splits(text: str) -> Iterator[tuple[str, str]]:
    for at, letter in enumerate(text):
        if letter == "." and 0 < at < len(text) - 1:
            yield text[:at], text[at + 1 :]


def _has_input(graph: PromptGraph, node: str, name: str, info: ObjectInfo | None) -> bool:
    return name in graph[node]["inputs"] or input_info(graph, Place(node, name), info) is not None


def _nested_info(inputs: dict[str, object], outer: InputInfo | None, name: str) -> InputInfo | None:
    """Walk from a combo to the inputs of the option that the graph chose, as deep as the dots go."""
    path = name.split(".")
    for depth in range(1, len(path)):
        if outer is None:
            return None
        if outer.grown is not None:
            return outer.grown if depth == len(path) - 1 else None
        chosen = inputs.get(".".join(path[:depth]))
        outer = next((inner for inner in outer.branch(chosen) if inner.name == path[depth]), None)
    return outer


def _pairs(name: str) -> frozenset[str]:
    padded = f" {name[:COMPARED_LENGTH].lower()} "
    return frozenset(padded[at : at + 2] for at in range(len(padded) - 1))


def _likeness(one: frozenset[str], other: frozenset[str]) -> float:
    return 2 * len(one & other) / (len(one) + len(other))


def _not_found(graph: PromptGraph, text: str, splits: list[tuple[str, str]], info: ObjectInfo | None, titles: Titles) -> NodeProblem:
    if not splits:
        return _problem(text, "unknown_place", HOW_TO_NAME, _close_places(graph, text))
    for known, name in splits:
        node = known if known in graph else next(iter(titles.get(known, ())), None)
        if node is not None:
            names = _input_names(graph, node, info)
            return problem_at(graph, Place(node, name), "unknown_input", "the node has no such input", None, closest(name, names) or names)
    near = closest(splits[0][0], [*graph, *titles])
    return _problem(text, "unknown_node", "the workflow has no node with this id or title", near or _close_places(graph, text))


def _input_names(graph: PromptGraph, node: str, info: ObjectInfo | None) -> list[str]:
    described = info.nodes.get(graph[node]["class_type"]) if info else None
    names = [name for name, value in graph[node]["inputs"].items() if not is_link(value)]
    return list(dict.fromkeys([*names, *(described.by_name if described else ())]))[:COMPARED]


def _close_places(graph: PromptGraph, text: str) -> list[str]:
    return closest(text, (f"{node}.{name}" for node in graph for name, value in graph[node]["inputs"].items() if not is_link(value)))


def _problem(text: str, kind: str, message: str, near: list[str]) -> NodeProblem:
    return NodeProblem("", "", text[:MAX_NAME_LENGTH], kind, message, None, near[:MATCHES_SHOWN] or None)
