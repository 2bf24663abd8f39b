from __future__ import annotations

import pytest

from deployments.engines.comfyui.named_places import places_by_name


def names(graph, name):
    return [str(place) for place in places_by_name(graph, name)]


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("prompt", ["6.text"]),
        ("negative_prompt", ["7.text"]),
        ("seed", ["3.seed"]),
        ("steps", ["3.steps"]),
        ("width", ["5.width"]),
        ("model", []),  # a link
        ("nothing", []),
    ],
)
def test_names_lead_to_the_inputs_of_a_sampler_graph(text_to_image, name, places):
    assert names(text_to_image, name) == places


def test_prompt_is_found_by_the_links_not_by_the_order_of_the_encoders(text_to_image):
    text_to_image["3"]["inputs"] |= {"positive": ["7", 0], "negative": ["6", 0]}
    assert (names(text_to_image, "prompt"), names(text_to_image, "negative_prompt")) == (["7.text"], ["6.text"])


def test_prompt_passes_a_node_that_carries_both_sides(text_to_image):
    inputs = {"positive": ["6", 0], "negative": ["7", 0], "strength": 1.0, "image": ["11", 0]}
    text_to_image["10"] = {"class_type": "ControlNetApplyAdvanced", "inputs": inputs}
    text_to_image["11"] = {"class_type": "LoadImage", "inputs": {"image": "a.png"}}
    text_to_image["3"]["inputs"] |= {"positive": ["10", 0], "negative": ["10", 1]}
    assert (names(text_to_image, "prompt"), names(text_to_image, "negative_prompt")) == (["6.text"], ["7.text"])


def test_prompt_is_followed_to_the_primitive_that_holds_it(text_to_image):
    text_to_image["6"]["inputs"]["text"] = ["12", 0]
    text_to_image["12"] = {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "a cat"}}
    assert names(text_to_image, "prompt") == ["12.value"]


def test_prompt_of_an_encoder_with_two_texts_is_both(text_to_image):
    text_to_image["6"] = {"class_type": "CLIPTextEncodeSDXL", "inputs": {"text_g": "a", "text_l": "a", "width": 1024, "clip": ["4", 1]}}
    assert names(text_to_image, "prompt") == ["6.text_g", "6.text_l"]


def test_negative_prompt_is_never_the_positive_one_zeroed(text_to_image):
    text_to_image["13"] = {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["6", 0]}}
    text_to_image["3"]["inputs"]["negative"] = ["13", 0]
    assert names(text_to_image, "negative_prompt") == []


def test_prompt_of_a_guider_is_found():
    graph = {
        "1": {"class_type": "SamplerCustomAdvanced", "inputs": {"guider": ["2", 0], "noise": ["5", 0]}},
        "2": {"class_type": "BasicGuider", "inputs": {"conditioning": ["3", 0]}},
        "3": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["4", 0], "guidance": 3.5}},
        "4": {"class_type": "CLIPTextEncodeFlux", "inputs": {"clip_l": "x", "t5xxl": "x"}},
        "5": {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}},
    }
    assert names(graph, "prompt") == ["4.clip_l", "4.t5xxl"]
    assert names(graph, "seed") == ["5.noise_seed"]


def test_prompt_without_a_sampler_is_the_first_input_of_that_name():
    graph = {
        "2": {"class_type": "B", "inputs": {"a": ["1", 0], "prompt": "later"}},
        "1": {"class_type": "A", "inputs": {"prompt": "first"}},
    }
    assert names(graph, "prompt") == ["1.prompt"]
    assert names({"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "x"}}}, "prompt") == ["1.text"]


def test_a_very_long_chain_is_walked():
    graph = {str(n): {"class_type": "Pass", "inputs": {"conditioning": [str(n + 1), 0]}} for n in range(1999)}
    graph["1999"] = {"class_type": "CLIPTextEncode", "inputs": {"text": "x"}}
    assert names(graph, "prompt") == ["1999.text"]
