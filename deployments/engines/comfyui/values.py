"""Literal values of a graph's inputs: what an input wants, and what becomes of what a client sent.

Clients send numbers as text and counts as ``20.0``; both are understood. What would silently become something else (``64.7`` where a
whole number is wanted, ``true`` as a number) is refused, although ComfyUI itself would cut it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from deployments.engines.comfyui.object_info import DYNAMIC_COMBO, InputInfo

ValueType = Literal["integer", "number", "string", "boolean", "choice", "any"]  # any: but no list, which would be a link

CHOICES_SHOWN = 50  # of a list in an error: a folder of models can hold thousands
TEXT_SHOWN = 200  # characters of a value in an error

_TYPES: dict[str, ValueType] = {
    "INT": "integer",
    "FLOAT": "number",
    "STRING": "string",
    "BOOLEAN": "boolean",
    "COMBO": "choice",
    DYNAMIC_COMBO: "choice",
}
_INTEGER = re.compile(r"[+-]?\d{1,20}(?:\.0+)?")  # 2**64 - 1, the largest seed, has 20 digits
_BOOLEANS: dict[str, bool] = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an input takes."""

    type: ValueType
    minimum: float | None = None  # an int where the type is integer
    maximum: float | None = None
    choices: tuple[Any, ...] | None = None  # JSON values; None: not known, and then anything passes

    @classmethod
    def by(cls, info: InputInfo) -> Self:
        """Return what an input of a node class wants, as the server describes it."""
        kind = _TYPES.get(info.type, "any")
        return cls(kind, info.minimum, info.maximum, info.choices) if info.media is None else cls("string")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A value as the graph gets it."""

    value: Any  # JSON


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a value does not fit; ``kind`` is ComfyUI's own name for it, where it has one."""

    kind: Literal["invalid_input_type", "value_smaller_than_min", "value_bigger_than_max", "value_not_in_list", "is_linked"]
    message: str  # continues a sentence that began with the name of the input
    allowed: Any = None  # as in NodeProblem


def coerce(value: Any, wanted: Wanted) -> Accepted | Refusal:  # noqa: ANN401 -- a JSON value that a client sent
    """Turn a value into what an input wants."""
    match wanted.type:
        case "integer":
            return _bounded(to_integer(value), value, wanted, "a whole number")
        case "number":
            return _bounded(to_number(value), value, wanted, "a number")
        case "boolean":
            found = to_boolean(value)
            return _wrong_type(value, "true or false") if found is None else Accepted(found)
        case "string":
            return Accepted(value) if isinstance(value, str) else _wrong_type(value, "text")
        case "choice":
            return _chosen(value, wanted.choices)
        case "any":
            return _wrong_type(value, "a single value") if value is None or isinstance(value, list) else Accepted(value)


def to_integer(value: object) -> int | None:
    """Read a whole number out of an int, a float without fraction or text; None when it is none."""
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value.strip().partition(".")[0])  # not by float, which would round a 64-bit seed
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def to_number(value: object) -> float | None:
    """Read a finite number out of an int, float or text; an int stays one. None when it is none."""
    whole = to_integer(value)
    if whole is not None and not isinstance(value, float):
        return whole
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def to_boolean(value: object) -> bool | None:
    """Read a truth value out of a bool, 0, 1 or their names; None when it is none."""
    return _BOOLEANS.get(str(value).lower()) if isinstance(value, bool | int | str) else None


def shown(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    """Return a value fit for an error: scalars as they are, long text cut, links and other structures not at all."""
    if isinstance(value, str):
        return value if len(value) <= TEXT_SHOWN else value[:TEXT_SHOWN] + "…"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) >= 2**128:  # thousands of digits are no use to a reader, and costly to print
        return "a very large number"
    return value if isinstance(value, bool | int | float) else None


def shown_choices(choices: Sequence[Any]) -> list[Any]:
    """Return the first choices of a list, fit for an error."""
    return [shown(choice) for choice in choices[:CHOICES_SHOWN]]


def _bounded(number: float | None, sent: object, wanted: Wanted, what: str) -> Accepted | Refusal:
    if number is None:
        return _wrong_type(sent, what)
    allowed = {"min": wanted.minimum, "max": wanted.maximum}
    if wanted.minimum is not None and number < wanted.minimum:
        return Refusal("value_smaller_than_min", f"is {shown(number)}, at least {wanted.minimum} is allowed", allowed)
    if wanted.maximum is not None and number > wanted.maximum:
        return Refusal("value_bigger_than_max", f"is {shown(number)}, at most {wanted.maximum} is allowed", allowed)
    return Accepted(number)


def _chosen(value: object, choices: tuple[Any, ...] | None) -> Accepted | Refusal:
    if choices is None:
        return Accepted(value) if isinstance(value, bool | int | float | str) else _wrong_type(value, "one of the backend's choices")
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return Accepted(choice)
    for choice in choices:  # numbers are often sent as text; "1" never meets True, whose text is "True"
        if isinstance(value, bool | int | float | str) and str(choice) == str(value):
            return Accepted(choice)
    return Refusal("value_not_in_list", f"is {describe(value)}, which is not among the choices", shown_choices(choices))


def _wrong_type(value: object, what: str) -> Refusal:
    return Refusal("invalid_input_type", f"is {describe(value)}, but has to be {what}")


def describe(value: object) -> str:
    """Say in words what a value is, short enough for a sentence."""
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(shown(value))
