"""The styles that ship: each can be bound, and takes what the drawing page sets."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from deployments.engines.comfyui.bind import bind_inputs
from deployments.engines.comfyui.graph import check_graph
from deployments.engines.comfyui.sketch_place import with_sketch
from deployments.engines.comfyui.workflow_file import load_workflow_folder

FOLDER = Path(__file__).parents[4] / "workflows" / "styles"


def test_they_are_there():
    files, problems = load_workflow_folder(FOLDER)
    assert ([file.name for file in files], problems) == (["anime", "realistic", "sketch", "watercolor"], ())


@pytest.mark.parametrize("name", ["anime", "realistic", "sketch", "watercolor"])
def test_each_takes_a_sketch_a_prompt_a_seed_and_a_strength(name):
    file = next(file for file in load_workflow_folder(FOLDER)[0] if file.name == name)
    graph = check_graph(file.graph)
    inputs = {"sketch": {"file_id": "f"}, "prompt": "a cat", "seed": 3, "strength": 0.4}
    bound = bind_inputs(graph, with_sketch(graph, file.meta, None), inputs, None, random.Random(1))
    assert bound.media["sketch"].comfy_node == "1"
    assert bound.graph["4"]["inputs"]["text"] == "a cat"
    assert (bound.graph["7"]["inputs"]["seed"], bound.graph["7"]["inputs"]["denoise"]) == (3, 0.4)
