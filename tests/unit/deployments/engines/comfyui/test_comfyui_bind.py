from __future__ import annotations

import copy
import random

import pytest

from deployments.engines.comfyui.bind import BoundGraph, bind_inputs, binding_problems, fill_choices
from deployments.engines.comfyui.media_inputs import MediaBinding
from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.engines.comfyui.workflow_file import WorkflowMeta, read_meta
from deployments.jobs.errors import WorkflowInvalid

URL = "https://example.com/a.png"

META = read_meta(
    {
        "parameters": {
            "prompt": {"type": "string", "bind": "Prompt.text"},
            "negative_prompt": {"type": "string", "bind": "Negative v1.5.text", "default": ""},
            "size": {"type": "integer", "bind": ["5.width", "5.height"]},
            "seed": {"type": "seed", "bind": "3.seed", "default": -1},
            "checkpoint": {"type": "choice", "bind": "4.ckpt_name", "default": "first_choice"},
        }
    }
)


def bind(graph, inputs, meta=META, info=None, seed=1):
    return bind_inputs(graph, meta, inputs, info, random.Random(seed))


def problem_of(graph, inputs, meta=META, info=None):
    with pytest.raises(WorkflowInvalid) as caught:
        bind(graph, inputs, meta, info)
    return caught.value.problems[0]


def test_bind_inputs_puts_values_into_a_copy(text_to_image):
    before = copy.deepcopy(text_to_image)
    bound = bind(text_to_image, {"prompt": "a fox", "size": "640", "seed": 7, "checkpoint": "big.safetensors"})
    assert text_to_image == before
    expected = copy.deepcopy(before)
    expected["6"]["inputs"]["text"] = "a fox"
    expected["7"]["inputs"]["text"] = ""
    expected["5"]["inputs"] |= {"width": 640, "height": 640}
    expected["3"]["inputs"]["seed"] = 7
    expected["4"]["inputs"]["ckpt_name"] = "big.safetensors"
    assert bound == BoundGraph(expected, {}, {"3.seed": 7}, ())


def test_bind_inputs_draws_a_seed_and_tells_it(text_to_image):
    seeds = [bind(text_to_image, {}, seed=n).seeds["3.seed"] for n in range(20)]
    assert len(set(seeds)) == 20
    bound = bind(text_to_image, {"seed": -1}, seed=3)
    assert bound.graph["3"]["inputs"]["seed"] == bound.seeds["3.seed"] == seeds[3]


def test_bind_inputs_draws_one_seed_for_all_places_of_a_parameter(text_to_image):
    text_to_image["10"] = {"class_type": "KSampler", "inputs": {"seed": 5}}
    meta = read_meta({"parameters": {"seed": {"type": "seed", "bind": ["3.seed", "10.seed"], "default": -1, "maximum": 50}}})
    seeds = bind(text_to_image, {}, meta).seeds
    assert set(seeds) == {"3.seed", "10.seed"}
    assert len(set(seeds.values())) == 1
    assert 0 <= seeds["3.seed"] <= 50


def test_bind_inputs_draws_seeds_that_the_graph_leaves_open(text_to_image):
    text_to_image["3"]["inputs"]["seed"] = -1
    bound = bind(text_to_image, {}, WorkflowMeta())
    assert bound.graph["3"]["inputs"]["seed"] == bound.seeds["3.seed"] >= 0


@pytest.mark.parametrize("name", ["seed", "noise_seed"])
def test_bind_inputs_binds_undeclared_names(text_to_image, name):
    bound = bind(text_to_image, {"prompt": "a fox", "steps": 5, name: "42"}, WorkflowMeta())
    assert bound.graph["6"]["inputs"]["text"] == "a fox"
    assert bound.graph["3"]["inputs"]["steps"] == 5
    assert bound.seeds == {"3.seed": 42}


def test_bind_inputs_coerces_undeclared_names_by_the_servers_description(text_to_image, info):
    assert bind(text_to_image, {"steps": "5", "seed": -1}, WorkflowMeta(), info).graph["3"]["inputs"]["steps"] == 5
    problem = problem_of(text_to_image, {"steps": 0}, WorkflowMeta(), info)
    assert (problem.comfy_node, problem.title, problem.input, problem.kind, problem.received) == (
        "3",
        "Sampler",
        "steps",
        "value_smaller_than_min",
        0,
    )


def test_bind_inputs_binds_a_declared_name_without_a_place(text_to_image):
    meta = read_meta({"parameters": {"cfg": {"type": "number", "maximum": 20}}})
    assert bind(text_to_image, {"cfg": 3}, meta).graph["3"]["inputs"]["cfg"] == 3
    assert problem_of(text_to_image, {"cfg": 30}, meta).kind == "value_bigger_than_max"


def test_bind_inputs_refuses_a_name_without_a_place(text_to_image):
    problem = problem_of(text_to_image, {"stepz": 3})
    assert (problem.input, problem.kind, problem.allowed) == ("stepz", "unknown_parameter", ["steps"])


@pytest.mark.parametrize("value", [["4", 0], {"a": 1}])
def test_bind_inputs_lets_nobody_rewire_the_graph(text_to_image, value):
    assert problem_of(text_to_image, {"prompt": value}).kind == "invalid_input_type"
    assert problem_of(text_to_image, {"steps": ["4", 0]}).kind == "invalid_input_type"
    assert problem_of(text_to_image, {"prompt": "x", "model": "y"}).kind == "unknown_parameter"


def test_bind_inputs_leaves_the_checkpoint_to_the_backend(text_to_image, info):
    bound = bind(text_to_image, {})
    assert bound.choices_open == ("4.ckpt_name",)
    assert fill_choices(bound.graph, bound.choices_open, info)["4"]["inputs"]["ckpt_name"] == "tiny.safetensors"
    assert bind(text_to_image, {"checkpoint": "big.safetensors"}).choices_open == ()


@pytest.mark.parametrize(("own", "filled"), [("big.safetensors", "big.safetensors"), ("gone.safetensors", "tiny.safetensors")])
def test_fill_choices_keeps_the_graphs_own_model_where_the_backend_has_it(text_to_image, info, own, filled):
    text_to_image["4"]["inputs"]["ckpt_name"] = own
    assert fill_choices(text_to_image, ["4.ckpt_name"], info)["4"]["inputs"]["ckpt_name"] == filled
    assert text_to_image["4"]["inputs"]["ckpt_name"] == own


def test_fill_choices_says_that_a_backend_has_none(text_to_image, raw_info):
    raw_info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"] = [[]]
    for raw in (raw_info, {}):
        with pytest.raises(WorkflowInvalid, match=r"offers nothing for 4\.ckpt_name"):
            fill_choices(text_to_image, ["4.ckpt_name"], ObjectInfo.of(raw))


def test_bind_inputs_takes_media_out_of_the_graph():
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}, "2": {"class_type": "Custom", "inputs": {"clip": "b.mp4"}}}
    meta = read_meta({"parameters": {"photo": {"type": "image", "bind": ["1.image", "2.clip"]}}})
    bound = bind(graph, {"photo": {"base64": "AAAA", "media_type": "image/png"}}, meta)
    reference = {"base64": "AAAA", "media_type": "image/png"}
    assert bound.media == {"photo": MediaBinding("1", "image", reference), "photo#2": MediaBinding("2", "clip", reference)}
    assert (bound.graph["1"]["inputs"]["image"], bound.graph["2"]["inputs"]["clip"]) == ("", "")


def test_bind_inputs_keeps_the_name_of_a_file():
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}
    bound = bind(graph, {"photo": "mine.png"}, read_meta({"parameters": {"photo": {"type": "image", "bind": "1.image"}}}))
    assert (bound.graph["1"]["inputs"]["image"], bound.media) == ("mine.png", {})


def test_bind_inputs_takes_a_url_for_media_only_at_a_media_place(text_to_image):
    text_to_image["1"] = {"class_type": "LoadImage", "inputs": {"image": "a.png"}}
    bound = bind(text_to_image, {"image": URL, "prompt": URL}, WorkflowMeta())
    assert bound.media == {"image": MediaBinding("1", "image", {"url": URL})}
    assert bound.graph["6"]["inputs"]["text"] == URL


def test_bind_inputs_names_a_wrong_place_of_the_description(text_to_image):
    meta = read_meta({"parameters": {"prompt": {"type": "string", "bind": "Promt.text"}, "model": {"type": "string", "bind": "3.model"}}})
    assert problem_of(text_to_image, {"prompt": "x"}, meta).allowed == ["Prompt"]
    assert problem_of(text_to_image, {"model": "x"}, meta).kind == "is_linked"


def test_binding_problems_are_found_without_a_request(text_to_image):
    meta = read_meta(
        {"parameters": {"a": {"type": "string", "bind": ["6.text", "66.text"]}, "seed": {"type": "seed"}}, "outputs": ["9", "99"]}
    )
    assert [(one.comfy_node, one.input, one.kind) for one in binding_problems(text_to_image, meta)] == [
        ("", "66.text", "unknown_node"),
        ("99", "", "unknown_node"),
    ]
    assert binding_problems(text_to_image, META) == ()
