"""The realtime drawing service's API: send a sketch, read the newest picture of a session; the WebSocket is in ``drawing_socket``."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal, cast

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import Field
from starlette.requests import HTTPConnection

from deployments.comfyui_bridge.catalogue import NamedWorkflow
from deployments.drawing.desk import DrawingDesk, checked_session_id, new_session_id
from deployments.drawing.sketches import read
from deployments.engines.comfyui.sketch_place import PARAMETER
from deployments.engines.comfyui.workflow_file import ParameterSpec
from deployments.jobs.errors import InvalidInput, NotFound
from serve_app.api.dependencies import Service, Tenant
from serve_app.api.errors import documented
from serve_app.api.files import BYTES_DOCUMENTED, file_response, upload_form
from serve_app.api.multipart import read_file
from serve_app.api.schemas import View
from serve_app.dialects.pictures import read_whole

PATH: Final = "/api/sketch"
TAG = {"name": "drawing (D)", "description": "Sketches become pictures while they are drawn; the newest one counts."}

router = APIRouter(prefix="/api", tags=[TAG["name"]])


def drawing_desk(connection: HTTPConnection) -> DrawingDesk:
    """Return the desk.

    Raises:
        NotFound: this installation runs no workflows.
    """
    desk = cast("DrawingDesk | None", connection.app.state.drawing)
    if desk is None:
        raise NotFound("nobody draws here: this installation has no comfyui pool")
    return desk


Drawing = Annotated[DrawingDesk, Depends(drawing_desk)]
SessionId = Annotated[str, Path(description="as POST /api/sketch answered it", min_length=1, max_length=128, examples=["Zm9vYmFyYmF6cXV4"])]


class SketchAccepted(View):
    """A sketch waits for its turn, or computes."""

    session_id: str = Field(description="whoever knows it sees the session", examples=["Zm9vYmFyYmF6cXV4"])
    status: Literal["uploaded"] = "uploaded"
    message: str = "Sketch uploaded successfully"
    websocket_url: str = Field(examples=["/api/ws/Zm9vYmFyYmF6cXV4"])
    seq: int = Field(description="number of the sketch in its session", examples=[1])
    job_id: str | None = Field(description="of the job behind it; null when a sketch with a higher number is known")


class StyleView(View):
    """A style, and what may be set of it."""

    name: str = Field(examples=["watercolor"])
    title: str
    description: str
    parameters: dict[str, dict[str, Any]] = Field(description="type, default, minimum, maximum, choices and description by name")

    @classmethod
    def of(cls, style: NamedWorkflow) -> StyleView:
        """Show a style."""
        shown = {name: _shown(spec) for name, spec in style.meta.parameters.items() if name != PARAMETER}
        return cls(name=style.name, title=style.meta.title, description=style.meta.description, parameters=shown)


class StyleProblem(View):
    """A file of the folder that is no style."""

    file: str
    reason: str


class StyleList(View):
    """The styles of now."""

    styles: list[str] = Field(examples=[["anime", "realistic", "sketch", "watercolor"]])
    details: list[StyleView]
    problems: list[StyleProblem]


@router.post(
    "/sketch",
    summary="Send a sketch",
    responses=documented(400, 404, 413, 415, 422, 429, 503, 507),
    openapi_extra=upload_form(
        "file",
        "PNG, JPEG or WebP",
        style="default: realistic, or the first that there is",
        session_id="go on with a session; default: a new one",
        settings='JSON: what the style takes, such as {"prompt": "a cat", "seed": 7, "strength": 0.7}',
    ),
)
async def send_sketch(request: Request, desk: Drawing, tenant: Tenant) -> SketchAccepted:
    """Have a picture made of a sketch. A newer sketch of the session takes the place of one that waits."""
    incoming = await read_file(request)
    data = await read_whole(incoming.chunks, desk.limits.max_bytes)  # the fields are known once the file has been read
    given = incoming.fields.get("session_id", "").strip()
    session_id = checked_session_id(given) if given else new_session_id()
    sketch = await read(data, desk.limits)
    style = incoming.fields.get("style", "").strip() or None
    latest = await desk.submit(tenant, session_id, sketch, style, parse_settings(incoming.fields.get("settings", "")))
    job_id = latest.job.id if latest.job else None
    return SketchAccepted(session_id=session_id, websocket_url=f"/api/ws/{session_id}", seq=latest.seq, job_id=job_id)


@router.get("/styles", summary="Styles", responses=documented(404, 503))
async def list_styles(desk: Drawing) -> StyleList:
    """List the workflow files of the styles folder. A new one is there within two seconds."""
    shelf = await desk.shelf()
    return StyleList(
        styles=list(shelf.styles),
        details=[StyleView.of(style) for style in shelf.styles.values()],
        problems=[StyleProblem(file=problem.file, reason=problem.reason) for problem in shelf.problems],
    )


@router.get("/result/{session_id}", summary="The newest picture of a session", response_class=Response, responses=BYTES_DOCUMENTED)
async def read_result(session_id: SessionId, request: Request, desk: Drawing, service: Service, tenant: Tenant) -> Response:
    """Send the picture. 404 `no_result_yet` before the first one, `session_not_found` when nothing is known of the session."""
    response = await file_response(await desk.result(tenant, session_id), request.headers, service)
    response.headers["Cache-Control"] = "no-store"  # the same address shows another picture after the next stroke
    return response


def parse_settings(text: str) -> dict[str, Any]:
    """Read the settings of a form.

    Raises:
        InvalidInput: no JSON object.
    """
    try:
        settings = json.loads(text or "{}")
    except (json.JSONDecodeError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise InvalidInput('settings are a JSON object, such as {"prompt": "a cat", "seed": 7}')
    return settings


def _shown(spec: ParameterSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude_defaults=True, exclude={"bind"}) | {"type": spec.type}
