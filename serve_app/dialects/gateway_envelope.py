"""The gateway's envelope: ``{code, message, data}`` around every answer below ``/api/v1``, whatever the answer was.

Routes wrap what they return. Everything else, from a field that is missing to a fault of ours, is a problem document by then, and is
translated here, outside of everything that could answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Generic, TypeVar

from pydantic import BaseModel, Field
from starlette.datastructures import Headers
from starlette.middleware import Middleware

from deployments.jobs import errors
from deployments.jobs.model import JsonObject
from serve_app.dialects import gateway_texts as texts
from serve_app.dialects.gateway_texts import Text
from serve_app.dialects.problem_translation import ProblemTranslation

PREFIX: Final = "/api/v1"
SCENARIOS: Final = f"{PREFIX}/scenarios"
SUBMIT: Final = f"{PREFIX}/workflows/submit"

BAD_REQUEST: Final = 400
MISSING: Final = 404
FAULT: Final = 500
UNREACHABLE: Final = 1001
WORKFLOW_INVALID: Final = 1002
FILE_FAILED: Final = 1003

# What is mapped where the HTTP status shall tell too.
STATUS_OF_CODE: Final[Mapping[int, int]] = {
    BAD_REQUEST: 400,
    MISSING: 404,
    FAULT: 500,
    UNREACHABLE: 502,
    WORKFLOW_INVALID: 400,
    FILE_FAILED: 500,
}

_ANSWER_OF_PROBLEM: Final[Mapping[str, tuple[int, Text]]] = {
    errors.BackendNotConfigured.code: (UNREACHABLE, texts.UNREACHABLE),
    errors.BackendUnavailable.code: (UNREACHABLE, texts.UNREACHABLE),
    errors.BackendLost.code: (UNREACHABLE, texts.UNREACHABLE),
    errors.ObjectInfoNeeded.code: (UNREACHABLE, texts.UNREACHABLE),  # of a graph that only a server can read
    errors.WorkflowInvalid.code: (WORKFLOW_INVALID, texts.WORKFLOW_INVALID),
    errors.WorkflowNotConvertible.code: (WORKFLOW_INVALID, texts.WORKFLOW_INVALID),
    errors.UnsupportedMedia.code: (FILE_FAILED, texts.FILE_FAILED),
    errors.MediaTypeMismatch.code: (FILE_FAILED, texts.FILE_FAILED),
    errors.UploadFailed.code: (FILE_FAILED, texts.FILE_FAILED),
    errors.JobNotFound.code: (MISSING, texts.NO_SUCH_PROMPT),
    errors.FileNotFound.code: (MISSING, texts.NO_SUCH_FILE),
    errors.WorkflowNotFound.code: (MISSING, texts.NO_SUCH_SCENARIO),
    errors.QueueFull.code: (FAULT, texts.QUEUE_FULL),
}

Data = TypeVar("Data")


class Envelope(BaseModel, Generic[Data]):
    """What every answer of the gateway is."""

    code: int = Field(
        200,
        description="200, or 400 (bad arguments), 404, 500, 1001 (ComfyUI unreachable), 1002 (workflow invalid), 1003 (file failed)",
    )
    message: str = Field(examples=["success"])
    data: Data | None = Field(None, description="null on an error")


def answer_of(problem: JsonObject, path: str) -> tuple[int, Text]:
    """Return the code and the message of a problem, before its details are said."""
    code, text = _ANSWER_OF_PROBLEM.get(problem["code"]) or _by_status(problem["status"])
    if path.startswith(SCENARIOS) and code == WORKFLOW_INVALID and not any(node["comfy_node"] for node in problem["nodes"]):
        return BAD_REQUEST, texts.INVALID  # a field of the request, not the template
    if path == SUBMIT and problem["code"] == errors.InvalidInput.code and not problem["errors"]:
        return WORKFLOW_INVALID, texts.WORKFLOW_INVALID  # the request was read: it is the graph that is none
    return code, text


def to_envelope(problem: JsonObject, path: str, headers: Headers) -> JsonObject:
    """Return the envelope of a problem. The Chinese messages are that service's own, to the letter; the English ones say more."""
    code, text = answer_of(problem, path)
    return {"code": code, "message": text.zh if texts.prefers_chinese(headers) else _with_detail(text.en, problem), "data": None}


def _by_status(status: int) -> tuple[int, Text]:
    if status == MISSING:
        return MISSING, texts.NOT_FOUND
    return (FAULT, texts.INTERNAL) if status >= FAULT else (BAD_REQUEST, texts.INVALID)


def _with_detail(text: str, problem: JsonObject) -> str:
    parts = [f"{error['pointer']}: {error['detail']}" for error in problem["errors"]]
    detail = "; ".join(parts) or str(problem["detail"])
    return detail if detail.startswith(text) else f"{text}: {detail}"


def envelope_answers(*, mapped: bool) -> Middleware:
    """Return the middleware that has every problem below ``/api/v1`` leave as an envelope.

    Args:
        mapped: the HTTP status follows the code, else it is always 200.
    """

    def translate(problem: JsonObject, path: str, headers: Headers) -> tuple[int, JsonObject]:
        envelope = to_envelope(problem, path, headers)
        return STATUS_OF_CODE[envelope["code"]] if mapped else 200, envelope

    return Middleware(ProblemTranslation, covers=_is_ours, translate=translate)


def _is_ours(path: str) -> bool:
    return path == PREFIX or path.startswith(f"{PREFIX}/")
