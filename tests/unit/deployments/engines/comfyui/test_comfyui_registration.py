"""Typed inputs from a list of names."""

from __future__ import annotations

import pytest

from deployments.engines.comfyui.registration import infer_parameters
from deployments.engines.comfyui.workflow_file import read_meta
from deployments.jobs.errors import WorkflowInvalid
from tests.workflows import text_to_image


def test_infer_parameters_finds_place_and_type_of_each_name():
    found = infer_parameters(text_to_image(), None, dict.fromkeys(["prompt", "negative_prompt", "seed", "steps", "width", "ckpt_name"]))
    assert read_meta({"parameters": found}).parameters.keys() == found.keys()
    assert {name: (spec["type"], spec["bind"]) for name, spec in found.items()} == {
        "prompt": ("string", ["6.text"]),
        "negative_prompt": ("string", ["7.text"]),
        "seed": ("seed", ["3.seed"]),
        "steps": ("integer", ["3.steps"]),
        "width": ("integer", ["5.width"]),
        "ckpt_name": ("choice", ["4.ckpt_name"]),
    }
    assert found["prompt"]["multiline"] is True
    assert (found["steps"]["minimum"], found["steps"]["maximum"]) == (1, 10000)


def test_infer_parameters_takes_a_mapping_by_id_and_by_title():
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Picture"}},
        "2": {"class_type": "Odd", "inputs": {"ratio": 0.5, "on": True, "list": [1, 2, 3], "image": ["1", 0]}},
    }
    found = infer_parameters(graph, None, {"face": "Picture.image", "mix": "2.ratio", "on": None, "list": "2.list"})
    assert found == {
        "face": {"type": "image", "bind": ["1.image"]},
        "mix": {"type": "number", "bind": ["2.ratio"]},
        "on": {"type": "boolean", "bind": ["2.on"]},
        "list": {"type": "string", "bind": ["2.list"]},
    }


def test_infer_parameters_names_every_input_that_is_wrong():
    with pytest.raises(WorkflowInvalid) as refused:
        infer_parameters(text_to_image(), None, {"stepz": None, "other": "99.text", "latent": "3.latent_image"})
    assert [(problem.input, problem.kind) for problem in refused.value.problems] == [
        ("stepz", "unknown_parameter"), ("99.text", "unknown_node"), ("latent_image", "is_linked"),
    ]  # fmt: skip
    assert refused.value.problems[0].allowed == ["steps"]
