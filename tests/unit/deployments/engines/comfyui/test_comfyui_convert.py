"""Converting what ComfyUI's editor saves.

The pairs in ``tests/data/comfyui`` are written by hand, one per rule: the drawing, and beside it the API graph that it has to become.
A ComfyUI 0.3.64 took every graph of classes that it knows.
"""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from pathlib import Path

import comfyui_workflow_templates_json  # type: ignore[import-untyped]  # shipped without types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.engines.comfyui import sources
from deployments.engines.comfyui.convert import GROUP_NODE, NO_SUBGRAPH, UNKNOWN_CLASS, to_api
from deployments.engines.comfyui.drawing import MALFORMED, MAX_LINKS, MAX_SLOTS, TOO_LARGE
from deployments.engines.comfyui.graph import MAX_NODES, check_graph, detect_format, read_workflow
from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.engines.comfyui.scopes import CYCLIC, MAX_DRAWN_NODES, MAX_NESTING, TOO_NESTED
from deployments.engines.comfyui.sources import LOOPING, NO_SETTER
from deployments.jobs.errors import InvalidInput, ServiceError, WorkflowNotConvertible

DATA = Path(__file__).parents[4] / "data"
PAIRS = sorted(path.name.removesuffix(".api.json") for path in (DATA / "comfyui").glob("*.api.json"))
TEMPLATES = Path(comfyui_workflow_templates_json.__path__[0]) / "templates"

SUBGRAPH = "11111111-1111-4111-8111-111111111111"
OTHER_SUBGRAPH = "22222222-2222-4222-8222-222222222222"


def load(name):
    return json.loads((DATA / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def server():
    """ComfyUI 0.3.64, with a few classes of newer versions."""
    return ObjectInfo.of({**load("object_info_min.json"), **load("object_info_extra.json")})


def node(node_id, kind="PreviewAny", *, link=None, **fields):
    return {"id": node_id, "type": kind, "inputs": [{"name": "source", "type": "*", "link": link}], "outputs": [{"type": "*"}], **fields}


def drawing(nodes, links=(), *subgraphs):
    return {"nodes": nodes, "links": list(links), "definitions": {"subgraphs": list(subgraphs)}}


def subgraph(subgraph_id, nodes):
    return {"id": subgraph_id, "nodes": nodes, "links": [], "inputs": [], "outputs": []}


def refusal(document, server):
    with pytest.raises(WorkflowNotConvertible) as caught:
        to_api(document, server)
    return caught.value.comfy_node, caught.value.class_type, caught.value.reason.partition(":")[0]


def test_there_is_a_pair_for_every_rule():
    assert len(PAIRS) >= 25


@pytest.mark.parametrize("name", PAIRS)
def test_to_api_gives_the_expected_graph(name, server):
    document = load(f"comfyui/{name}.json")
    before = copy.deepcopy(document)
    assert detect_format(document) == "ui"
    graph = to_api(document, server)
    assert graph == load(f"comfyui/{name}.api.json")
    assert check_graph(graph) == graph
    assert document == before


def test_to_api_looks_into_wrappers_and_takes_ids_of_either_kind(server):
    document = drawing([node("a"), node(5, link="x")], [{"id": "x", "origin_id": "a", "origin_slot": 0, "target_id": 5, "target_slot": 0}])
    graph = to_api({"workflow": document}, server)
    assert {node_id: one["inputs"] for node_id, one in graph.items()} == {"a": {}, "5": {"source": ["a", 0]}}


def test_to_api_titles_a_node_by_its_display_name_or_its_own():
    info = ObjectInfo.of({"PreviewAny": {"input": {}, "display_name": "Preview anything"}})
    graph = to_api(drawing([node(1), node(2, title="Mine")]), info)
    assert [one["_meta"]["title"] for one in graph.values()] == ["Preview anything", "Mine"]


def test_to_api_lets_a_value_stand_whose_link_leads_nowhere(server):
    muted = node(1, "PrimitiveInt", mode=2)
    sized = {
        "id": 2,
        "type": "EmptyImage",
        "inputs": [{"name": "width", "type": "INT", "link": 1, "widget": {"name": "width"}}],
        "widgets_values": [80],
    }
    assert to_api(drawing([muted, sized], [[1, 1, 0, 2, 0, "INT"]]), server)["2"]["inputs"]["width"] == 80


@pytest.mark.parametrize(
    ("inputs", "outputs", "slot", "passed"),
    [
        (["IMAGE", "MASK"], ["IMAGE", "MASK"], 1, 1),  # across, same type
        (["IMAGE", "MASK"], ["MASK"], 0, 1),  # the first of the type
        (["INT", "IMAGE,MASK", "IMAGE"], ["IMAGE"], 0, 2),  # ... before one that only fits
        (["INT", "image , mask"], ["MASK"], 0, 1),  # fits
        (["INT", "*", "MASK,LATENT"], ["LATENT"], 0, 1),  # the first that fits
        (["INT", "MASK"], ["INT", "INT", "*"], 2, 0),  # everything fits an output that takes all
        (["*"], ["IMAGE"], 0, 0),
        (["INT", "MASK"], ["IMAGE"], 0, None),
        (["IMAGE"], ["IMAGE"], 7, 0),  # a slot that is not drawn
        ([], ["IMAGE"], 0, None),
    ],
)
def test_to_api_passes_through_a_bypassed_node(inputs, outputs, slot, passed, server):
    slots = [{"name": f"in{index}", "type": kind, "link": index} for index, kind in enumerate(inputs)]
    bypassed = {"id": 50, "type": "Anything", "mode": 4, "inputs": slots, "outputs": [{"name": "out", "type": kind} for kind in outputs]}
    links = [[index, index, 0, 50, index, "*"] for index in range(len(inputs))] + [[99, 50, slot, 60, 0, "*"]]
    graph = to_api(drawing([*(node(index) for index in range(len(inputs))), bypassed, node(60, link=99)], links), server)
    assert graph["60"]["inputs"] == ({} if passed is None else {"source": [str(passed), 0]})


def test_to_api_ignores_muted_setters_and_nameless_inputs(server):
    setter = {"id": 2, "type": "SetNode", "mode": 2, "inputs": [{"name": "x", "type": "*", "link": 1}], "widgets_values": ["name"]}
    reader = {"id": 4, "type": "PreviewAny", "inputs": [{"name": "source", "type": "*", "link": 2}, {"type": "*", "link": 3}]}
    links = [[1, 1, 0, 2, 0, "*"], [2, 3, 0, 4, 0, "*"], [3, 1, 0, 4, 1, "*"]]
    graph = to_api(drawing([node(1), setter, node(3, "GetNode", widgets_values=["name"]), reader], links), server)
    assert graph["4"]["inputs"] == {}


def test_every_template_of_known_classes_is_converted(server):
    """All of ComfyUI's own templates: most of this version need classes that are newer than the captured server."""
    refusals: list[WorkflowNotConvertible] = []
    drawings = converted = 0
    for path in sorted(TEMPLATES.glob("*.json")):
        document = read_or_none(path)
        if document is None:
            continue
        drawings += 1
        try:
            graph = to_api(document, server)
        except WorkflowNotConvertible as error:
            refusals.append(error)
        else:
            converted += 1
            assert check_graph(graph) == graph
    assert drawings >= 640
    assert converted >= 152
    assert {error.reason for error in refusals} <= {UNKNOWN_CLASS}
    assert {error.class_type for error in refusals}.isdisjoint(server.nodes)


def read_or_none(path):
    try:
        document = read_workflow(path.read_bytes())
        detect_format(document)
    except InvalidInput:
        return None  # an index of the templates
    return document


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node(1, "NoSuchClass")], ("1", "NoSuchClass", UNKNOWN_CLASS)),
        ([node(1, "workflow>my group")], ("1", "workflow>my group", GROUP_NODE.partition(":")[0])),
        ([node(1, OTHER_SUBGRAPH)], ("1", OTHER_SUBGRAPH, NO_SUBGRAPH)),
        ([node(1), node(1)], ("1", "PreviewAny", MALFORMED)),
        ([node(1), node("1")], ("1", "PreviewAny", MALFORMED)),
        ([{"type": "PreviewAny"}], ("?", "PreviewAny", MALFORMED)),
        ([{"id": 1}], ("1", "?", MALFORMED)),
        ([{"id": 1, "type": "x" * 1000}], ("1", "x" * 200, MALFORMED)),
        (["text"], ("?", "?", MALFORMED)),
        ([node("3:1"), node(3, SUBGRAPH)], ("3:1", "PreviewAny", MALFORMED)),
        ([node(1, inputs=[{}] * (MAX_SLOTS + 1))], ("1", "PreviewAny", TOO_LARGE)),
        ([node(index) for index in range(MAX_NODES + 1)], ("root", "workflow", TOO_LARGE)),
        ([node(index, "Note") for index in range(MAX_DRAWN_NODES + 1)], ("root", "workflow", TOO_LARGE)),
    ],
    ids=lambda value: None if isinstance(value, list) else value[2],
)
def test_to_api_names_the_node_in_the_way(nodes, expected, server):
    assert refusal(drawing(nodes, (), subgraph(SUBGRAPH, [node(1)])), server) == expected


def test_to_api_names_the_getter_without_a_setter(server):
    document = drawing([node(1, "GetNode", widgets_values=["lost"]), node(2, link=1)], [[1, 1, 0, 2, 0, "*"]])
    assert refusal(document, server) == ("1", "GetNode", NO_SETTER)


@pytest.mark.parametrize(("kind", "mode"), [("Reroute", 0), ("PreviewAny", 4)])
def test_to_api_ends_a_loop(kind, mode, server):
    nodes = [node(1, kind, link=1, mode=mode), node(2, kind, link=2, mode=mode), node(3, link=2)]
    links = [[1, 2, 0, 1, 0, "*"], [2, 1, 0, 2, 0, "*"]]
    assert refusal(drawing(nodes, links), server) == ("1", kind, LOOPING)


def test_to_api_ends_a_loop_through_a_subgraph(server):
    passing = {"id": SUBGRAPH, "nodes": [], "inputs": [{"name": "in", "type": "*"}], "outputs": [{"name": "out", "type": "*"}]}
    passing["links"] = [{"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "*"}]
    instance = {"id": 7, "type": SUBGRAPH, "inputs": [{"name": "in", "type": "*", "link": 1}], "outputs": [{"type": "*"}]}
    document = drawing([instance, node(8, link=1)], [[1, 7, 0, 7, 0, "*"]], passing)
    assert refusal(document, server) == ("7", SUBGRAPH, LOOPING)


@pytest.mark.parametrize("link", [[1, 1, -1, 2, 0, "*"], [1, 1, True, 2, 0, "*"], [1, 1, 0, 2], "1", {"id": 1, "origin_id": 1}])
def test_to_api_drops_a_malformed_link(link, server):
    assert to_api(drawing([node(1), node(2, link=1)], [link]), server)["2"]["inputs"] == {}


def test_to_api_ends_a_subgraph_inside_itself(server):
    inside = [subgraph(SUBGRAPH, [node(1, OTHER_SUBGRAPH)]), subgraph(OTHER_SUBGRAPH, [node(2, SUBGRAPH)])]
    assert refusal(drawing([node(7, SUBGRAPH)], (), *inside), server) == ("7:1:2", SUBGRAPH, CYCLIC)


def nest(depth, copies):
    """Return a chain of subgraphs, each with some instances of the next."""
    names = [f"{index:08x}-0000-4000-8000-000000000000" for index in range(depth + 1)]
    chain = [subgraph(name, [node(copy_, after) for copy_ in range(copies)]) for name, after in pairwise(names)]
    return drawing([node(0, names[0])], (), *chain, subgraph(names[-1], [node(0)]))


def test_to_api_takes_subgraphs_to_a_depth(server):
    assert list(to_api(nest(MAX_NESTING - 1, 1), server)) == [":".join("0" * (MAX_NESTING + 1))]
    assert refusal(nest(MAX_NESTING, 1), server)[2] == TOO_NESTED


def test_to_api_ends_subgraphs_that_multiply(server):
    assert refusal(nest(MAX_NESTING - 1, 10), server)[2] == TOO_LARGE


def test_to_api_ends_millions_of_links(server):
    assert refusal(drawing([node(1)], [[0, 0, 0, 0, 0, "*"]] * (MAX_LINKS + 1)), server) == ("root", "workflow", TOO_LARGE)


def test_to_api_walks_a_long_chain_of_reroutes_once(server, monkeypatch):
    steps, step = [], sources._step

    def counted(scope, link):
        steps.append(link)
        return step(scope, link)

    monkeypatch.setattr(sources, "_step", counted)
    length, readers = 500, 20
    reroutes = [node(index, "Reroute", link=index - 1 if index else None) for index in range(length)]
    links = [[index, index, 0, index + 1, 0, "*"] for index in range(length)]
    ends = [node(length + index, link=length - 1) for index in range(readers)]
    assert all(one["inputs"] == {} for one in to_api(drawing([*reroutes, *ends], links), server).values())
    assert len(steps) == length + 1


NODE_IDS = st.integers(0, 4)
IDS = NODE_IDS | NODE_IDS | st.sampled_from([-10, -20, "1", None, 2.5, True])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.floats(allow_nan=False)
    | st.sampled_from(["a", "fixed", "image", "option4", "opt1"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["width", "combo", "x"]), inner, max_size=3),
    max_leaves=6,
)
CLASSES = ["EmptyImage", "KSampler", "NestedComboTest", "PreviewAny", "LoadImage"]
VIRTUAL = ["Reroute", "PrimitiveNode", "GetNode", "SetNode", "Note"]
TYPES = st.sampled_from(CLASSES) | st.sampled_from(CLASSES + VIRTUAL) | st.just(SUBGRAPH)
SLOTS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["width", "seed", "source", "image", ""]),
            "type": st.sampled_from(["*", "INT", "IMAGE,MASK", 0, None]),
            "link": IDS,
        },
        optional={"widget": st.just({"name": "w"}) | st.none()},
    )
    | SCALARS,
    max_size=3,
)
DRAWN = st.fixed_dictionaries(
    {"type": TYPES},
    optional={
        "mode": st.sampled_from([0, 0, 2, 4, None, "x"]),
        "inputs": SLOTS | SLOTS | SCALARS,
        "outputs": SLOTS,
        "widgets_values": VALUES,
        "title": SCALARS,
    },
)
NODES = st.dictionaries(NODE_IDS, DRAWN, min_size=1, max_size=5).map(
    lambda drawn: [{"id": node_id, **one} for node_id, one in drawn.items()]
)
LINKS = st.lists(
    st.tuples(IDS, IDS, IDS, IDS, IDS, st.just("*")).map(list)
    | st.fixed_dictionaries({"id": IDS, "origin_id": IDS, "origin_slot": IDS, "target_id": IDS, "target_slot": IDS})
    | SCALARS,
    max_size=8,
)
INSIDE = st.fixed_dictionaries({"id": st.just(SUBGRAPH), "nodes": NODES, "links": LINKS, "inputs": SLOTS, "outputs": SLOTS})
DRAWINGS = st.fixed_dictionaries(
    {"nodes": NODES, "links": LINKS},
    optional={"definitions": st.fixed_dictionaries({"subgraphs": st.lists(INSIDE, min_size=1, max_size=1)})},
)


@settings(max_examples=150, deadline=None)
@given(document=DRAWINGS)
def test_to_api_never_breaks(server, document):
    try:
        graph = to_api(document, server)
        check_graph(graph)
    except ServiceError:
        return
    assert {one["class_type"] for one in graph.values()} <= set(server.nodes)
