from __future__ import annotations

import jsonschema
import pytest

from deployments.engines.comfyui.typed_inputs import parameter_schema, typed_inputs
from deployments.engines.comfyui.workflow_file import read_meta
from deployments.jobs.errors import NodeProblem, WorkflowInvalid

FILE_ID = "0b0f7a35-7c3e-4c67-8f0f-6a3b0f9f1c11"
INLINE = {"base64": "AAAA", "media_type": "image/png"}

META = read_meta(
    {
        "parameters": {
            "prompt": {"type": "string", "required": True, "multiline": True, "description": "what to draw"},
            "steps": {"type": "integer", "default": 20, "minimum": 1, "maximum": 50},
            "strength": {"type": "number", "minimum": 0, "maximum": 1, "step": 0.05},
            "tiled": {"type": "boolean", "default": False},
            "sampler": {"type": "choice", "choices": ["euler", "heun"], "default": "euler"},
            "checkpoint": {"type": "choice", "default": "first_choice"},
            "seed": {"type": "seed", "default": -1},
            "photo": {"type": "image"},
        }
    }
)


def refused(inputs, **options):
    with pytest.raises(WorkflowInvalid) as caught:
        typed_inputs(META, inputs, **options)
    return caught.value


def test_typed_inputs_fill_in_defaults_but_not_the_first_choice():
    assert typed_inputs(META, {"prompt": "a fox"}) == {"prompt": "a fox", "steps": 20, "tiled": False, "sampler": "euler", "seed": -1}


def test_typed_inputs_are_coerced_and_null_is_not_given():
    sent = {
        "prompt": "a fox",
        "steps": "8",
        "strength": "0.5",
        "tiled": 1,
        "seed": "18446744073709551615",
        "checkpoint": "x",
        "sampler": None,
    }
    found = {"prompt": "a fox", "steps": 8, "strength": 0.5, "tiled": True, "seed": 2**64 - 1, "checkpoint": "x", "sampler": "euler"}
    assert typed_inputs(META, sent) == found


def test_typed_inputs_are_the_same_the_second_time():
    once = typed_inputs(META, {"prompt": "a fox", "photo": FILE_ID})
    assert typed_inputs(META, once) == once


def test_typed_inputs_name_every_problem_at_once():
    error = refused({"steps": 99, "sampler": "dpm"})
    assert str(error) == "steps is 99, at most 50 is allowed (and 2 more)"
    assert error.problems == (
        NodeProblem("", "", "steps", "value_bigger_than_max", "steps is 99, at most 50 is allowed", 99, {"min": 1, "max": 50}),
        NodeProblem("", "", "sampler", "value_not_in_list", "sampler is 'dpm', which is not among the choices", "dpm", ["euler", "heun"]),
        NodeProblem("", "", "prompt", "required_input_missing", "prompt is required"),
    )


def test_typed_inputs_pass_undeclared_names_on_unless_strict():
    assert typed_inputs(META, {"prompt": "a", "cfg": [1]})["cfg"] == [1]
    error = refused({"prompt": "a", "stepz": 3}, strict=True)
    assert error.problems == (NodeProblem("", "", "stepz", "unknown_parameter", "the workflow has no parameter 'stepz'", None, ["steps"]),)


@pytest.mark.parametrize(
    ("sent", "becomes"),
    [
        ("https://example.com/a.png", {"url": "https://example.com/a.png"}),
        ("data:image/png;base64,AAAA", {"url": "data:image/png;base64,AAAA"}),
        ("s3://bucket/a.png", {"url": "s3://bucket/a.png"}),
        (FILE_ID, {"file_id": FILE_ID}),
        ("input.png", "input.png"),
        ("folder/input.png [input]", "folder/input.png [input]"),
        ({"url": "https://example.com/a", "media_type": "image/png"}, {"url": "https://example.com/a", "media_type": "image/png"}),
        (INLINE, INLINE),
    ],
)
def test_media_are_references_or_names_of_files(sent, becomes):
    assert typed_inputs(META, {"prompt": "a", "photo": sent})["photo"] == becomes


@pytest.mark.parametrize(
    "sent",
    [5, True, [], [FILE_ID], {}, {"base64": "AAAA"}, {"url": 5}, {"url": "https://a", "file_id": FILE_ID}, {"url": "https://a", "x": 1}, "", "ftp://a/b.png",
     "../../etc/passwd", "a\0b", "a\nb", "x" * 300, {"file_id": FILE_ID, "media_type": 5}],
)  # fmt: skip
def test_media_of_another_shape_are_refused_without_showing_them(sent):
    problem = refused({"prompt": "a", "photo": sent}).problems[0]
    assert (problem.input, problem.kind) == ("photo", "invalid_input_type")
    assert "file_id" in problem.message


def test_a_media_default_may_be_a_url():
    meta = read_meta(
        {"parameters": {"photo": {"type": "image", "default": "https://example.com/a.png"}, "b": {"type": "image", "default": "b.png"}}}
    )
    assert typed_inputs(meta, {}) == {"photo": {"url": "https://example.com/a.png"}, "b": "b.png"}


def test_parameter_schema_is_a_json_schema_that_agrees_with_the_check():
    schema = parameter_schema(META)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    good = [{"prompt": "a", "steps": 5, "photo": photo} for photo in ("a.png", {"file_id": FILE_ID}, {"url": "https://a"}, INLINE)]
    bad = [
        {},
        {"prompt": "a", "steps": 0},
        {"prompt": "a", "other": 1},
        {"prompt": "a", "photo": {"base64": "AAAA"}},
        {"prompt": "a", "seed": -2},
    ]
    assert [validator.is_valid(one) for one in good + bad] == [True] * len(good) + [False] * len(bad)
    assert [typed_inputs(META, one, strict=True)["prompt"] for one in good] == ["a"] * len(good)
    for one in bad:
        refused(one, strict=True)


def test_parameter_schema_says_what_a_form_needs():
    properties = parameter_schema(META)["properties"]
    assert properties["prompt"] == {"type": "string", "description": "what to draw", "x-type": "string", "x-multiline": True}
    assert properties["seed"] == {
        "type": "integer", "minimum": -1, "maximum": 2**64 - 1, "default": -1, "description": "-1 means random", "x-type": "seed",
    }  # fmt: skip
    assert properties["sampler"] == {"enum": ["euler", "heun"], "default": "euler", "x-type": "choice"}
    assert properties["checkpoint"] == {"type": "string", "x-type": "choice"}
    assert properties["tiled"] == {"type": "boolean", "default": False, "x-type": "boolean"}
