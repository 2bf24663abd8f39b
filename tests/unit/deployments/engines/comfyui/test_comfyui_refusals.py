from __future__ import annotations

import pytest

from deployments.engines.comfyui.refusals import problems_of_answer
from deployments.jobs.errors import NodeProblem

SECRETS = ("Traceback", "/srv/comfy", "main.py", "safetensors.py")


def answer(*errors, node="3", error=True):
    body = {"node_errors": {node: {"errors": list(errors), "dependent_outputs": ["9"], "class_type": "KSampler"}}}
    return body | (
        {"error": {"type": "prompt_outputs_failed_validation", "message": "m", "details": "d", "extra_info": {}}} if error else {}
    )


def refused(kind, **extra):
    return {"type": kind, "message": "Traceback", "details": "/srv/comfy/main.py", "extra_info": {"input_name": "steps", **extra}}


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (
            refused("value_smaller_than_min", input_config=["INT", {"min": 1, "max": 9, "tooltip": "Traceback"}], received_value=0),
            NodeProblem("3", "Sampler", "steps", "value_smaller_than_min", "steps is smaller than allowed", 0, {"min": 1, "max": 9}),
        ),
        (
            refused("value_not_in_list", input_config=[[str(n) for n in range(200)], {}], received_value="x"),
            NodeProblem("3", "Sampler", "steps", "value_not_in_list", "steps is not among the choices", "x", [str(n) for n in range(50)]),
        ),
        (
            refused("value_not_in_list", input_config=["COMBO", {"options": ["a", "b"]}], received_value="x"),
            NodeProblem("3", "Sampler", "steps", "value_not_in_list", "steps is not among the choices", "x", ["a", "b"]),
        ),
        (
            refused("value_not_in_list", input_config=None, received_value="x"),  # newer servers leave long lists out
            NodeProblem("3", "Sampler", "steps", "value_not_in_list", "steps is not among the choices", "x", None),
        ),
        (
            refused("return_type_mismatch", input_config=["MODEL", {}], received_type="CLIP", linked_node=["4", 1]),
            NodeProblem(
                "3", "Sampler", "steps", "return_type_mismatch", "steps takes another type than the linked output has", "CLIP", ["MODEL"]
            ),
        ),
        (
            refused("bad_linked_input", input_config=["MODEL"], received_value=["4"]),
            NodeProblem("3", "Sampler", "steps", "bad_linked_input", "steps is no link to an output of a node", None, None),
        ),
        (
            refused(
                "exception_during_validation", traceback=["/srv/comfy/main.py"], exception_type="KeyError", received_value="/srv/comfy"
            ),
            NodeProblem(
                "3",
                "Sampler",
                "steps",
                "exception_during_validation",
                "cannot be checked by the server: look at the node's links and inputs",
            ),
        ),
        (
            refused("something_new", received_value=5),
            NodeProblem("3", "Sampler", "steps", "something_new", "steps is refused by the server", 5, None),
        ),
    ],
)
def test_a_refused_input_is_told_in_our_words(text_to_image, error, problem):
    assert problems_of_answer(answer(error), text_to_image) == (problem,)


def test_outputs_that_are_left_out_of_an_accepted_prompt_are_problems_too(text_to_image):
    body = answer(refused("required_input_missing"), node="99", error=False) | {"prompt_id": "x", "number": 1}
    assert problems_of_answer(body, text_to_image) == (NodeProblem("99", "", "steps", "required_input_missing", "steps is required"),)
    assert problems_of_answer({"prompt_id": "x", "number": 1, "node_errors": {}}, text_to_image) == ()


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (
            {"type": "missing_node_type", "message": "m", "extra_info": {"node_id": "3", "class_type": "Unheard", "node_title": "t"}},
            NodeProblem("3", "Sampler", "", "missing_node_type", "the backend has no node class Unheard"),
        ),
        (
            {"type": "invalid_prompt", "message": "node Unheard does not exist.", "details": "Node ID '#3'", "extra_info": {}},
            NodeProblem("3", "Sampler", "", "missing_node_type", "the backend has no node class KSampler"),
        ),
        (
            {"type": "invalid_prompt", "message": "/srv/comfy", "extra_info": {}},
            NodeProblem("", "", "", "invalid_prompt", "the server cannot read the workflow"),
        ),
        ({"type": "prompt_no_outputs"}, NodeProblem("", "", "", "prompt_no_outputs", "the workflow has no output node, such as SaveImage")),
        ("Traceback", NodeProblem("", "", "", "refused", "the server refuses the workflow")),
    ],
)
def test_a_refusal_of_the_whole_prompt(text_to_image, error, problem):
    assert problems_of_answer({"error": error, "node_errors": {}}, text_to_image) == (problem,)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"type": 5, "extra_info": []}, "node_errors": []},
        {"error": {}, "node_errors": {"3": []}},
        {"error": None, "node_errors": {"3": {"errors": [5, {"type": None, "extra_info": {"input_name": 5, "input_config": [[], 5]}}]}}},
        {"error": {"type": "x" * 10**6}},
        {},
    ],
)
def test_hostile_answers_raise_nothing(text_to_image, body):
    problems = problems_of_answer(body, text_to_image)
    assert all(len(one.kind) <= 100 for one in problems)
    assert not any(secret in repr(problems) for secret in SECRETS)
