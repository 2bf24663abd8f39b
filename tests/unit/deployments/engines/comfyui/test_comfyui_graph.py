"""Reading and checking API graphs."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from deployments.engines.comfyui.graph import (
    MAX_CHAIN,
    MAX_DEPTH,
    MAX_NODES,
    MAX_WORKFLOW_BYTES,
    GraphLink,
    ancestors,
    check_graph,
    detect_format,
    is_link,
    links,
    read_workflow,
    title_of,
    topological_order,
    unwrap,
)
from deployments.jobs.errors import InvalidInput, ServiceError, WorkflowInvalid

API = {
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}, "_meta": {"title": "Save it"}},
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64}},
    "2": {"class_type": "EmptyImage", "inputs": {"width": 32}},
    "3": {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["2", 0]}},
    "5": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
UI = {"nodes": [], "links": []}


def chain(count):
    """Return a graph of so many nodes behind each other."""
    graph = {"0": {"class_type": "EmptyImage", "inputs": {}}}
    return graph | {str(index): {"class_type": "ImageInvert", "inputs": {"image": [str(index - 1), 0]}} for index in range(1, count)}


def png(**texts):
    info = PngImagePlugin.PngInfo()
    for name, (text, kind) in texts.items():
        if kind == "iTXt":
            info.add_itxt(name, text, zip=True)
        else:
            info.add_text(name, text, zip=kind == "zTXt")
    return picture("PNG", pnginfo=info)


def webp(**tags):
    """Write the tags as ComfyUI does: the prompt under the camera's model, others from its maker downwards."""
    exif = Image.Exif()
    exif.update(dict(zip((0x0110, 0x010F, 0x010E), [f"{name}:{text}" for name, text in tags.items()], strict=False)))
    return picture("WEBP", exif=exif)


def picture(kind, **options):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind, **options)
    return file.getvalue()


def problems(document):
    with pytest.raises(WorkflowInvalid) as caught:
        check_graph(document)
    return [(problem.comfy_node, problem.input, problem.kind) for problem in caught.value.problems]


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf", b"\n "])
def test_read_workflow_reads_json(prefix):
    assert read_workflow(prefix + json.dumps(API).encode()) == API


def test_read_workflow_reads_what_is_no_number_as_null():
    assert read_workflow(b'{"1": {"is_changed": [NaN, -Infinity, 1e999, 0.5]}}') == {"1": {"is_changed": [None, None, None, 0.5]}}


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt"])
def test_read_workflow_prefers_the_prompt_in_a_png(kind):
    data = png(parameters=("steps: 20", kind), workflow=(json.dumps(UI), kind), prompt=(json.dumps(API), kind))
    assert read_workflow(data) == API


def test_read_workflow_takes_the_drawing_of_a_png_without_prompt():
    assert read_workflow(png(workflow=(json.dumps(UI), "tEXt"))) == UI


def test_read_workflow_keeps_latin_and_other_letters_of_a_png():
    document = {"1": {"class_type": "X", "inputs": {"text": "Grüße, 猫"}}}
    assert read_workflow(png(prompt=(json.dumps(document), "tEXt"))) == document  # escaped
    assert read_workflow(png(prompt=(json.dumps(document, ensure_ascii=False), "iTXt"))) == document


def test_read_workflow_reads_a_webp():
    assert read_workflow(webp(prompt=json.dumps(API), workflow=json.dumps(UI))) == API
    assert read_workflow(webp(workflow=json.dumps(UI))) == UI


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'"\xff"', "not JSON"),
        (b"[]", "has to be a JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "not JSON|deeper"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "deeper"),
        (b'{"text": "\\ud83d"}', "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b" " * (MAX_WORKFLOW_BYTES + 1), "longer than 16 MiB"),
        (picture("PNG"), "carries no workflow"),
        (picture("WEBP"), "carries no workflow"),
        (picture("PNG") + b"\0" * 64 * 2**20, "longer than 64 MiB"),
    ],
)
def test_read_workflow_says_what_is_wrong(data, message):
    with pytest.raises(InvalidInput, match=message):
        read_workflow(data)


def test_read_workflow_does_not_unpack_a_bomb():
    body = b"prompt\0\0" + zlib.compress(b" " * (MAX_WORKFLOW_BYTES * 4), 9)
    chunk = struct.pack(">I4s", len(body), b"zTXt") + body + b"\0\0\0\0"
    with pytest.raises(InvalidInput, match="prompt is longer than 16 MiB"):
        read_workflow(b"\x89PNG\r\n\x1a\n" + chunk)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_read_workflow_survives_broken_pictures(data):
    file = bytearray(data.draw(st.sampled_from([png(prompt=("{}", "zTXt"), workflow=("{}", "iTXt")), webp(prompt="{}", workflow="{}")])))
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(8, len(file) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidInput):
        assert read_workflow(bytes(file[: data.draw(st.integers(4, len(file)))])) == {}


@pytest.mark.parametrize(
    "wrapper", [lambda inner: inner, lambda inner: {"prompt": inner, "client_id": "x"}, lambda inner: {"workflow": inner}]
)
def test_detect_format_looks_into_wrappers(wrapper):
    assert detect_format(wrapper(API)) == "api"
    assert detect_format(wrapper(UI)) == "ui"
    assert unwrap(wrapper(API)) == API


def test_detect_format_takes_a_node_called_prompt_for_a_node():
    document = {"prompt": {"class_type": "X", "inputs": {}}}
    assert detect_format(document) == "api"
    assert check_graph(document) == document


@pytest.mark.parametrize("document", [{}, {"a": 1}, {"nodes": {}}, {"prompt": "a cat"}, {"last_node_id": 3, "links": []}])
def test_detect_format_refuses_other_documents(document):
    with pytest.raises(InvalidInput, match="no ComfyUI workflow"):
        detect_format(document)


def test_check_graph_keeps_what_comfyui_reads():
    document = {"1": {"class_type": "X", "inputs": {"a": {"__value__": [1, 2]}}, "_meta": {"title": "T"}, "is_changed": [None]}}
    assert check_graph({"prompt": document}) == {"1": {"class_type": "X", "inputs": {"a": {"__value__": [1, 2]}}, "_meta": {"title": "T"}}}
    assert "is_changed" in document["1"]


def test_check_graph_names_every_fault():
    document = {
        "1": {
            "class_type": "X",
            "inputs": {"gone": ["9", 0], "pair": [512, 512], "long": ["1", 0, 0], "negative": ["1", -1], "yes": ["1", True]},
        },
        "2": {"class_type": "X"},
        "3": {"inputs": {}},
        "4": [],
        "5": {"class_type": "X" * 300, "inputs": {}},
        "": {"class_type": "X", "inputs": {}},
    }
    assert problems(document) == [
        ("1", "gone", "bad_linked_input"),
        ("1", "pair", "bad_linked_input"),
        ("1", "long", "bad_linked_input"),
        ("1", "negative", "bad_linked_input"),
        ("1", "yes", "bad_linked_input"),
        ("2", "", "missing_inputs"),
        ("3", "", "missing_node_type"),
        ("4", "", "missing_node_type"),
        ("5", "", "missing_node_type"),
        ("", "", "invalid_node_id"),
    ]


def test_check_graph_does_not_send_a_long_value_back():
    with pytest.raises(WorkflowInvalid) as caught:
        check_graph({"1": {"class_type": "X", "inputs": {"a": ["x" * 10_000, 0]}}})
    assert len(caught.value.problems[0].received) < 250


def test_check_graph_names_the_nodes_of_a_cycle_and_none_behind_it():
    document = chain(4)
    document["1"]["inputs"]["image"] = ["2", 0]
    assert sorted(problems(document)) == [("1", "", "dependency_cycle"), ("2", "", "dependency_cycle")]
    assert problems({"1": {"class_type": "X", "inputs": {"a": ["1", 0]}}}) == [("1", "", "dependency_cycle")]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "no node"),
        ({str(index): {"class_type": "X", "inputs": {}} for index in range(MAX_NODES + 1)}, "at most 2000"),
        (chain(MAX_CHAIN + 1), "chain of 901 nodes"),
        ({"1": {"class_type": "X", "inputs": {"a": json.loads("[" * 100 + "]" * 100)}}}, "deeper"),
    ],
)
def test_check_graph_keeps_its_limits(document, message):
    with pytest.raises(WorkflowInvalid, match=message):
        check_graph(document)


def test_check_graph_takes_the_longest_chain():
    assert len(check_graph(chain(MAX_CHAIN))) == MAX_CHAIN


def nodes(inner):
    return st.dictionaries(
        st.sampled_from(["1", "2", "3", "class_type", "inputs", "_meta", "prompt", "nodes", "title", ""]), inner, max_size=5
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3) | nodes(inner), max_leaves=12
)


@settings(max_examples=100, deadline=None)
@given(nodes(JSON))
def test_check_graph_never_breaks(document):
    try:
        graph = check_graph(document)
    except ServiceError:
        return
    assert sorted(topological_order(graph)) == sorted(graph)


@pytest.mark.parametrize(
    ("value", "expected"), [(["1", 0], True), (["1", 1.0], False), ([1, 0], False), (["1"], False), (("1", 0), False), ("10", False)]
)
def test_is_link_is_strict(value, expected):
    assert is_link(value) is expected


def test_links_come_in_order():
    assert list(links(API)) == [
        GraphLink("4", "images", "3", 0),
        GraphLink("3", "image1", "1", 0),
        GraphLink("3", "image2", "2", 0),
        GraphLink("5", "images", "1", 0),
    ]


def test_ancestors_are_all_that_a_node_depends_on():
    assert ancestors(API, "4") == {"1", "2", "3"}
    assert ancestors(API, "1") == frozenset()
    assert len(ancestors(chain(2000), "1999")) == 1999


def test_title_of_falls_back_to_the_class():
    assert title_of(API, "4") == "Save it"
    assert title_of(API, "1") == "EmptyImage"
    assert title_of({"1": {"class_type": "X", "_meta": {"title": ""}}}, "1") == "X"


def test_topological_order_puts_origins_first():
    assert topological_order(API) == ["1", "2", "5", "3", "4"]
