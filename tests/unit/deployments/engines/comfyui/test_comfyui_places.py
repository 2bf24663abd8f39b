from __future__ import annotations

import pytest

from deployments.engines.comfyui.places import Place, copy_graph, find_comfy_node, find_place, input_info
from deployments.jobs.errors import NodeProblem

SUBGRAPH = {
    "57:3": {
        "class_type": "ImageResize",
        "inputs": {"image": ["1", 0], "resize_type": "by size", "resize_type.width": 64},
        "_meta": {"title": "Resize"},
    },
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Photo v1.2"}},
    "2": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 3}, "_meta": {"title": "Twin"}},
    "3": {"class_type": "KSampler", "inputs": {"seed": 6}, "_meta": {"title": "Twin"}},
    "1.5": {"class_type": "KSampler", "inputs": {"seed": 7}, "_meta": {"title": "57:3"}},
}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("2.seed", Place("2", "seed")),
        ("57:3.resize_type.width", Place("57:3", "resize_type.width")),
        ("57:3.resize_type", Place("57:3", "resize_type")),
        ("Photo v1.2.image", Place("1", "image")),
        ("1.5.seed", Place("1.5", "seed")),
        ("Resize.resize_type.width", Place("57:3", "resize_type.width")),
        ("Twin.steps", Place("2", "steps")),  # only one of the twins has it
    ],
)
def test_find_place_tries_every_split_ids_first(text, place):
    assert find_place(SUBGRAPH, text) == place
    assert find_place(SUBGRAPH, str(place)) == place


def test_find_place_refuses_a_title_of_two_nodes():
    problem = find_place(SUBGRAPH, "Twin.seed")
    assert (problem.kind, problem.allowed) == ("ambiguous_place", ["2.seed", "3.seed"])


def test_find_place_names_the_closest_input():
    problem = find_place(SUBGRAPH, "2.sed")
    assert problem == NodeProblem("2", "Twin", "sed", "unknown_input", "the node has no such input", None, ["seed"])


def test_find_place_names_the_closest_node():
    problem = find_place(SUBGRAPH, "Photo v12.image")
    assert (problem.comfy_node, problem.kind, problem.allowed) == ("", "unknown_node", ["Photo v1.2"])


def test_find_place_of_a_bare_name_shows_how_to_name_one():
    problem = find_place(SUBGRAPH, "steps")
    assert problem.kind == "unknown_place"
    assert "6.text" in problem.message
    assert "2.steps" in problem.allowed


@pytest.mark.parametrize("text", ["", ".", "...", "2.", ".seed", "2", "a" * 100_000, "." * 100_000, "2." + "x" * 100_000])
def test_find_place_survives_hostile_names(text):
    problem = find_place(SUBGRAPH, text)
    assert isinstance(problem, NodeProblem)
    assert len(problem.input) <= 300


def test_find_place_finds_an_input_that_only_the_server_knows(text_to_image, info):
    graph = {"1": {"class_type": "ImageResize", "inputs": {"resize_type": "by factor"}}}
    assert isinstance(find_place(graph, "1.method"), NodeProblem)
    assert find_place(graph, "1.method", info) == Place("1", "method")
    assert find_place(graph, "1.resize_type.factor", info) == Place("1", "resize_type.factor")
    assert find_place(graph, "1.resize_type.width", info).kind == "unknown_input"  # of the other option


def test_input_info_follows_dynamic_inputs(info):
    graph = {
        "1": {"class_type": "ImageResize", "inputs": {"resize_type": "by size", "resize_type.width": 8}},
        "2": {"class_type": "Stack", "inputs": {"images.image0": ["1", 0]}},
        "3": {"class_type": "Unheard", "inputs": {"a.b": 1}},
    }
    assert input_info(graph, Place("1", "resize_type.width"), info).maximum == 8192
    assert input_info(graph, Place("2", "images.image0"), info).type == "IMAGE"
    assert input_info(graph, Place("2", "images.image0.more"), info) is None
    assert input_info(graph, Place("1", "nothing.at.all"), info) is None
    assert input_info(graph, Place("3", "a.b"), info) is None
    assert input_info(graph, Place("1", "resize_type"), None) is None


def test_find_comfy_node_by_id_or_title():
    assert find_comfy_node(SUBGRAPH, "57:3") == "57:3"  # the id wins over the title of another node
    assert find_comfy_node(SUBGRAPH, "Resize") == "57:3"
    assert find_comfy_node(SUBGRAPH, "Twin").kind == "ambiguous_place"
    assert find_comfy_node(SUBGRAPH, "Resise").allowed == ["Resize"]


def test_copy_graph_shares_no_inputs(text_to_image):
    copy = copy_graph(text_to_image)
    copy["6"]["inputs"]["text"] = "changed"
    assert text_to_image["6"]["inputs"]["text"] == "a cat"
