from __future__ import annotations

import copy

import pytest

from deployments.engines.comfyui.outputs import (
    OutputPlace,
    checkpoint_of,
    count_refused,
    fresh_prefix,
    list_outputs,
    needed_nodes,
    output_kind,
    output_name,
    required_classes,
    websocket_output_nodes,
)

GRAPH = {node_id: {"class_type": "SaveImage", "inputs": {}} for node_id in ("5", "10", "57:3")}


def file(name, folder="output", subfolder=""):
    return {"filename": name, "subfolder": subfolder, "type": folder}


def test_list_outputs_reads_every_key_and_classifies_by_extension():
    outputs = {
        "57:3": {"text": ["hello", "hello"], "images": [file("v_00001_.mp4", subfolder="video")], "animated": [True]},
        "unknown": {"latents": [file("l.latent")]},
        "10": {"gifs": [file("g.gif", "temp")], "audio": [file("a.flac")], "3d": [file("m.glb")], "files": [file("f.xyz")]},
        "5": {"images": [file("a.png"), file("b.PNG"), file("a.png")]},
    }
    assert list_outputs(outputs, GRAPH) == (
        OutputPlace("5", 0, "a.png", "", "output", "image"),
        OutputPlace("5", 1, "b.PNG", "", "output", "image"),
        OutputPlace("10", 0, "m.glb", "", "output", "3d"),
        OutputPlace("10", 1, "a.flac", "", "output", "audio"),
        OutputPlace("10", 2, "f.xyz", "", "output", "file"),
        OutputPlace("10", 3, "g.gif", "", "temp", "image"),
        OutputPlace("57:3", 0, "v_00001_.mp4", "video", "output", "video"),
        OutputPlace("57:3", 1, "", "", "output", "text", "hello"),
        OutputPlace("57:3", 2, "", "", "output", "text", "hello"),
        OutputPlace("unknown", 0, "l.latent", "", "output", "latent"),
    )


def test_list_outputs_is_the_same_in_any_order_of_the_answer():
    one = {"5": {"images": [file("a.png")], "gifs": [file("b.gif")]}, "10": {"images": [file("c.png")]}}
    other = {"10": {"images": [file("c.png")]}, "5": {"gifs": [file("b.gif")], "images": [file("a.png")]}}
    assert list_outputs(one, GRAPH) == list_outputs(other, GRAPH)


@pytest.mark.parametrize(
    "entry",
    [
        None, 5, "a.png", [], {}, {"filename": 5}, {"filename": ""}, file("../a.png"), file("/etc/passwd"), file("\\\\host\\a.png"), file("C:\\a.png"), file("a\0.png"),
        file("a\n.png"), file("x" * 5000), file("a.png", "secret"), file("a.png", []), file("a.png", {}), file("a.png", subfolder="a/../.."), file("a.png", subfolder="/etc"),
        file("a.png", subfolder=["x"]),
    ],
)  # fmt: skip
def test_hostile_outputs_are_left_out(entry):
    assert list_outputs({"5": {"images": [entry, file("good.png")]}}, GRAPH) == (OutputPlace("5", 0, "good.png", "", "output", "image"),)


def test_files_that_are_left_out_are_counted():
    outputs = {"5": {"images": [file("/etc/passwd"), file("good.png"), "text", {"x": 1}], "gifs": [file("a.gif", "secret")]}}
    assert count_refused(outputs) == 2
    assert count_refused({"5": {"images": [file(f"{n}.png") for n in range(1003)]}}) == 3
    assert count_refused({"5": {"images": [file("a.png")], "text": ["a", "a"]}, "6": None}) == 0


@pytest.mark.parametrize(
    "raw", [None, [], "x", {"images": "a.png"}, {"images": {"filename": "a.png"}}, {"text": [5, None]}, {"text": "abc"}]
)
def test_hostile_shapes_of_a_node_are_left_out(raw):
    assert list_outputs({"5": raw}, GRAPH) == ()


def test_a_file_without_a_folder_is_an_output():
    assert list_outputs({"5": {"files": [{"filename": "a.png"}]}}, GRAPH) == (OutputPlace("5", 0, "a.png", "", "output", "image"),)


def test_list_outputs_stops_at_a_thousand():
    assert len(list_outputs({str(n): {"images": [file(f"{m}.png") for m in range(100)]} for n in range(30)}, GRAPH)) == 1000


@pytest.mark.parametrize(
    ("filename", "kind"),
    [("a.JPG", "image"), ("a.b.webm", "video"), ("a.opus", "audio"), ("a.json", "text"), ("a", "file"), (".png", "file"), ("a.", "file")],
)
def test_output_kind(filename, kind):
    assert output_kind(filename) == kind


@pytest.mark.parametrize(
    ("node", "filename", "name"),
    [
        ("9", "cat_00001_.png", "job-1_9_0.png"),
        ("57:3", "v.MP4", "job-1_57-3_0.mp4"),
        ("../..", "x.php", "job-1_-_0.bin"),
        ("9", "x.png/../../y", "job-1_9_0.bin"),
        ("9", "noextension", "job-1_9_0.bin"),
    ],
)
def test_output_name_is_safe(node, filename, name):
    assert output_name("job-1", node, 0, filename) == name


def test_needed_nodes(text_to_image):
    assert needed_nodes(text_to_image, ["8"]) == frozenset(text_to_image) - {"9"}
    assert needed_nodes({"1": {"class_type": "A", "inputs": {"x": ["99", 0]}}}, ["1", "2"]) == frozenset({"1"})


def test_websocket_output_nodes(text_to_image):
    text_to_image["20"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["8", 0]}}
    assert websocket_output_nodes(text_to_image) == ("20",)


def test_fresh_prefix_changes_only_what_saves(text_to_image):
    text_to_image["20"] = {"class_type": "SaveImageWebsocket", "inputs": {"images": ["8", 0]}}
    text_to_image["21"] = {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": ["22", 0]}}
    before = copy.deepcopy(text_to_image)
    changed, without = fresh_prefix(text_to_image, ["9", "20", "21", "gone"], "k3")
    assert text_to_image == before
    before["9"]["inputs"]["filename_prefix"] = "cat_k3"
    assert (changed, without) == (before, ("20", "21", "gone"))


def test_checkpoint_of_is_that_of_the_sampler(text_to_image):
    assert checkpoint_of(text_to_image) == "tiny.safetensors"
    text_to_image["1"] = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "unused.safetensors"}}
    text_to_image["2"] = {"class_type": "LoraLoader", "inputs": {"model": ["4", 0], "lora_name": "x"}}
    text_to_image["3"]["inputs"]["model"] = ["2", 0]
    graph = {"1": text_to_image.pop("1")} | text_to_image
    assert checkpoint_of(graph) == "tiny.safetensors"


def test_checkpoint_of_a_guider_and_of_none():
    graph = {
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux.safetensors"}},
        "2": {"class_type": "BasicGuider", "inputs": {"model": ["1", 0]}},
        "3": {"class_type": "SamplerCustomAdvanced", "inputs": {"guider": ["2", 0], "latent_image": ["4", 0]}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {}},
    }
    assert checkpoint_of(graph) == "flux.safetensors"
    assert checkpoint_of({"4": graph["4"]}) is None


def test_required_classes(text_to_image):
    assert required_classes(text_to_image) == {
        "KSampler",
        "CheckpointLoaderSimple",
        "EmptyLatentImage",
        "CLIPTextEncode",
        "VAEDecode",
        "SaveImage",
    }
