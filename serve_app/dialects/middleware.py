"""Dialect B: a middleware before ComfyUI whose clients submit workflows with single inputs changed, and follow them on ``/ws``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response, WebSocket, status
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.websockets import WebSocketState

from deployments.comfyui_bridge.catalogue import NamedWorkflow
from deployments.comfyui_bridge.desk import ComfyDesk
from deployments.engines.comfyui.graph import read_workflow
from deployments.engines.comfyui.parameters import Parameter
from deployments.jobs.errors import JobNotFound, ObjectInfoNeeded
from deployments.jobs.events import EventId
from deployments.jobs.feed import Subscription
from deployments.jobs.model import JobQuery, JobStatus, JsonObject
from deployments.jobs.service import JobService
from serve_app.api.dependencies import Desk, LinksTo, Service, Tenant
from serve_app.api.dialect import Dialect
from serve_app.api.errors import documented
from serve_app.api.files import BYTES_DOCUMENTED, file_response, upload_form
from serve_app.api.links import Links
from serve_app.api.multipart import read_file
from serve_app.api.requests import GRAPH_EXAMPLE, JsonDocument, OverrideValues
from serve_app.api.schemas import JOB_ID_EXAMPLE, View
from serve_app.api.sockets import converse, receive_text
from serve_app.dialects import comfy_functions
from serve_app.dialects.pictures import PictureName, find_picture, read_whole
from serve_app.dialects.queue_view import KIND, QueueView, read_queue
from serve_app.dialects.saved_workflows import MAX_FILE_BYTES, SavedAnswer, SavedWorkflows, WorkflowDetail, name_of_file
from serve_app.dialects.submits import is_graph, plain_name, submit, workflow_request
from serve_app.dialects.task_view import Limit, Offset, TaskAnswer, TaskPage, TaskUpdate, TaskView

TAG = {
    "name": "middleware (B)",
    "description": "Workflows as clients of the ComfyUI middleware know them; changes of tasks come by the WebSocket `/ws`.",
}
UPLOAD_PATH = "/api/workflow/upload"
LONGEST_TITLE = 200
PING = '"ping"'  # {"type": "ping"}, however it is spaced

router = APIRouter(prefix="/api", tags=[TAG["name"]])
socket = APIRouter()

FileName = Annotated[str, Path(description="of a saved workflow, with or without .json", max_length=100, examples=["text-to-image.json"])]
PromptId = Annotated[str, Path(description="id of a task", examples=[JOB_ID_EXAMPLE])]


class Submit(BaseModel):
    """A workflow with some inputs changed. Fields that we do not know are ignored, as that service does."""

    model_config = ConfigDict(extra="ignore")

    workflow: Annotated[str, Field(min_length=1, max_length=100)] | JsonDocument = Field(
        description="graph in API or UI format, or the name of a saved one", examples=[GRAPH_EXAMPLE]
    )
    params: OverrideValues | None = Field(
        None, description="values by `<node id>.<input name>`; a seed of -1 is random", examples=[{"3.filename_prefix": "negative"}]
    )
    timeout: Annotated[float, Field(gt=0, description="longest running time, seconds; a task past it ends FAILED")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare_workflow(cls, value: Any) -> Any:  # noqa: ANN401 -- a before-validator sees whatever the client sent
        if not isinstance(value, dict):
            return value
        named = value.get("workflow")
        is_wrapped = isinstance(named, str) or (isinstance(named, dict) and "class_type" not in named)  # else a node with that id
        return {"workflow": value} if not is_wrapped and is_graph(value) else value

    def to_request(self) -> JsonObject:
        """Return the native request."""
        return workflow_request(self.workflow, overrides=self.params, timeout_s=self.timeout)


@router.get("/queue", summary="What runs and what waits", responses=documented(503))
async def read_task_queue(service: Service, tenant: Tenant) -> QueueView:
    """List the caller's workflows, over all ComfyUI servers."""
    return QueueView.of(await read_queue(service, tenant))


class Cleared(View):
    """What was taken out of the queue."""

    message: str
    cleared: int
    task_ids: list[str]


@router.post("/queue/clear", summary="Empty the queue", responses=documented(503))
async def clear_task_queue(service: Service, tenant: Tenant) -> Cleared:
    """Cancel the caller's workflows that wait; those that run go on."""
    cancelled = await service.cancel_all(KIND, JobStatus.QUEUED, tenant=tenant)
    return Cleared(message=f"{len(cancelled)} cleared", cleared=len(cancelled), task_ids=list(cancelled))


@router.post("/workflow/submit", summary="Run a workflow", responses=documented(400, 404, 422, 429, 503, 507))
async def submit_workflow(request: Annotated[Submit, Body()], service: Service, tenant: Tenant, links: LinksTo) -> TaskAnswer:
    """Accept a workflow; it is on disk when this answers. The body may also be a bare workflow, in either format."""
    return TaskAnswer.of(await submit(service, tenant, request.to_request()), links, message="workflow submitted")


@router.post(
    "/workflow/upload",
    summary="Save a workflow file",
    responses=documented(400, 404, 409, 415, 422, 503),
    openapi_extra=upload_form(description="a workflow as JSON, or a picture that ComfyUI saved with its workflow"),
)
async def upload_workflow(request: Request, desk: Desk, tenant: Tenant) -> SavedAnswer:
    """Save a workflow under the name of its file; again under the same name makes a new version."""
    incoming = await read_file(request)
    document = read_workflow(await read_whole(incoming.chunks, MAX_FILE_BYTES))
    workflow = await desk.put_workflow(tenant, name_of_file(incoming.name), document, {"title": incoming.name[:LONGEST_TITLE]})
    return SavedAnswer.with_parameters(workflow, await _parameters(desk, workflow), message="workflow saved")


@router.get("/workflows", summary="List saved workflows", responses=documented(404, 503))
async def list_saved_workflows(desk: Desk, tenant: Tenant) -> SavedWorkflows:
    """List shipped and uploaded workflows."""
    return SavedWorkflows.of(await desk.workflows(tenant))


@router.get("/workflow/{filename}", summary="Read a workflow and its parameters", responses=documented(404, 422, 503))
async def read_saved_workflow(filename: FileName, desk: Desk, tenant: Tenant) -> WorkflowDetail:
    """Read a saved workflow; its parameters are found in it, with the ranges and choices of a backend."""
    workflow = await desk.workflow(tenant, plain_name(filename))
    return WorkflowDetail.with_parameters(workflow, await _parameters(desk, workflow))


class WorkflowUpdate(BaseModel):
    """Other values for inputs of a saved workflow."""

    model_config = ConfigDict(extra="ignore")

    filename: str = Field(max_length=100, examples=["my-inverter.json"])
    params: OverrideValues = Field(description="values by `<node id>.<input name>`", examples=[{"3.filename_prefix": "negative"}])


@router.post("/workflow/update", summary="Change parameters of a saved workflow", responses=documented(400, 404, 409, 422, 503))
async def update_workflow(request: Annotated[WorkflowUpdate, Body()], desk: Desk, tenant: Tenant) -> SavedAnswer:
    """Save a new version with other values. A seed of -1 stays random. Shipped workflows stay as they are (409)."""
    workflow = await desk.update_workflow(tenant, plain_name(request.filename), request.params)
    return SavedAnswer.with_parameters(workflow, await _parameters(desk, workflow), message="workflow updated")


async def _parameters(desk: ComfyDesk, workflow: NamedWorkflow) -> tuple[Parameter, ...]:
    """Find the parameters; none in a UI-format workflow while no backend can describe its nodes."""
    with contextlib.suppress(ObjectInfoNeeded):
        return await desk.parameters_of(workflow.graph)
    return ()


@router.get("/task/{task_id}", summary="Read a task", responses=documented(404, 422, 503))
async def read_task(task_id: PromptId, service: Service, tenant: Tenant, links: LinksTo) -> TaskView:
    """Read a task: state, progress, outputs, error."""
    return TaskView.of(await service.get(task_id, tenant=tenant), links)


@router.post("/interrupt/{prompt_id}", summary="Interrupt a task", responses=documented(404, 422, 503))
async def interrupt_task(prompt_id: PromptId, service: Service, tenant: Tenant, links: LinksTo) -> TaskAnswer:
    """Cancel a task: at once when it waits, within seconds when it runs, no change when it has ended."""
    return TaskAnswer.of(await service.cancel(prompt_id, tenant=tenant), links, message="task interrupted")


class History(TaskPage):
    """Workflows that have ended, newest first."""

    history: list[TaskView]


@router.get("/history", summary="What has ended, with results", responses=documented(422, 503))
async def read_task_history(service: Service, tenant: Tenant, links: LinksTo, limit: Limit = 100, offset: Offset = 0) -> History:
    """List the caller's ended workflows with their outputs."""
    query = JobQuery(tenant, kind=KIND, limit=limit, offset=offset, count=True, ended=True)
    page = await service.list_jobs(query)
    return History(history=[TaskView.of(job, links) for job in page.jobs], total=page.total or 0, limit=limit, offset=offset)


@router.get("/image/{filename}", summary="A generated picture", response_class=Response, responses=BYTES_DOCUMENTED)
async def read_image(filename: PictureName, request: Request, service: Service, tenant: Tenant) -> Response:
    """Send a file by its name, which is looked up and never a path."""
    return await file_response(await find_picture(service, filename, tenant), request.headers, service)


async def _all_tasks(
    service: Service, tenant: Tenant, after: Annotated[str | None, Query(description="go on after this event_id")] = None
) -> AsyncIterator[Subscription]:
    async with service.subscribe(None, EventId.parse(after) if after else None, tenant=tenant) as subscription:
        yield subscription


@socket.websocket("/ws")
async def follow_tasks(
    websocket: WebSocket, subscription: Annotated[Subscription, Depends(_all_tasks)], service: Service, tenant: Tenant, links: LinksTo
) -> None:
    """Send a `task_update` for every change of every task of the caller; a client that says `ping` hears `pong`."""
    await websocket.accept()
    await converse(_tell(websocket, subscription, service, tenant, links), _listen(websocket))
    if websocket.client_state is WebSocketState.CONNECTED:
        await websocket.close(status.WS_1012_SERVICE_RESTART)  # the feed was closed: clients come back by themselves


async def _tell(websocket: WebSocket, subscription: Subscription, service: JobService, tenant: str, links: Links) -> None:
    async for event in subscription:
        if event.coalesce_key is not None:
            continue  # a sketch: its client hears of it, and there are several a second
        update = TaskUpdate.of(event).model_dump(mode="json")
        if event.terminal:
            update = await _whole(event.job_id, service, tenant, links) | update
        await websocket.send_json(update)


async def _whole(job_id: str, service: JobService, tenant: str, links: Links) -> JsonObject:
    with contextlib.suppress(JobNotFound):  # deleted since
        return TaskView.of(await service.get(job_id, tenant=tenant), links).model_dump(mode="json", exclude={"type"})
    return {}


async def _listen(websocket: WebSocket) -> None:
    # Nobody else reads, and an unread disconnect would keep the subscription for ever.
    while True:
        if PING in await receive_text(websocket):
            await websocket.send_json({"type": "pong"})


DIALECT = Dialect(
    tag=TAG, routers=(router, comfy_functions.router, socket), uploads=frozenset({UPLOAD_PATH, *comfy_functions.UPLOAD_PATHS})
)
