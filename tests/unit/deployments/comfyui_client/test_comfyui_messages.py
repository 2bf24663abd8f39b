"""What a server says on its socket, message by message."""

from __future__ import annotations

import json
import struct

import pytest

from deployments.comfyui_client.messages import FEATURE_FLAGS, Message, Picture, parse_binary, parse_text


def test_a_message_tells_its_prompt_and_its_node():
    message = parse_text(json.dumps({"type": "progress", "data": {"value": 1, "max": 4, "prompt_id": "p", "node": "3"}}))
    assert message == Message("progress", {"value": 1, "max": 4, "prompt_id": "p", "node": "3"})
    assert (message.prompt_id, message.comfy_node) == ("p", "3")


def test_the_end_has_no_node():
    message = parse_text('{"type": "executing", "data": {"node": null, "prompt_id": "p"}}')
    assert (message.prompt_id, message.comfy_node) == ("p", None)


def test_progress_state_is_skipped_unparsed_unless_asked():
    broken = '{"type": "progress_state", "data": {this is not JSON'
    assert parse_text(broken) is None
    whole = json.dumps({"type": "progress_state", "data": {"prompt_id": "p", "nodes": {}}})
    assert parse_text(whole) is None
    assert parse_text(whole, whole=True).type == "progress_state"


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"type": 3}', '{"data": {}}', '"executing"'])
def test_what_is_no_message_is_ignored(text):
    assert parse_text(text) is None


def test_data_of_another_shape_becomes_empty():
    assert parse_text('{"type": "status", "data": [1]}') == Message("status", {})


def test_an_old_preview_does_not_say_whose_it_is():
    assert parse_binary(struct.pack(">II", 1, 2) + b"png") == Picture("image/png", b"png")


def test_a_preview_with_metadata_says_it():
    metadata = json.dumps({"prompt_id": "p", "node_id": "3", "image_type": "image/jpeg"}).encode()
    picture = parse_binary(struct.pack(">II", 4, len(metadata)) + metadata + b"jpeg")
    assert (picture.media_type, picture.data, picture.prompt_id, picture.comfy_node) == ("image/jpeg", b"jpeg", "p", "3")


@pytest.mark.parametrize(
    "data",
    [b"", b"\0\0\0\1", struct.pack(">II", 1, 9) + b"x", struct.pack(">II", 3, 1) + b"3text", struct.pack(">II", 4, 2**31) + b"{}",
     struct.pack(">II", 4, 2) + b"{}", struct.pack(">II", 4, 2) + b"[]x", struct.pack(">II", 77, 0)],
)  # fmt: skip
def test_what_is_no_picture_is_ignored(data):
    assert parse_binary(data) is None


def test_previews_with_metadata_are_asked_for():
    assert json.loads(FEATURE_FLAGS) == {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
