from __future__ import annotations

import copy

import pytest

from deployments.engines.comfyui.media_inputs import MediaBinding, MediaPlace, is_reference, media_places, take_references

URL = "https://example.com/a.png"

GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png", "upload": "image"}},
    "2": {"class_type": "LoadImageMask", "inputs": {"image": "m.png", "channel": "alpha"}},
    "3": {"class_type": "LoadAudio", "inputs": {"audio": "a.wav"}},
    "4": {"class_type": "LoadVideo", "inputs": {"file": "v.mp4"}},
    "5": {"class_type": "VHS_LoadVideo", "inputs": {"video": "v.mp4", "force_rate": 0}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": URL}},
    "7": {"class_type": "LoadImage", "inputs": {"image": ["1", 0]}},
    "8": {"class_type": "StudioClip", "inputs": {"clip": URL}},
}

KNOWN = (
    MediaPlace("1", "image", "image"),
    MediaPlace("2", "image", "mask"),
    MediaPlace("3", "audio", "audio"),
    MediaPlace("4", "file", "video"),
    MediaPlace("5", "video", "video"),
)


def test_media_places_of_known_classes_need_no_description():
    assert media_places(GRAPH) == KNOWN


def test_media_places_of_other_classes_come_from_the_server(info):
    assert media_places(GRAPH, info) == (*KNOWN, MediaPlace("8", "clip", "video"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (URL, True),
        ("HTTP://EXAMPLE.COM/a", True),
        ("data:image/png;base64,AAAA", True),
        ("s3://bucket/key", True),
        ("gs://bucket/key", True),
        ({"url": URL}, True),
        ({"file_id": "x"}, True),
        ({"base64": "AAAA", "media_type": "image/png"}, True),
        ("a.png", False),
        ("https.png", False),
        ("file:///etc/passwd", False),
        ({"url": 5}, False),
        ({"url": URL, "file_id": "x"}, False),
        ({}, False),
        (["1", 0], False),
        (None, False),
        (5, False),
    ],
)
def test_is_reference(value, expected):
    assert is_reference(value) is expected


def test_take_references_leaves_urls_in_text_alone(info):
    graph = copy.deepcopy(GRAPH)
    graph["1"]["inputs"]["image"] = URL
    graph["3"]["inputs"]["audio"] = {"file_id": "x"}
    before = copy.deepcopy(graph)
    taken, media = take_references(graph, info)
    assert graph == before
    assert media == {
        "1.image": MediaBinding("1", "image", {"url": URL}),
        "3.audio": MediaBinding("3", "audio", {"file_id": "x"}),
        "8.clip": MediaBinding("8", "clip", {"url": URL}),
    }
    assert [taken[node]["inputs"][name] for node, name in (("1", "image"), ("3", "audio"), ("8", "clip"))] == ["", "", ""]
    assert taken["6"]["inputs"]["text"] == URL
    assert taken["2"] == before["2"]
