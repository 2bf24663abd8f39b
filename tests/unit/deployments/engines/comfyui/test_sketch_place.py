"""Which input of a style takes the sketch."""

from __future__ import annotations

import pytest

from deployments.engines.comfyui.sketch_place import with_sketch
from deployments.engines.comfyui.workflow_file import ParameterSpec, WorkflowMeta
from deployments.jobs.errors import InvalidInput


def load(image="a.png", title=None, kind="LoadImage"):
    return {"class_type": kind, "inputs": {"image": image}, **({"_meta": {"title": title}} if title else {})}


@pytest.mark.parametrize(
    ("graph", "place"),
    [
        ({"1": load()}, "1.image"),
        ({"1": load(), "2": load(title="My Sketch")}, "2.image"),
        ({"1": load(), "2": load(title="线稿")}, "2.image"),
        ({"1": load(), "2": load("input/scribble_01.png")}, "2.image"),
        ({"1": load(), "2": load("mask.png", kind="LoadImageMask")}, "1.image"),
    ],
)
def test_it_is_found_by_rule(graph, place):
    meta = with_sketch(graph, WorkflowMeta(), None)
    assert meta.parameters["sketch"].bind == (place,)


def test_the_description_decides():
    graph = {"1": load(title="Sketch"), "2": load()}
    declared = WorkflowMeta(parameters={"sketch": ParameterSpec(type="image", bind=("2.image",))})
    assert with_sketch(graph, declared, None) is declared


@pytest.mark.parametrize(
    ("graph", "meta", "says"),
    [
        ({"1": {"class_type": "KSampler", "inputs": {}}}, WorkflowMeta(), "add a LoadImage"),
        ({"1": load(), "2": load()}, WorkflowMeta(), "nodes 1, 2"),
        ({"1": load(title="sketch"), "2": load(title="sketch")}, WorkflowMeta(), "title one"),
        ({"1": load()}, WorkflowMeta(parameters={"sketch": ParameterSpec(type="string", bind=("1.image",))}), "has to be image"),
    ],
)
def test_what_is_not_clear_is_said(graph, meta, says):
    with pytest.raises(InvalidInput, match=says):
        with_sketch(graph, meta, None)
