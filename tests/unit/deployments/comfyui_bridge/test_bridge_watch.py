"""What is made of the messages about one prompt: hints of its end, progress, previews and pictures that are outputs."""

from __future__ import annotations

import itertools
import json
import math

import pytest

from deployments.comfyui_bridge import watch as watch_module
from deployments.comfyui_bridge.watch import PromptWatch
from deployments.comfyui_client.messages import Message, Picture, parse_text
from tests.workflows import text_to_image


def graph():
    return text_to_image() | {
        "10": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["8", 0]}},
        "11": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["8", 0]}},
    }


@pytest.fixture
def watch():
    return PromptWatch("p", graph(), 1)


def event(kind, **data):
    return Message(kind, {"prompt_id": "p", **data})


def state(watch):
    return watch.hint, watch.over, watch.news.is_set()


def test_a_watch_begins_without_news(watch):
    assert state(watch) == (False, False, False)
    assert (watch.current, watch.preview, watch.pictures, watch.socket_nodes) == (None, None, [], {"10", "11"})


@pytest.mark.parametrize(
    "message",
    [
        event("executing", node=None),
        event("execution_success"),
        event("execution_error", node_id="3"),
        event("execution_interrupted", node_id="3"),
    ],
)
def test_an_ending_is_a_hint_and_the_last_that_is_said(watch, message):
    watch.hear(message)
    assert state(watch) == (True, True, True)


@pytest.mark.parametrize(
    "message",
    [
        event("execution_start"),
        event("execution_cached", nodes=["4"]),
        event("executing", node="3"),
        event("progress", node="3", value=1, max=4),
        event("executed", node="9"),
        event("something_new"),
    ],
)
def test_what_happens_on_the_way_is_news_and_no_hint(watch, message):
    watch.hear(message)
    assert state(watch) == (False, False, True)


def test_a_suspicion_is_a_hint_but_no_end(watch):
    watch.suspect()
    assert state(watch) == (True, False, True)
    assert watch.hints == 1


def test_messages_move_the_progress(watch):
    watch.hear(event("execution_cached", nodes=["4", "6"]))
    cached = watch.progress.fraction
    watch.hear(event("executing", node="3"))
    watch.hear(event("progress", node="3", value=2, max=4))
    assert (watch.current, watch.progress.step, watch.progress.steps) == ("3", 2, 4)
    assert 0 < cached < watch.progress.fraction < 1
    half = watch.progress.fraction
    watch.hear(event("executing", node="8"))
    assert watch.progress.fraction > half


def test_progress_that_names_no_node_is_of_the_one_that_runs(watch):
    watch.hear(event("executing", node="3"))
    watch.hear(event("progress", value=1, max=4))
    assert (watch.current, watch.progress.step) == ("3", 1)


def test_hearing_something_counts_as_a_sign_of_life(watch):
    watch.heard_at = -math.inf
    watch.hear(event("something_new"))
    assert watch.heard_at > -math.inf
    watch.heard_at = -math.inf
    watch.see(Picture("image/jpeg", b"latent"))
    assert watch.heard_at > -math.inf


def test_a_picture_of_a_node_that_samples_is_a_preview_and_the_newest_counts(watch):
    watch.see(Picture("image/jpeg", b"a", "p", "3"))
    watch.see(Picture("image/jpeg", b"b", "p", "3"))
    assert (watch.preview, watch.pictures, watch.news.is_set()) == (Picture("image/jpeg", b"b", "p", "3"), [], True)


def test_pictures_of_nodes_that_save_to_the_socket_are_outputs_in_order(watch):
    first, second, other = (Picture("image/png", data, "p", node) for data, node in ((b"a", "10"), (b"b", "10"), (b"c", "11")))
    for picture in (first, second, other):
        watch.see(picture)
    assert (watch.preview, watch.pictures) == (None, [("10", first), ("10", second), ("11", other)])


def test_pictures_that_wait_for_the_end_are_bounded_and_it_is_known_that_some_are_missing(watch, monkeypatch):
    monkeypatch.setattr(watch_module, "MAX_PICTURE_BYTES", 5)
    for data in (b"abc", b"de", b"f", b""):
        watch.see(Picture("image/png", data, "p", "10"))
    assert ([picture.data for _, picture in watch.pictures], watch.overflowed) == ([b"abc", b"de"], True)


def test_a_picture_that_does_not_say_where_it_is_from_is_of_the_node_that_runs(watch):
    old = Picture("image/png", b"a")
    watch.hear(event("executing", node="3"))
    watch.see(old)
    assert (watch.preview, watch.pictures) == (old, [])
    watch.hear(event("executing", node="10"))
    watch.see(old)
    assert watch.pictures == [("10", old)]


def test_a_picture_before_anything_ran_is_a_preview(watch):
    watch.see(Picture("image/png", b"a"))
    assert (watch.preview.data, watch.pictures) == (b"a", [])


ODD = [None, True, 3, -1, 10**400, 1e999, float("nan"), "", "x", [], [None, {}, 3], {}, {"a": []}, "no such node", "3.x", ["3", 0]]


@pytest.mark.parametrize(
    "kind", ["executing", "execution_cached", "progress", "executed", "execution_error", "execution_success", "progress_state", ""]
)
def test_odd_data_never_raises(watch, kind):
    watch.hear(Message(kind, {}))
    for field, value in itertools.product(("node", "node_id", "nodes", "value", "max", "output", "prompt_id"), ODD):
        watch.hear(Message(kind, {field: value}))
        watch.hear(
            event(kind, node="3", value=1, max=4)
            if field == "output"
            else Message(kind, {"node": "3", "value": 1, "max": 4} | {field: value})
        )
    for value, most in itertools.product(ODD, ODD):
        watch.hear(event(kind, node="3", value=value, max=most))
    assert 0 <= watch.progress.fraction < 1


def test_a_number_too_large_for_a_float_is_no_progress(watch):
    message = parse_text(json.dumps({"type": "progress", "data": {"node": "3", "value": 1, "max": 10**400, "prompt_id": "p"}}))
    watch.hear(message)
    assert (watch.progress.step, watch.progress.fraction, watch.news.is_set()) == (None, 0.0, True)


@pytest.mark.parametrize("comfy_node", ["", "99", "3.1", "3"])
def test_pictures_of_odd_nodes_are_previews(watch, comfy_node):
    watch.see(Picture("image/png", b"", None, comfy_node))
    assert (watch.preview is not None, watch.pictures) == (True, [])
