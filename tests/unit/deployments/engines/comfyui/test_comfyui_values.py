from __future__ import annotations

import pytest

from deployments.engines.comfyui.object_info import InputInfo
from deployments.engines.comfyui.values import Accepted, Refusal, Wanted, coerce, shown, shown_choices, to_integer

INTEGER = Wanted("integer", 1, 100)
NUMBER = Wanted("number", 0.0, 1.5)
CHOICE = Wanted("choice", choices=("euler", 2, True, 0.5))


@pytest.mark.parametrize(
    ("value", "wanted", "becomes"),
    [
        (20, INTEGER, 20),
        (20.0, INTEGER, 20),
        ("20", INTEGER, 20),
        (" 20.0 ", INTEGER, 20),
        ("18446744073709551615", Wanted("integer"), 2**64 - 1),  # a way through float would round it
        (1, NUMBER, 1),
        (0.5, NUMBER, 0.5),
        ("0.5", NUMBER, 0.5),
        ("1e-1", NUMBER, 0.1),
        ("text", Wanted("string"), "text"),
        (False, Wanted("boolean"), False),
        ("True", Wanted("boolean"), True),
        (0, Wanted("boolean"), False),
        ("euler", CHOICE, "euler"),
        ("2", CHOICE, 2),
        (True, CHOICE, True),
        ("0.5", CHOICE, 0.5),
        ("whatever", Wanted("choice"), "whatever"),
        ({"__value__": [1, 2]}, Wanted("any"), {"__value__": [1, 2]}),
    ],
)
def test_coerce_understands_what_clients_send(value, wanted, becomes):
    found = coerce(value, wanted)
    assert found == Accepted(becomes)
    assert type(found.value) is type(becomes)


@pytest.mark.parametrize(
    ("value", "wanted", "kind"),
    [
        (64.7, INTEGER, "invalid_input_type"),
        (True, INTEGER, "invalid_input_type"),
        ("many", INTEGER, "invalid_input_type"),
        ("9" * 5000, INTEGER, "invalid_input_type"),  # int() of it would raise
        (None, INTEGER, "invalid_input_type"),
        (0, INTEGER, "value_smaller_than_min"),
        (101, INTEGER, "value_bigger_than_max"),
        (float("nan"), NUMBER, "invalid_input_type"),
        ("inf", NUMBER, "invalid_input_type"),
        (True, NUMBER, "invalid_input_type"),
        (10**400, NUMBER, "value_bigger_than_max"),
        ([1], NUMBER, "invalid_input_type"),
        (5, Wanted("string"), "invalid_input_type"),
        (2, Wanted("boolean"), "invalid_input_type"),
        ("heun", CHOICE, "value_not_in_list"),
        (1, CHOICE, "value_not_in_list"),  # although 1 == True
        ("x", Wanted("choice", choices=()), "value_not_in_list"),  # a backend without any
        (["4", 0], Wanted("any"), "invalid_input_type"),  # would be a link
        (None, Wanted("any"), "invalid_input_type"),
    ],
)
def test_coerce_refuses_with_the_servers_kind(value, wanted, kind):
    found = coerce(value, wanted)
    assert isinstance(found, Refusal)
    assert found.kind == kind
    assert len(found.message) < 300


def test_refusal_says_what_was_received_and_what_is_allowed():
    assert coerce(0, INTEGER) == Refusal("value_smaller_than_min", "is 0, at least 1 is allowed", {"min": 1, "max": 100})
    assert coerce("heun", CHOICE).allowed == ["euler", 2, True, 0.5]
    assert coerce(None, INTEGER).message == "is null, but has to be a whole number"


def test_shown_values_are_short_and_no_structures():
    assert shown("x" * 1000) == "x" * 200 + "…"
    assert shown(["4", 0]) is None
    assert shown({"base64": "AAAA"}) is None
    assert shown(10**5000) == "a very large number"
    assert shown(float("inf")) == "inf"
    assert shown(2**64) == 2**64


def test_shown_choices_are_cut():
    assert shown_choices([str(n) for n in range(3000)]) == [str(n) for n in range(50)]


def test_to_integer_tells_floats_from_whole_numbers():
    assert [to_integer(value) for value in (3.0, 3.5, "3.5", float("inf"))] == [3, None, None, None]


@pytest.mark.parametrize(
    ("described", "wanted"),
    [
        (InputInfo("steps", "INT", required=True, minimum=1, maximum=9), Wanted("integer", 1, 9)),
        (InputInfo("sampler", "COMBO", required=True, choices=("a",)), Wanted("choice", choices=("a",))),
        (InputInfo("image", "COMBO", required=True, choices=("a.png",), media="image"), Wanted("string")),
        (InputInfo("model", "MODEL", required=True), Wanted("any")),
    ],
)
def test_wanted_follows_the_servers_description(described, wanted):
    assert Wanted.by(described) == wanted
