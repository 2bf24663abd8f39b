"""Every error becomes one RFC 9457 problem document, here and nowhere else. Routes contain no ``try``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, WebSocket, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.routing import compile_path
from starlette.websockets import WebSocketState

from deployments.jobs.errors import (
    Conflict,
    DiskFull,
    InvalidInput,
    JobTimedOut,
    LinkRefused,
    MediaTooLarge,
    NodeProblem,
    NotFound,
    QueueFull,
    ServiceError,
    Unavailable,
    UnsupportedMedia,
    WorkflowInvalid,
)
from deployments.jobs.logs import fields, get_logger

log = get_logger(__name__)

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 2  # about the time that the job store needs to come back
RENAMED: Final = {413: "Content Too Large", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}  # as of Python 3.13
MAX_ERRORS_SHOWN: Final = 20
MAX_NODES_SHOWN: Final = 50
UNKNOWN_KIND: Final = "unknown_kind"  # type of the error about a job's kind
TAKES_INPUTS: Final = re.compile(r"/v1/(jobs|workflows/[^/]+/run)")  # paths whose body has the typed inputs of a workflow
OF_OVERRIDES: Final = frozenset({"unknown_place", "unknown_node"})  # kinds of problems of a place that an override names
CLIENT_CLOSED_REQUEST: Final = 499  # nginx' number for a client that left; nobody reads the answer

STATUS_BY_ERROR: Final[Mapping[type[ServiceError], int]] = {  # the nearest base class decides
    ServiceError: 500,
    InvalidInput: 422,
    UnsupportedMedia: 415,
    MediaTooLarge: 413,
    LinkRefused: 403,
    NotFound: 404,
    Conflict: 409,
    QueueFull: 429,
    Unavailable: 503,
    JobTimedOut: 504,
    DiskFull: 507,
}


class FieldProblem(BaseModel):
    """What is wrong with one part of the request."""

    pointer: str = Field(description="JSON pointer (RFC 6901) into the body, or the name of a parameter", examples=["/target/url"])
    detail: str = Field(examples=["String should match pattern '^https?://'"])


class NodeProblemView(BaseModel):
    """What is wrong with one input of one node of a workflow."""

    model_config = ConfigDict(from_attributes=True)

    comfy_node: str = Field(description="id in the API graph; empty when it is about the whole graph or a parameter", examples=["3"])
    title: str = Field(examples=["KSampler"])
    input: str = Field(description="of the node, or the name of a parameter; empty when it is about the node", examples=["sampler_name"])
    kind: str = Field(description="ComfyUI's own name for it, where it has one", examples=["value_not_in_list"])
    message: str
    received: Any = Field(None, description="the value that was sent, cut short", examples=["eulr"])
    allowed: Any = Field(None, description='a list of choices, cut short, or {"min", "max"}', examples=[["euler", "euler_ancestral"]])


class Problem(BaseModel):
    """RFC 9457 problem details with a stable code."""

    type: str = Field(description="URN of the code", examples=["urn:atelier:problem:job_not_found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(
        description="one sentence for people: says what to do", examples=["there is no job 5d1c1f0e-58c2-4d0a-9f8b-0d8a7a4c9b11"]
    )
    code: str = Field(description="stable, for programs", examples=["job_not_found"])
    retryable: bool = Field(False, description="whether the same request may succeed later")
    errors: list[FieldProblem] = Field(default_factory=list, description="where the request is wrong; empty when it is not about a part")
    nodes: list[NodeProblemView] = Field(default_factory=list, description="what is wrong with a workflow (`workflow_invalid`), else empty")


def problem_response(
    status_code: int,
    detail: str,
    code: str,
    *,
    retryable: bool = False,
    errors: Sequence[FieldProblem] = (),
    nodes: Sequence[NodeProblem] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Build the response of a problem."""
    return _respond(_problem(status_code, detail, code, retryable=retryable, errors=errors, nodes=nodes), headers)


def problem_of(error: ServiceError, path: str) -> Problem:
    """Return the problem of an error that a request to ``path`` met."""
    return _problem(
        status_of(error),
        str(error) or error.code,
        error.code,
        retryable=error.retryable,
        errors=_wrong_inputs(error, path),
        nodes=error.problems[:MAX_NODES_SHOWN] if isinstance(error, WorkflowInvalid) else (),
    )


def _problem(
    status_code: int, detail: str, code: str, *, retryable: bool, errors: Sequence[FieldProblem], nodes: Sequence[NodeProblem]
) -> Problem:
    return Problem(
        type=f"urn:atelier:problem:{code}",
        title=phrase_of(status_code),
        status=status_code,
        detail=detail,
        code=code,
        retryable=retryable,
        errors=list(errors),
        nodes=[NodeProblemView.model_validate(node) for node in nodes],
    )


def _respond(problem: Problem, headers: Mapping[str, str] | None) -> Response:
    # ASCII: what a client sent comes back here, and half of a surrogate pair has no UTF-8.
    return Response(json.dumps(problem.model_dump()), problem.status, headers, PROBLEM_MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route that may answer with problems of these statuses."""
    return {code: {"model": Problem, "description": phrase_of(code)} for code in statuses}


def install_error_handlers(app: FastAPI) -> None:
    """Let every error of the app leave as a problem."""
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_client_gone)
    app.add_exception_handler(Exception, _on_fault)


def phrase_of(status_code: int) -> str:
    """Return the reason phrase of RFC 9110, whatever this Python calls it."""
    return RENAMED.get(status_code) or HTTPStatus(status_code).phrase


def status_of(error: ServiceError) -> int:
    """Return the HTTP status of an error: that of its nearest base class in the table."""
    return next(STATUS_BY_ERROR[cls] for cls in type(error).__mro__ if cls in STATUS_BY_ERROR)


def path_of(connection: HTTPConnection) -> str:
    """Return the path of a request below whatever a proxy put before it."""
    path: str = connection.scope["path"]
    return path.removeprefix(connection.scope.get("root_path", ""))


# Starlette types a handler's second argument as Exception; each handler below gets only what it is registered for.


async def _on_service_error(connection: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    headers: dict[str, str] = {}
    if isinstance(error, QueueFull):
        headers["Retry-After"] = str(error.retry_after_s)
    elif isinstance(error, Unavailable):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    response = _respond(problem_of(error, path_of(connection)), headers)
    if isinstance(connection, WebSocket):
        await _refuse(connection, response, error)
    return response


def _wrong_inputs(error: ServiceError, path: str) -> list[FieldProblem]:
    """Return where in the body the typed inputs are wrong that a workflow does not take; what is wrong with a node is told as such."""
    if not isinstance(error, WorkflowInvalid) or not TAKES_INPUTS.fullmatch(path):
        return []
    wrong = [problem for problem in error.problems if problem.input and not problem.comfy_node and problem.kind not in OF_OVERRIDES]
    return [FieldProblem(pointer=to_pointer(["inputs", problem.input]), detail=problem.message) for problem in wrong[:MAX_ERRORS_SHOWN]]


async def _refuse(websocket: WebSocket, response: Response, error: ServiceError) -> None:
    before_accept = websocket.application_state is WebSocketState.CONNECTING
    if before_accept and "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(response)
        return
    code = status.WS_1013_TRY_AGAIN_LATER if error.retryable else status.WS_1008_POLICY_VIOLATION
    await websocket.close(code, reason=error.code)


async def _on_invalid_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        reason = found[0].get("ctx", {}).get("error", "not JSON")
        return problem_response(400, f"the body is not valid JSON: {reason}", "malformed_json")
    shown = (_to_field_problem(item, error.body) for item in found[:MAX_ERRORS_SHOWN])
    problems = list({(p.pointer, p.detail): p for p in shown}.values())
    return problem_response(422, "the request is not valid: see errors", InvalidInput.code, errors=problems)


def _to_field_problem(item: Mapping[str, Any], body: Any) -> FieldProblem:  # noqa: ANN401 -- a body is any JSON value
    place, *path = item["loc"]
    if place != "body":
        return FieldProblem(pointer=".".join(str(part) for part in path) or str(place), detail=item["msg"])
    return FieldProblem(pointer=pointer_to({**item, "loc": path}, body), detail=item["msg"])


def pointer_to(item: Mapping[str, Any], body: Any) -> str:  # noqa: ANN401 -- a body is any JSON value
    """Return the RFC 6901 pointer of a pydantic error, without the names of union members that its location contains.

    Args:
        item: of ``ValidationError.errors()``.
        body: what was validated.
    """
    path, missing = item["loc"], item["type"] == "missing"
    if item["type"] == UNKNOWN_KIND:
        return to_pointer([*path, "kind"])
    parts: list[str | int] = []
    for index, part in enumerate(path):
        is_there = part in body if isinstance(body, dict) else isinstance(body, list) and part in range(len(body))
        if is_there:
            body = body[part]
        elif not (missing and index == len(path) - 1):
            continue
        parts.append(part)
    return to_pointer(parts)


def to_pointer(parts: Sequence[str | int]) -> str:
    """Return the RFC 6901 pointer of a path."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code < 400:
        return Response(status_code=error.status_code, headers=error.headers)
    phrase = phrase_of(error.status_code)
    code = MediaTooLarge.code if error.status_code == 413 else phrase.lower().replace(" ", "_").replace("-", "_")
    is_said = error.detail != HTTPStatus(error.status_code).phrase
    detail = error.detail if is_said else f"{phrase.lower()}: see /docs for what there is"
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = _allowed_methods(request) or headers.get("Allow", "")
    return problem_response(error.status_code, detail, code, headers=headers)


def _allowed_methods(request: Request) -> str:
    # Starlette names the methods of the first route that fits the path only; RFC 9110 wants all of them.
    path = path_of(request)
    documented_paths = request.app.openapi()["paths"].items()
    found = {method.upper() for template, methods in documented_paths if compile_path(template)[0].match(path) for method in methods}
    return ", ".join(sorted(found))


async def _on_client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _on_fault(_: Request, error: Exception) -> Response:
    return fault_response(error)


def fault_response(error: Exception) -> Response:
    """Return the problem of an error that nobody raised on purpose; the log gets the details, the client none."""
    log.error("request broke", exc_info=error, extra=fields(action="request_broke"))
    return problem_response(500, "a fault of ours: the log has the details", ServiceError.code)
