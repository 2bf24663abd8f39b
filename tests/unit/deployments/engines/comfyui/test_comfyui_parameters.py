from __future__ import annotations

import pytest

from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.engines.comfyui.parameters import Parameter, find_parameters

FOUND = ["3.seed", "3.steps", "3.cfg", "3.sampler_name", "3.scheduler", "3.denoise", "4.ckpt_name", "5.width", "5.height", "5.batch_size",
         "6.text", "7.text", "9.filename_prefix"]  # fmt: skip


@pytest.mark.parametrize("described", [True, False])
def test_every_literal_is_a_parameter(text_to_image, info, described):
    found = {one.place: one for one in find_parameters(text_to_image, info if described else None)}
    assert list(found) == FOUND
    assert [place for place, one in found.items() if one.is_seed] == ["3.seed"]
    assert {one.type for one in found.values()} == {"string", "integer", "number", "choice"}
    assert (found["3.seed"].minimum, found["3.seed"].maximum) == (0, 2**64 - 1)
    assert [found[place].multiline for place in ("6.text", "9.filename_prefix")] == [True, False]


def test_a_described_parameter_has_bounds_default_and_choices(text_to_image, info):
    found = {one.place: one for one in find_parameters(text_to_image, info)}
    assert found["5.width"] == Parameter(
        "5.width", "5", "EmptyLatentImage", "EmptyLatentImage", "width", "integer", 512, default=512, minimum=16, maximum=16384, step=8
    )
    assert found["3.sampler_name"] == Parameter(
        "3.sampler_name", "3", "Sampler", "KSampler", "sampler_name", "choice", "euler", choices=("euler", "heun", "dpmpp_2m")
    )


def test_the_description_wins_over_what_is_known(text_to_image, raw_info):
    raw_info["KSampler"]["input"]["required"]["steps"] = ["INT", {"min": 1, "max": 4}]
    found = {one.place: one for one in find_parameters(text_to_image, ObjectInfo.of(raw_info))}
    assert found["3.steps"].maximum == 4


def test_types_of_unknown_nodes_come_from_the_values():
    inputs = {"a": "x", "b": 1, "c": 1.5, "d": True, "e": {"__value__": [1]}, "f": None, "g": ["2", 0]}
    found = find_parameters({"1": {"class_type": "Unheard", "inputs": inputs}, "2": {"class_type": "Unheard", "inputs": {}}})
    assert [(one.name, one.type, one.value) for one in found] == [
        ("a", "string", "x"),
        ("b", "integer", 1),
        ("c", "number", 1.5),
        ("d", "boolean", True),
        ("e", "any", {"__value__": [1]}),
        ("f", "any", None),
    ]


@pytest.mark.parametrize("described", [True, False])
def test_media_are_told_apart_from_text(info, described):
    graph = {
        "1": {"class_type": "LoadImageMask", "inputs": {"image": "a.png"}},
        "2": {"class_type": "LoadVideo", "inputs": {"file": "v.mp4"}},
    }
    assert [(one.type, one.media) for one in find_parameters(graph, info if described else None)] == [
        ("string", "mask"),
        ("string", "video"),
    ]


def test_parameters_of_dynamic_inputs(info):
    graph = {"57:3": {"class_type": "ImageResize", "inputs": {"resize_type": "by size", "resize_type.width": 64}}}
    found = find_parameters(graph, info)
    assert [(one.place, one.type, one.choices, one.maximum) for one in found] == [
        ("57:3.resize_type", "choice", ("by size", "by factor"), None),
        ("57:3.resize_type.width", "integer", None, 8192),
    ]
