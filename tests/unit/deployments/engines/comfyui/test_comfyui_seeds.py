from __future__ import annotations

import random

import pytest

from deployments.engines.comfyui.seeds import LARGEST_DRAWN, draw_seed, draw_seeds


def test_draw_seed_stays_in_what_javascript_can_repeat():
    generator = random.Random(1)
    drawn = [draw_seed(generator, 0, 2**64 - 1) for _ in range(1000)]
    assert 2**50 < max(drawn) <= LARGEST_DRAWN
    assert min(drawn) >= 0


@pytest.mark.parametrize(("low", "high"), [(5, 7), (-10, 3), (9, 9)])
def test_draw_seed_keeps_the_bounds_of_the_input(low, high):
    drawn = {draw_seed(random.Random(n), low, high) for n in range(200)}
    assert drawn == set(range(max(0, low), high + 1))


@pytest.mark.parametrize("bound", [float("inf"), float("-inf"), float("nan")])
def test_draw_seed_survives_bounds_that_make_no_sense(bound):
    assert 0 <= draw_seed(random.Random(1), bound, bound) <= LARGEST_DRAWN


def test_draw_seeds_replaces_only_seeds_of_minus_one(text_to_image):
    text_to_image["3"]["inputs"] |= {"seed": -1, "cfg": -1}
    text_to_image["10"] = {"class_type": "RandomNoise", "inputs": {"noise_seed": "-1"}}
    drawn = draw_seeds(text_to_image, None, random.Random(1))
    assert drawn == {"3.seed": text_to_image["3"]["inputs"]["seed"], "10.noise_seed": text_to_image["10"]["inputs"]["noise_seed"]}
    assert drawn["3.seed"] != drawn["10.noise_seed"]
    assert text_to_image["3"]["inputs"]["cfg"] == -1


def test_draw_seeds_leaves_a_seed_linked_to_another_node(text_to_image):
    text_to_image["3"]["inputs"]["seed"] = ["4", 0]
    assert draw_seeds(text_to_image, None, random.Random(1)) == {}


def test_draw_seeds_leaves_minus_one_to_a_node_that_takes_it(info):
    graph = {"1": {"class_type": "PrimitiveInt", "inputs": {"value": -1}}}
    assert draw_seeds(graph, info, random.Random(1)) == {}
