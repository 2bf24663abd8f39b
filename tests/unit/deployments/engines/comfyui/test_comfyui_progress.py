from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from deployments.engines.comfyui.progress import GraphProgress

ORDER = ["4", "6", "7", "5", "3", "8", "9"]  # weights: 1 each, and 20 of the sampler: 26 in all


def test_fraction_follows_nodes_and_steps(text_to_image):
    progress = GraphProgress(text_to_image)
    seen = []
    for node in ORDER:
        progress.on_executing(node)
        if node == "3":
            for step in (5, 20):
                progress.on_progress(node, step, 20)
                seen.append((progress.comfy_node, progress.title, progress.step, progress.steps, round(progress.fraction * 26, 6)))
        seen.append((progress.comfy_node, progress.title, progress.step, progress.steps, round(progress.fraction * 26, 6)))
    progress.on_executing(None)
    assert seen == [
        ("4", "CheckpointLoaderSimple", None, None, 0),
        ("6", "Prompt", None, None, 1),
        ("7", "Negative v1.5", None, None, 2),
        ("5", "EmptyLatentImage", None, None, 3),
        ("3", "Sampler", 5, 20, 9),
        ("3", "Sampler", 20, 20, 24),
        ("3", "Sampler", 20, 20, 24),
        ("8", "VAEDecode", None, None, 24),
        ("9", "SaveImage", None, None, 25),
    ]
    assert (progress.comfy_node, progress.title) == (None, None)
    assert progress.fraction == 0.999


def test_cached_nodes_count_as_done(text_to_image):
    progress = GraphProgress(text_to_image)
    progress.on_cached(["4", "5", "6", "7", "3", "8", "unknown"])
    assert progress.fraction == pytest.approx(25 / 26)


def test_only_what_the_outputs_need_counts(text_to_image):
    text_to_image["20"] = {"class_type": "KSampler", "inputs": {"steps": 1000}}
    progress = GraphProgress(text_to_image, outputs=["9"])
    progress.on_cached(["4", "5", "6", "7", "3", "8"])
    assert progress.fraction == pytest.approx(25 / 26)
    progress.on_executing("20")
    progress.on_progress("20", 1000, 1000)
    assert progress.fraction == pytest.approx(25 / 26)


def test_children_of_an_expanded_node_count_as_it(text_to_image):
    progress = GraphProgress(text_to_image)
    progress.on_executing("3")
    progress.on_executing("3.0.1")
    progress.on_progress("3.0.1", 4, 4)
    progress.on_executing("3:7")
    assert (progress.comfy_node, progress.step, progress.fraction) == ("3", 4, 0)
    progress.on_cached(["3.0.2"])
    progress.on_executed("3.0.2")
    assert progress.fraction == 0
    progress.on_executing("8")
    assert progress.fraction == pytest.approx(20 / 26)


def test_an_id_with_a_colon_may_be_a_node_of_the_graph():
    graph = {"57": {"class_type": "A", "inputs": {}}, "57:3": {"class_type": "B", "inputs": {"x": ["57", 0]}, "_meta": {"title": "inner"}}}
    progress = GraphProgress(graph)
    progress.on_executing("57:3.0")
    assert progress.title == "inner"


def test_progress_without_executing_names_the_node(text_to_image):
    progress = GraphProgress(text_to_image)
    progress.on_progress("3", 1, 20)
    assert (progress.comfy_node, progress.step) == ("3", 1)


def test_executed_ends_a_node(text_to_image):
    progress = GraphProgress(text_to_image)
    progress.on_executed("3")
    assert progress.fraction == pytest.approx(20 / 26)


@pytest.mark.parametrize("steps", [["4", 0], None, -5, True, "x", 10**9])
def test_weights_survive_odd_steps(text_to_image, steps):
    text_to_image["3"]["inputs"]["steps"] = steps
    progress = GraphProgress(text_to_image)
    progress.on_cached(["3"])
    expected = 10_000 / 10_006 if steps == 10**9 else 1 / 7
    assert progress.fraction == pytest.approx(expected, abs=1e-3)


def test_fraction_never_falls_nor_reaches_one_whatever_comes(text_to_image):
    for seed in range(30):
        generator, progress, last = random.Random(seed), GraphProgress(text_to_image), 0.0
        for _ in range(200):
            node = generator.choice([*ORDER, "3.0", "unknown", "", ".", ":"])
            value = generator.choice([-1, 0, 1, 5, 1e308, float("nan"), float("inf")])
            maximum = generator.choice([0, 1, 20, -3, float("nan"), 0.5])
            calls: list[tuple[Callable[..., None], tuple]] = [
                (progress.on_progress, (node, value, maximum)),
                (progress.on_executing, (node,)),
                (progress.on_executing, (None,)),
                (progress.on_executed, (node,)),
                (progress.on_cached, ([node],)),
            ]
            call, arguments = generator.choice(calls)
            call(*arguments)
            assert last <= progress.fraction < 1
            assert (progress.step is None) == (progress.steps is None)
            assert 0 <= (progress.step or 0) <= (progress.steps or 0)
            last = progress.fraction


def test_an_empty_graph_has_no_progress():
    progress = GraphProgress({})
    progress.on_executing("3")
    assert (progress.fraction, progress.comfy_node) == (0, None)
