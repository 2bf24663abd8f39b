"""The typed view of a server's node classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.engines.comfyui.object_info import AUTOGROW, InputInfo, NodeInfo, ObjectInfo, without_files

DATA = Path(__file__).parents[4] / "data"


@pytest.fixture(scope="module")
def captured():
    """What ComfyUI 0.3.64 says of its classes, see scripts/capture_object_info.py."""
    return json.loads((DATA / "object_info_min.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def nodes(captured):
    extra = json.loads((DATA / "object_info_extra.json").read_text(encoding="utf-8"))
    return ObjectInfo.of({**captured, **extra}).nodes


def one(spec, name="value", class_name="X"):
    """Return the only input of a class."""
    (found,) = ObjectInfo.of({class_name: {"input": {"required": {name: spec}}}}).nodes[class_name].inputs
    return found


def test_of_reads_every_class_of_a_real_server(captured):
    assert len(captured) > 480
    assert set(ObjectInfo.of(captured).nodes) == set(captured)


def test_of_reads_a_sampler(nodes):
    sampler = nodes["KSampler"]
    assert [info.name for info in sampler.inputs] == [
        "model", "seed", "steps", "cfg", "sampler_name", "scheduler", "positive", "negative", "latent_image", "denoise",
    ]  # fmt: skip
    assert sampler.outputs == ("LATENT",)
    assert not sampler.output_node
    cfg = sampler.by_name["cfg"]
    assert (cfg.type, cfg.required, cfg.default, cfg.minimum, cfg.maximum, cfg.step) == ("FLOAT", True, 8.0, 0.0, 100.0, 0.1)
    names = sampler.by_name["sampler_name"]
    assert (names.type, names.initial) == ("COMBO", "euler")
    assert {"euler", "dpmpp_2m", "uni_pc"} <= set(names.choices)
    assert [info.name for info in sampler.inputs if info.is_widget] == ["seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"]
    assert [info.name for info in sampler.inputs if info.control_after_generate] == ["seed"]


def test_of_takes_required_inputs_first_and_the_servers_order():
    described = {
        "input": {"optional": {"c": ["INT"]}, "required": {"b": ["INT"], "a": ["INT"], "z": ["INT"]}, "hidden": {"prompt": "PROMPT"}},
        "input_order": {"required": ["a", "b", "gone", 7], "optional": ["c"]},
        "output": ["IMAGE", ["x", "y"]],
        "output_node": True,
        "display_name": "A name",
    }
    node = ObjectInfo.of({"X": described}).nodes["X"]
    assert [(info.name, info.required) for info in node.inputs] == [("a", True), ("b", True), ("z", True), ("c", False)]
    assert (node.display_name, node.outputs, node.output_node) == ("A name", ("IMAGE", "COMBO"), True)


def test_of_knows_the_outputs_that_graphs_run_for(nodes):
    assert nodes["SaveImage"].output_node
    assert nodes["PreviewAny"].output_node
    assert not nodes["ImageScale"].output_node


@pytest.mark.parametrize(
    ("class_name", "input_name", "media"),
    [
        ("LoadImage", "image", "image"),
        ("LoadImageMask", "image", "mask"),
        ("LoadImageMask", "channel", None),
        ("LoadAudio", "audio", "audio"),
        ("LoadVideo", "file", "video"),
        ("Load3D", "model_file", None),
        ("SaveImage", "filename_prefix", None),
    ],
)
def test_of_tells_media_inputs(nodes, class_name, input_name, media):
    assert nodes[class_name].by_name[input_name].media == media


@pytest.mark.parametrize(
    ("spec", "is_widget"),
    [
        (["INT", {}], True),
        (["STRING", {"forceInput": True}], False),
        ([["a", "b"]], True),
        (["COMBO", {"options": ["a"]}], True),
        (["COLOR"], True),
        (["COMFY_DYNAMICCOMBO_V3", {"options": []}], True),
        (["COMFY_AUTOGROW_V3", {}], False),
        (["IMAGE"], False),
        (["*"], False),
        (["INT,FLOAT", {}], False),
        (["INT,FLOAT", {"widgetType": "FLOAT"}], True),
        (["THING", {"socketless": True}], True),
    ],
)
def test_is_widget_follows_the_editor(spec, is_widget):
    assert one(spec).is_widget is is_widget


@pytest.mark.parametrize(
    ("spec", "initial"),
    [
        (["INT"], 0),
        (["INT", {"default": 3}], 3),
        (["FLOAT", {"default": 0}], 0),
        (["STRING", {"multiline": True}], ""),
        (["BOOLEAN"], False),
        ([["a", "b"]], "a"),
        ([["a", "b"], {"default": "b"}], "b"),
        (["COMBO", {"options": []}], None),
        (["WEBCAM"], None),
        (["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "k", "inputs": {}}]}], "k"),
    ],
)
def test_initial_is_what_a_new_widget_holds(spec, initial):
    assert one(spec).initial == initial


@pytest.mark.parametrize(
    ("name", "spec", "expected"),
    [
        ("seed", ["INT", {}], True),
        ("noise_seed", ["INT", {}], True),
        ("seed", ["STRING", {}], False),
        ("value", ["INT", {"control_after_generate": True}], True),
        ("value", ["INT", {"control_after_generate": "randomize"}], True),
        ("value", ["INT", {"control_after_generate": False}], False),
    ],
)
def test_control_after_generate_is_told_by_flag_or_name(name, spec, expected):
    assert one(spec, name).control_after_generate is expected


def test_branch_gives_the_inputs_that_a_choice_brings(nodes):
    combo = nodes["ResizeImageMaskNode"].by_name["resize_type"]
    assert combo.choices[:2] == ("scale dimensions", "scale by multiplier")
    assert [info.name for info in combo.branch("scale dimensions")] == ["width", "height", "crop"]
    assert [(info.name, info.type) for info in combo.branch("match size")] == [("match", "IMAGE,MASK"), ("crop", "COMBO")]
    assert combo.branch("no such choice") == ()


def test_grown_is_the_input_that_is_repeated(nodes):
    assert nodes["BatchImagesNode"].by_name["images"].grown == InputInfo("image", "IMAGE", required=True)
    assert nodes["ComfyMathExpression"].by_name["values"].grown.type == "FLOAT,INT,BOOLEAN"
    assert nodes["KSampler"].by_name["seed"].grown is None


@pytest.mark.parametrize(
    "described",
    [
        None,
        [],
        {},
        {"input": []},
        {"input": {"required": ["x"]}},
        {"input": {"required": {"a": "INT"}}},
        {"input": {"required": {"a": []}}},
        {"input": {"required": {"a": [{"x": 1}]}}},
        {"input": {}, "output": "IMAGE"},
        {"input": {}, "output": [None]},
    ],
)
def test_of_leaves_out_a_class_that_it_cannot_read(described):
    good = {"input": {}}
    assert ObjectInfo.of({"odd": described, "good": good}).nodes == {"good": NodeInfo("good", "good", (), (), output_node=False)}


def test_dynamic_inputs_that_cannot_be_read_bring_nothing():
    combo = one(["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "a", "inputs": {"required": {"x": 5}}}, {"key": "b"}, "c"]}])
    assert combo.choices == ("a", "b")
    assert combo.branch("a") == combo.branch("b") == combo.branch("c") == ()
    assert one([AUTOGROW, {"template": {"input": {"required": {"x": 5}}}}]).grown is None


WORDS = st.sampled_from(
    ["input", "required", "optional", "input_order", "output", "options", "key", "inputs", "template", "default", "min", "INT", "COMBO"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(WORDS, JSON), JSON)
def test_of_never_breaks(described, spec):
    for node in ObjectInfo.of({"X": described, "Y": {"input": {"required": {"a": spec}}}, "Z": spec}).nodes.values():
        for info in node.inputs:
            assert isinstance(info.is_widget, bool)
            info.branch("key")
            assert info.grown is None or info.type == AUTOGROW


def test_without_files_leaves_out_the_names_of_inputs_and_nothing_else():
    old = {"required": {"image": [["a.png", "b.png"], {"image_upload": True}], "mode": [["x", "y"]]}}
    new = {
        "required": {"audio": ["COMBO", {"options": ["a.wav"], "audio_upload": True, "tooltip": "t"}]},
        "optional": {"n": ["INT", {"default": 1}]},
    }
    raw = {"Old": {"input": old, "output": ["IMAGE"]}, "New": {"input": new}, "Odd": 3, "Odder": {"input": {"required": ["x"]}}}
    assert without_files(raw) == {
        "Old": {"input": {"required": {"image": [[], {"image_upload": True}], "mode": [["x", "y"]]}}, "output": ["IMAGE"]},
        "New": {
            "input": {
                "required": {"audio": ["COMBO", {"options": [], "audio_upload": True, "tooltip": "t"}]},
                "optional": {"n": ["INT", {"default": 1}]},
            }
        },
        "Odd": 3,
        "Odder": {"input": {"required": ["x"]}},
    }
    assert raw["Old"]["input"]["required"]["image"][0] == ["a.png", "b.png"]
