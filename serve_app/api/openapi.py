"""The OpenAPI document, and its snapshot: ``python -m serve_app.api.openapi`` writes ``docs/openapi.json`` anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse

from deployments.comfyui_bridge.catalogue import NamedWorkflow
from deployments.comfyui_bridge.desk import ComfyDesk
from deployments.engines.comfyui.workflow_file import load_workflow_folder
from deployments.jobs.errors import Unavailable
from serve_app.api.dependencies import tenant_of
from serve_app.api.errors import PROBLEM_MEDIA_TYPE, phrase_of
from serve_app.api.files import PATH as UPLOADS
from serve_app.api.origins import PROBES, SAFE_METHODS
from serve_app.api.schemas import PreviewHeader
from serve_app.api.workflow_openapi import add_workflows

PATH = "/openapi.json"
SNAPSHOT = Path("docs/openapi.json")
SHIPPED_WORKFLOWS = Path("workflows")

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


def install_openapi(app: FastAPI) -> None:
    """Let the app describe itself: by :func:`build_document`, once, and at ``/openapi.json`` with the workflows that there are now."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = build_document(app)
        return app.openapi_schema

    async def serve(request: Request) -> JSONResponse:
        known = add_workflows(document(), await _workflows(request.app.state.comfy, tenant_of(request)))
        root_path = request.scope.get("root_path", "").rstrip("/")
        return JSONResponse({"servers": [{"url": root_path}], **known} if root_path else known)

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
    app.add_route(PATH, serve, include_in_schema=False)


async def _workflows(comfy: ComfyDesk | None, tenant: str) -> list[NamedWorkflow]:
    if comfy is None:
        return []
    try:
        return await comfy.workflows(tenant)
    except Unavailable:
        return await comfy.shipped_workflows()  # the documentation is there although the job store is not


def build_document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of an app, with problems under their own media type."""
    document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes, tags=TAGS)
    document["components"]["schemas"]["PreviewHeader"] = PreviewHeader.model_json_schema()  # of a WebSocket, which has no place in OpenAPI
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            found = {int(status_code): response for status_code, response in operation["responses"].items()}
            for status_code in {status_code for status_code in found if status_code >= 400} | _refusals(method.upper(), path):
                found[status_code] = _problem(status_code, method)
            operation["responses"] = {str(status_code): found[status_code] for status_code in sorted(found)}
    return document


def _refusals(method: str, path: str) -> set[int]:
    """Return the statuses that are answered before a request reaches its route, see origins.py and limits.py."""
    refusals = set() if path in PROBES else {421}
    if method not in SAFE_METHODS:
        refusals |= {403, 413} if path == UPLOADS else {403, 411, 413}
    return refusals


def _problem(status_code: int, method: str) -> dict[str, Any]:
    content = {} if method == "head" else {"content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    return {"description": phrase_of(status_code), **content}


def to_text(document: dict[str, Any]) -> str:
    """Return the snapshot's text: one line a fact, so that a diff can be read."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def build_snapshot(workflows: Path = SHIPPED_WORKFLOWS) -> dict[str, Any]:
    """Return the document of the API as it is in the code, with the workflows of a folder.

    Raises:
        ValueError: a file of the folder cannot be read.
    """
    from serve_app.api.app import build_app  # app.py imports this module
    from serve_app.api.config import ApiConfig

    files, problems = load_workflow_folder(workflows)
    if problems:
        raise ValueError(f"{problems[0].file}: {problems[0].reason}")
    return add_workflows(build_app(ApiConfig()).openapi(), [NamedWorkflow(file.name, None, file.graph, file.meta) for file in files])


def write_snapshot(path: Path = SNAPSHOT) -> None:
    """Write the document anew."""
    path.write_text(to_text(build_snapshot()), encoding="utf-8")


if __name__ == "__main__":
    write_snapshot()
