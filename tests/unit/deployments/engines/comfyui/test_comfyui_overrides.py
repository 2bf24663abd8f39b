from __future__ import annotations

import copy
import random
import time

import pytest

from deployments.engines.comfyui.overrides import apply_overrides
from deployments.jobs.errors import WorkflowInvalid


def override(graph, overrides, info=None):
    return apply_overrides(graph, overrides, info, random.Random(1))


def problems_of(graph, overrides, info=None):
    with pytest.raises(WorkflowInvalid) as caught:
        override(graph, overrides, info)
    return caught.value.problems


def test_apply_overrides_by_id_and_title_in_a_copy(text_to_image, info):
    before = copy.deepcopy(text_to_image)
    graph, seeds = override(
        text_to_image, {"6.text": "a fox", "Sampler.steps": "8", "Negative v1.5.text": "", "3.seed": 12345, "3.cfg": 2}, info
    )
    assert text_to_image == before
    expected = copy.deepcopy(before)
    expected["6"]["inputs"]["text"] = "a fox"
    expected["7"]["inputs"]["text"] = ""
    expected["3"]["inputs"] |= {"steps": 8, "seed": 12345, "cfg": 2}
    assert (graph, seeds) == (expected, {"3.seed": 12345})


def test_apply_overrides_reaches_subgraphs_and_dynamic_inputs(info):
    graph = {"57:3": {"class_type": "ImageResize", "inputs": {"resize_type": "by size", "resize_type.width": 64}}}
    changed, _ = override(graph, {"57:3.resize_type.width": "128", "57:3.resize_type.height": 32}, info)
    assert changed["57:3"]["inputs"] == {"resize_type": "by size", "resize_type.width": 128, "resize_type.height": 32}
    assert problems_of(graph, {"57:3.resize_type.width": 9000}, info)[0].allowed == {"min": 1, "max": 8192}


def test_apply_overrides_draws_a_seed(text_to_image, info):
    for described in (info, None):
        graph, seeds = override(text_to_image, {"3.seed": -1}, described)
        assert graph["3"]["inputs"]["seed"] == seeds["3.seed"] >= 0


def test_apply_overrides_keeps_a_minus_one_that_is_no_seed(text_to_image, info):
    graph, seeds = override(text_to_image, {"3.denoise": -1})
    assert (graph["3"]["inputs"]["denoise"], seeds) == (-1, {})
    assert override({"1": {"class_type": "PrimitiveInt", "inputs": {"value": 1}}}, {"1.value": -1}, info)[0]["1"]["inputs"]["value"] == -1


@pytest.mark.parametrize("known", [True, False])
def test_apply_overrides_refuses_links(text_to_image, info, known):
    described = info if known else None
    (problem,) = problems_of(text_to_image, {"3.model": "x"}, described)
    assert (problem.comfy_node, problem.title, problem.input, problem.kind) == ("3", "Sampler", "model", "is_linked")
    (problem,) = problems_of(text_to_image, {"6.text": ["4", 0]}, described)
    assert (problem.kind, problem.received) == ("invalid_input_type", None)


def test_apply_overrides_names_every_problem(text_to_image, info):
    overrides = {"6.txt": "x", "66.text": "x", "3.steps": 0, "3.sampler_name": "eulr", "5.width": "wide", "seed": 3}
    assert [(one.input, one.kind, one.received) for one in problems_of(text_to_image, overrides, info)] == [
        ("txt", "unknown_input", None),
        ("66.text", "unknown_node", None),
        ("steps", "value_smaller_than_min", 0),
        ("sampler_name", "value_not_in_list", "eulr"),
        ("width", "invalid_input_type", "wide"),
        ("seed", "unknown_place", None),
    ]


def test_apply_overrides_leaves_references_at_media_places(info):
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}
    reference = {"url": "https://example.com/a.png"}
    assert override(graph, {"1.image": reference}, info)[0]["1"]["inputs"]["image"] == reference
    assert override(graph, {"1.image": "other.png"}, info)[0]["1"]["inputs"]["image"] == "other.png"  # no choice of the server
    assert problems_of(graph, {"1.image": {"path": "/etc/passwd"}}, info)[0].kind == "invalid_input_type"


def test_apply_overrides_bounds_the_work_of_hostile_requests():
    graph = {f"{n:04}{'n' * 56}": {"class_type": f"{n:04}{'C' * 56}", "inputs": {"seed": 1}} for n in range(2000)}
    overrides = {f"x{n:04}{'n' * 56}.seed": 1 for n in range(5000)}
    started = time.perf_counter()
    assert len(problems_of(graph, overrides)) == 100
    assert time.perf_counter() - started < 3  # with difflib's likeness it took fifteen
    assert problems_of(graph, {str(n): 1 for n in range(5001)}) == ()
