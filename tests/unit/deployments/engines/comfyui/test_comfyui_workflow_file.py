from __future__ import annotations

import json

import pytest

from deployments.engines.comfyui.workflow_file import (
    FileProblem,
    ParameterSpec,
    WorkflowFile,
    WorkflowMeta,
    load_workflow_folder,
    read_meta,
    workflow_name,
)
from deployments.jobs.errors import InvalidInput

GRAPH = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}


def write(folder, name, graph, described=None):
    (folder / f"{name}.json").write_text(graph if isinstance(graph, str) else json.dumps(graph))
    if described is not None:
        (folder / f"{name}.yaml").write_text(described)


def test_load_workflow_folder_reads_graphs_with_their_descriptions(tmp_path):
    write(tmp_path, "b", GRAPH, "title: B\nparameters:\n  image: {type: image, bind: 1.image}\noutputs: ['1']\n")
    write(tmp_path, "a", {"nodes": [], "links": []})
    write(tmp_path, "c", {"prompt": GRAPH}, "")
    (tmp_path / "styles").mkdir()
    write(tmp_path / "styles", "anime", GRAPH)  # another endpoint's folder
    workflows, problems = load_workflow_folder(tmp_path)
    assert problems == ()
    assert workflows == (
        WorkflowFile("a", {"nodes": [], "links": []}, WorkflowMeta(title="a")),
        WorkflowFile(
            "b", GRAPH, WorkflowMeta(title="B", parameters={"image": ParameterSpec(type="image", bind=("1.image",))}, outputs=("1",))
        ),
        WorkflowFile("c", GRAPH, WorkflowMeta(title="c")),
    )


def test_load_workflow_folder_reports_broken_files_and_hides_nobody(tmp_path):
    write(tmp_path, "good", GRAPH)
    write(tmp_path, "Bad Name", GRAPH)
    write(tmp_path, "broken", "{")
    write(tmp_path, "list", "[]")
    write(tmp_path, "settings", {"a": 1})
    write(tmp_path, "typo", GRAPH, "titel: x")
    write(tmp_path, "yaml", GRAPH, "title: [\n")
    write(tmp_path, "words", GRAPH, "just words")
    (tmp_path / "orphan.yaml").write_text("title: x")
    (tmp_path / "folder.json").mkdir()
    workflows, problems = load_workflow_folder(tmp_path)
    assert [one.name for one in workflows] == ["good"]
    reasons = {one.file: one.reason for one in problems}
    assert set(reasons) == {
        "Bad Name.json", "broken.json", "list.json", "settings.json", "typo.json", "yaml.json", "words.json", "orphan.yaml", "folder.json",
    }  # fmt: skip
    assert "titel" in reasons["typo.json"]
    assert "line 2" in reasons["yaml.json"]
    assert not any(str(tmp_path) in reason for reason in reasons.values())


def test_load_workflow_folder_says_that_there_is_none(tmp_path):
    assert load_workflow_folder(tmp_path / "none") == ((), (FileProblem("none", "there is no such folder"),))


@pytest.mark.parametrize("name", ["a", "text-to-image", "basic_generation", "0x", "a" * 64])
def test_workflow_name_takes_safe_names(name):
    assert workflow_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "-a", "_a", "a.b", "../a", "a/b", "a\n", "a" * 65, "ä", "a b", "a\0"])
def test_workflow_name_refuses_what_is_not_safe_in_a_path(name):
    with pytest.raises(InvalidInput, match="64 characters"):
        workflow_name(name)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"type": "text"}, "type"),
        ({"type": "string", "choices": ["a"]}, "only a parameter of type choice"),
        ({"type": "string", "minimum": 1}, "only numbers"),
        ({"type": "image", "step": 1}, "only numbers"),
        ({"type": "integer", "minimum": 5, "maximum": 1}, "minimum is above maximum"),
        ({"type": "integer", "default": 5, "maximum": 1}, "the default is 5, at most 1 is allowed"),
        ({"type": "integer", "default": "many"}, "the default is 'many', but has to be a whole number"),
        ({"type": "seed", "default": -2}, "at least -1"),
        ({"type": "choice", "choices": ["a"], "default": "b"}, "not among the choices"),
        ({"type": "choice", "choices": ["a"], "default": "first_choice"}, "not among the choices"),
        ({"type": "string", "default": "x", "required": True}, "a required parameter has no default"),
        ({"type": "choice", "choices": []}, "choices"),
        ({"type": "string", "unknown": 1}, "unknown"),
        ({"type": "integer", "default": "20"}, "the default '20' has to be written as 20"),
        ({"type": "boolean", "default": 1}, "the default 1 has to be written as True"),
        ({"type": "number", "maximum": float("inf")}, "finite"),
        ({"type": "number", "default": float("nan")}, "finite"),
    ],
)
def test_read_meta_refuses_a_parameter_that_contradicts_itself(spec, reason):
    with pytest.raises(InvalidInput, match=reason):
        read_meta({"parameters": {"x": spec}})


@pytest.mark.parametrize("raw", [None, [], "x", {"parameters": {"a b": {"type": "string"}}}, {"parameters": []}, {1: 2}, {"outputs": [1]}])
def test_read_meta_refuses_other_shapes(raw):
    with pytest.raises(InvalidInput, match="the description of the workflow is wrong"):
        read_meta(raw)


def test_read_meta_takes_one_or_several_places():
    meta = read_meta({"parameters": {"one": {"type": "string", "bind": "6.text"}, "two": {"type": "string", "bind": ["6.text", "7.text"]}}})
    assert [spec.bind for spec in meta.parameters.values()] == [("6.text",), ("6.text", "7.text")]


def test_meta_survives_storage():
    meta = read_meta({"parameters": {"n": {"type": "integer", "default": 3, "maximum": 2**60}, "on": {"type": "boolean", "default": True}}})
    assert read_meta(json.loads(meta.model_dump_json(exclude_defaults=True))) == meta
    assert meta.parameters["on"].default is True
