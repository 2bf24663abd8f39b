"""The OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse

from deployments.comfyui_bridge.catalogue import NamedWorkflow
from deployments.comfyui_bridge.desk import ComfyDesk
from deployments.jobs.errors import Unavailable
from deployments.jobs.model import JsonObject
from serve_app.api import files
from serve_app.api.dependencies import tenant_of
from serve_app.api.dialect import Dialect
from serve_app.api.errors import PROBLEM_MEDIA_TYPE, phrase_of
from serve_app.api.origins import PROBES, SAFE_METHODS
from serve_app.api.schemas import PreviewHeader
from serve_app.api.workflow_openapi import add_workflows

PATH = "/openapi.json"

DESCRIPTION = """\
Face swaps, ComfyUI workflows and other heavy media work as durable jobs. `POST /v1/jobs` answers 202 once the job is on disk; follow it by
`GET /v1/jobs/{id}/events` (server-sent events), by `GET /v1/jobs/{id}?wait=30`, or with several others by the WebSocket
`/v1/events?job_id=…&job_id=…` (without `job_id` it sends the events of all jobs, with `after=<event id>` it goes on where it stopped;
each text message is an `EventView`). With `previews=1` and `job_id` it sends pictures of running jobs too, as binary messages: four bytes,
the length of a header (big-endian); the header, a `PreviewHeader` as JSON; the picture. A picture that a reader is too slow for is left
out, an event never. With `ack=1` each picture comes after the client has answered the one before by a message, whatever it says: for
readers that may be slower than four pictures a second of each job.

Every workflow has an endpoint of its own with typed inputs, `POST /v1/workflows/<name>/run`.

Every error is an RFC 9457 problem document with a stable `code`.
"""

TAGS = [
    {"name": "jobs", "description": "Submit work, look at it, stop it, run it again."},
    {"name": "events", "description": "Hear of changes as they happen. Every state change arrives; of progress the newest."},
    {"name": "files", "description": "Inputs that you upload, outputs that you download."},
    {"name": "workflows", "description": "ComfyUI workflows: shipped with the installation or uploaded, each with its own typed endpoint."},
    {"name": "operations", "description": "Probes, figures, and what this installation can do."},
]


def install_openapi(app: FastAPI, dialects: Sequence[Dialect]) -> None:
    """Let the app describe itself: by :func:`build_document`, once, and at ``/openapi.json`` with the workflows that there are now."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = build_document(app, dialects)
        return app.openapi_schema

    async def serve(request: Request) -> JSONResponse:
        known = describe_workflows(document(), dialects, await _workflows(request.app.state.comfy, tenant_of(request)))
        root_path = request.scope.get("root_path", "").rstrip("/")
        return JSONResponse({"servers": [{"url": root_path}], **known} if root_path else known)

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
    app.add_route(PATH, serve, include_in_schema=False)


def describe_workflows(document: JsonObject, dialects: Iterable[Dialect], workflows: Sequence[NamedWorkflow]) -> JsonObject:
    """Return a document that has, besides everything else, what each workflow offers, here and in the dialects."""
    document = add_workflows(document, workflows)
    for dialect in dialects:
        document = dialect.describe(document, workflows)
    return document


async def _workflows(comfy: ComfyDesk | None, tenant: str) -> list[NamedWorkflow]:
    if comfy is None:
        return []
    try:
        return await comfy.workflows(tenant)
    except Unavailable:
        return await comfy.shipped_workflows()  # the documentation is there although the job store is not


def build_document(app: FastAPI, dialects: Sequence[Dialect] = ()) -> dict[str, Any]:
    """Return the OpenAPI document of an app, with problems under their own media type."""
    tags = [*TAGS, *(dict(dialect.tag) for dialect in dialects)]
    uploads = frozenset({files.PATH}).union(*(dialect.uploads for dialect in dialects))
    document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes, tags=tags)
    document["components"]["schemas"]["PreviewHeader"] = PreviewHeader.model_json_schema()  # of a WebSocket, which has no place in OpenAPI
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            found = {int(status_code): response for status_code, response in operation["responses"].items()}
            for status_code in {status_code for status_code in found if status_code >= 400} | _refusals(method.upper(), path, uploads):
                found[status_code] = _problem(status_code, method)
            operation["responses"] = {str(status_code): found[status_code] for status_code in sorted(found)}
    return document


def _refusals(method: str, path: str, uploads: frozenset[str]) -> set[int]:
    """Return the statuses that are answered before a request reaches its route, see origins.py and limits.py."""
    refusals = set() if path in PROBES else {421}
    if method not in SAFE_METHODS:
        refusals |= {403, 413} if path in uploads else {403, 411, 413}
    return refusals


def _problem(status_code: int, method: str) -> dict[str, Any]:
    content = {} if method == "head" else {"content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    return {"description": phrase_of(status_code), **content}
