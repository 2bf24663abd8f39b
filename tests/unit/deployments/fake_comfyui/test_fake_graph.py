"""Orders and signatures of graphs, without a server."""

from __future__ import annotations

import pytest

from deployments.fake_comfyui.comfy_node import Site
from deployments.fake_comfyui.config import FakeConfig
from deployments.fake_comfyui.dice import Dice
from deployments.fake_comfyui.files import FileStore
from deployments.fake_comfyui.graph import ExecutionOrder, sources_first
from deployments.fake_comfyui.node_cache import CachedResult, NodeCache
from deployments.fake_comfyui.node_library import NODE_CLASSES
from deployments.fake_comfyui.validation import validate_prompt


def chain(graphs, length):
    graph = graphs.preview()
    for index in range(length):
        graph[f"n{index}"] = {"class_type": "ImageInvert", "inputs": {"image": [f"n{index - 1}" if index else "1", 0]}}
    graph["2"]["inputs"]["images"] = [f"n{length - 1}", 0]
    return graph


def test_a_chain_longer_than_the_stack_is_validated_and_signed(graphs, tmp_path):
    graph = chain(graphs, 2000)
    verdict = validate_prompt(graph, None, NODE_CLASSES, Site(FakeConfig(), FileStore(tmp_path), Dice(0), ""))
    assert (verdict.outputs, verdict.error, verdict.node_errors) == (["2"], None, {})
    cache = NodeCache()
    cache.open(graph, lambda _: "")
    cache.put("2", CachedResult((), {}))
    cache.open(graph, lambda _: "")
    assert cache.get("2") is not None


def test_the_cache_keeps_only_what_the_present_prompt_could_use(graphs):
    cache, graph = NodeCache(), graphs.preview()
    for seen in (graph, graphs.preview(), graph):
        cache.open(seen, lambda _: "")
        assert cache.get("1") is None
        cache.put("1", CachedResult((), None))


def test_sources_come_first_and_cycles_end(graphs):
    graph = chain(graphs, 3)
    assert sources_first(graph, "2") == ["1", "n0", "n1", "n2", "2"]
    graph["n0"]["inputs"]["image"] = ["n2", 0]
    assert sorted(sources_first(graph, "2")) == ["2", "n0", "n1", "n2"]


@pytest.mark.parametrize("cached", [set(), {"n1"}])
def test_the_order_shows_a_picture_as_soon_as_it_can(graphs, cached):
    graph = chain(graphs, 2) | {"3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    order = ExecutionOrder(graph, ["2", "3"], cached.__contains__, lambda node_id: node_id in {"2", "3"})
    found = []
    while (node_id := order.next()) is not None:
        found.append(node_id)
        order.done(node_id)
    assert found == (["2", "1", "3"] if cached else ["1", "3", "n0", "n1", "2"])
