from __future__ import annotations

import copy
import random
import time
from collections import Counter

import pytest

from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.engines.comfyui.validate import find_problems
from deployments.fake_comfyui.comfy_node import Site
from deployments.fake_comfyui.config import FakeConfig
from deployments.fake_comfyui.dice import Dice
from deployments.fake_comfyui.files import FileStore
from deployments.fake_comfyui.node_library import NODE_CLASSES
from deployments.fake_comfyui.object_info import describe_classes
from deployments.fake_comfyui.validation import validate_prompt
from deployments.jobs.errors import NodeProblem


def kinds(graph, info):
    return [(one.comfy_node, one.input, one.kind) for one in find_problems(graph, info)]


def changed(graph, **inputs):
    """Change inputs of the sampler, node 3."""
    graph["3"]["inputs"] |= inputs
    return graph


def test_a_good_graph_has_no_problems(text_to_image, info):
    assert find_problems(text_to_image, info) == ()


@pytest.mark.parametrize(
    ("inputs", "name", "kind"),
    [
        ({"steps": 0}, "steps", "value_smaller_than_min"),
        ({"cfg": 101}, "cfg", "value_bigger_than_max"),
        ({"seed": -1}, "seed", "value_smaller_than_min"),
        ({"seed": 2**64}, "seed", "value_bigger_than_max"),
        ({"steps": "many"}, "steps", "invalid_input_type"),
        ({"steps": None}, "steps", "invalid_input_type"),
        ({"steps": {"a": 1}}, "steps", "invalid_input_type"),
        ({"cfg": "9" * 5000}, "cfg", "value_bigger_than_max"),  # infinite as a float
        ({"steps": "9" * 5000}, "steps", "invalid_input_type"),  # Python reads no integer that long
        ({"sampler_name": "eulr"}, "sampler_name", "value_not_in_list"),
        ({"scheduler": 5}, "scheduler", "value_not_in_list"),
        ({"model": ["99", 0]}, "model", "bad_linked_input"),
        ({"model": ["4", 7]}, "model", "bad_linked_input"),
        ({"model": ["4"]}, "model", "bad_linked_input"),
        ({"model": ["4", 1]}, "model", "return_type_mismatch"),
        ({"seed": ["4", 0]}, "seed", "return_type_mismatch"),
        ({"sampler_name": ["5", 0]}, "sampler_name", "return_type_mismatch"),
    ],
)
def test_problems_have_the_servers_kinds(text_to_image, info, inputs, name, kind):
    assert kinds(changed(text_to_image, **inputs), info) == [("3", name, kind)]


@pytest.mark.parametrize(
    "inputs",
    [{"steps": "64"}, {"steps": 64.7}, {"steps": True}, {"cfg": "7.5"}, {"cfg": 3}, {"unheard_of": 5}, {"denoise": {"__value__": 1}}],
)
def test_what_the_server_coerces_or_ignores_is_no_problem(text_to_image, info, inputs):
    assert find_problems(changed(text_to_image, **inputs), info) == ()


def test_problems_say_what_is_received_and_allowed(text_to_image, info):
    changed(text_to_image, sampler_name="eulr", steps=0, model=["4", 1])
    assert find_problems(text_to_image, info) == (
        NodeProblem("3", "Sampler", "model", "return_type_mismatch", "model takes MODEL, but output 1 of node 4 is CLIP", "CLIP", ["MODEL"]),
        NodeProblem("3", "Sampler", "steps", "value_smaller_than_min", "steps is 0, at least 1 is allowed", 0, {"min": 1, "max": 10000}),
        NodeProblem(
            "3", "Sampler", "sampler_name", "value_not_in_list", "sampler_name is 'eulr', which is not among the choices", "eulr", ["euler", "heun", "dpmpp_2m"],
        ),
    )  # fmt: skip


def test_choices_are_cut(text_to_image, raw_info):
    raw_info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"] = [[f"{n}.safetensors" for n in range(9000)]]
    (problem,) = find_problems(text_to_image, ObjectInfo.of(raw_info))
    assert problem.allowed == [f"{n}.safetensors" for n in range(50)]


def test_an_empty_list_of_choices_takes_nothing(text_to_image, raw_info):
    raw_info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"] = [[]]
    assert kinds(text_to_image, ObjectInfo.of(raw_info)) == [("4", "ckpt_name", "value_not_in_list")]


def test_missing_inputs_are_named(text_to_image, info):
    del text_to_image["6"]["inputs"]["clip"], text_to_image["5"]["inputs"]["width"]
    assert kinds(text_to_image, info) == [("5", "width", "required_input_missing"), ("6", "clip", "required_input_missing")]


def test_missing_classes_are_named_even_where_no_output_needs_them(text_to_image, info):
    text_to_image["20"] = {"class_type": "Unheard", "inputs": {}, "_meta": {"title": "Mine"}}
    assert find_problems(text_to_image, info) == (
        NodeProblem("20", "Mine", "", "missing_node_type", "the backend has no node class Unheard"),
    )


def test_nodes_that_no_output_needs_are_not_checked(text_to_image, info):
    text_to_image["20"] = {"class_type": "KSampler", "inputs": {"steps": 0}}
    assert find_problems(text_to_image, info) == ()


def test_a_graph_without_outputs(text_to_image, info):
    del text_to_image["9"]
    assert kinds(text_to_image, info) == [("", "", "prompt_no_outputs")]


def test_a_cycle(text_to_image, info):
    changed(text_to_image, latent_image=["3", 0])
    assert kinds(text_to_image, info) == [("3", "", "dependency_cycle")]


def test_a_cycle_beside_a_link_to_nowhere(text_to_image, info):
    changed(text_to_image, latent_image=["3", 0], model=["99", 0])
    assert kinds(text_to_image, info) == [("3", "model", "bad_linked_input")]


def test_names_of_media_are_left_to_the_job(info):
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "not-there.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    assert find_problems(graph, info) == ()


@pytest.mark.parametrize("origin", ["text", "image", "custom"])
def test_wildcards_take_everything(info, text_to_image, origin):
    sources = {"text": ["6", 0], "image": ["8", 0], "custom": ["20", 0]}
    text_to_image["20"] = {"class_type": "Union", "inputs": {"number": 1, "thing": ["6", 0]}}  # an unknown type takes everything too
    text_to_image["21"] = {"class_type": "PreviewAny", "inputs": {"source": sources[origin]}}
    assert find_problems(text_to_image, info) == ()


@pytest.mark.parametrize(("origin", "expected"), [("PrimitiveInt", []), ("PrimitiveBoolean", [("20", "number", "return_type_mismatch")])])
def test_one_of_several_types_is_enough(info, origin, expected):
    graph = {
        "10": {"class_type": origin, "inputs": {"value": 1}},
        "20": {"class_type": "Union", "inputs": {"number": ["10", 0], "thing": ["10", 0]}},
        "21": {"class_type": "PreviewAny", "inputs": {"source": ["20", 0]}},
    }
    assert kinds(graph, info) == expected


def test_dynamic_inputs_are_checked_where_they_are_described(info):
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "2": {
            "class_type": "ImageResize",
            "inputs": {"image": ["1", 0], "resize_type": "by size", "resize_type.width": 0, "resize_type.height": 8},
        },
        "3": {"class_type": "Stack", "inputs": {"images.image0": ["2", 0], "images.image1": ["1", 1]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
    }
    assert kinds(graph, info) == [("2", "resize_type.width", "value_smaller_than_min"), ("3", "images.image1", "return_type_mismatch")]
    graph["2"]["inputs"]["resize_type"] = "by magic"
    assert ("2", "resize_type", "value_not_in_list") in kinds(graph, info)


def test_the_largest_graph_is_checked_in_time(info):
    load = {str(n): {"class_type": "LoadImage", "inputs": {"image": "a.png"}} for n in range(2)}
    batch = {str(n): {"class_type": "Stack", "inputs": {"images.a": [str(n - 1), 0], "images.b": [str(n - 2), 0]}} for n in range(2, 1000)}
    save = {f"s{n}": {"class_type": "SaveImage", "inputs": {"images": [str(n), 0], "filename_prefix": "x"}} for n in range(1000)}
    started = time.perf_counter()
    assert find_problems(load | batch | save, info) == ()
    assert time.perf_counter() - started < 2  # quadratic walking takes ten times as long


def test_problems_are_cut(text_to_image, info):
    previews = {f"p{n}": {"class_type": "PreviewAny", "inputs": {}} for n in range(500)}
    assert len(find_problems(text_to_image | previews, info)) == 100


VALUES = (
    0,
    -1,
    5,
    10**6,
    2**64,
    3.7,
    "12",
    "x",
    True,
    None,
    {},
    {"__value__": 5},
    ["1", 0],
    ["2", 0],
    ["6", 0],
    ["99", 0],
    ["1", 5],
    ["1"],
    [],
    "area",
)


def test_verdicts_are_those_of_a_server(tmp_path):
    """The fake backend has a validation of its own, written after a real one's behaviour."""
    site = Site(FakeConfig(), FileStore(tmp_path), Dice(0), "x")
    described = ObjectInfo.of(describe_classes(NODE_CLASSES, site))
    base = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
        "2": {
            "class_type": "ImageScale",
            "inputs": {"image": ["1", 0], "upscale_method": "area", "width": 16, "height": 16, "crop": "disabled"},
        },
        "3": {"class_type": "ImageBlur", "inputs": {"image": ["2", 0], "blur_radius": 1, "sigma": 1.0}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
        "5": {"class_type": "ImageToMask", "inputs": {"image": ["2", 0], "channel": "red"}},
        "6": {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}},
    }
    verdicts = Counter()
    for seed in range(600):
        generator, graph = random.Random(seed), copy.deepcopy(base)
        for _ in range(generator.choice([1, 1, 2])):
            node = generator.choice([*graph.values()])
            node["inputs"][generator.choice([*node["inputs"]])] = generator.choice(VALUES)
        ours = find_problems(graph, described)
        theirs = validate_prompt(copy.deepcopy(graph), None, NODE_CLASSES, site)
        assert bool(ours) == bool(theirs.error or theirs.node_errors), (graph, ours, theirs)
        verdicts[bool(ours)] += 1
    assert min(verdicts[True], verdicts[False]) > 100
