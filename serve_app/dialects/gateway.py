"""Dialect C: a gateway to ComfyUI with scenarios, one envelope for every answer, and a WebSocket for each client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from deployments.comfyui_bridge.catalogue import NamedWorkflow
from deployments.comfyui_bridge.desk import ComfyDesk
from deployments.engines.comfyui.typed_inputs import typed_inputs
from deployments.jobs.errors import WorkflowNotFound
from deployments.jobs.model import FileRecord, Job, JobStatus
from serve_app.api.dependencies import Desk, LinksTo, Service, Tenant
from serve_app.api.dialect import Dialect
from serve_app.api.errors import documented
from serve_app.api.files import BYTES_DOCUMENTED, file_response, upload_form
from serve_app.api.multipart import read_file
from serve_app.api.requests import GRAPH_EXAMPLE, InputValues, JsonDocument
from serve_app.api.schemas import JOB_ID_EXAMPLE, View
from serve_app.dialects import gateway_socket
from serve_app.dialects import gateway_texts as texts
from serve_app.dialects.config import DialectsConfig
from serve_app.dialects.gateway_clients import Gateway, GatewayState, parse_client_id
from serve_app.dialects.gateway_envelope import PREFIX, Envelope, envelope_answers
from serve_app.dialects.gateway_openapi import describe_gateway
from serve_app.dialects.gateway_progress import history_of
from serve_app.dialects.gateway_texts import Text
from serve_app.dialects.pictures import find_picture, store_picture
from serve_app.dialects.queue_view import KIND, read_queue

TAG = {
    "name": "gateway (C)",
    "description": "ComfyUI as clients of the gateway know it: scenarios, and `{code, message, data}` around every answer.",
}
UPLOAD_PATH = f"{PREFIX}/images/upload"

Data = TypeVar("Data")

router = APIRouter(prefix=PREFIX, tags=[TAG["name"]], responses=documented(422))  # as envelopes, see gateway_openapi.py


class Submitted(View):
    """A prompt that was accepted."""

    prompt_id: str = Field(description="id of the job", examples=[JOB_ID_EXAMPLE])
    client_id: str = Field(description="whose WebSocket hears of it; made up where none was sent", examples=["my_client"])


class ScenarioSubmitted(Submitted):
    """A scenario that was accepted."""

    scenario: str = Field(examples=["cpu_quickly"])


@router.post("/scenarios/{scenario}", summary="Run a scenario")
async def run_scenario(
    scenario: Annotated[str, Path(max_length=100, examples=["text2img"])],
    body: Annotated[
        InputValues, Body(examples=[{"prompt": "a beautiful sunset over mountains", "negative_prompt": "blurry, low quality"}])
    ],
    gateway: Gateway,
    desk: Desk,
    service: Service,
    tenant: Tenant,
    request: Request,
) -> Envelope[ScenarioSubmitted]:
    """Run a workflow that is offered as a scenario, with its own typed fields and `client_id`; what it does not know is ignored."""
    workflow = await _scenario(desk, tenant, scenario)
    client_id = parse_client_id(body.get("client_id"))
    inputs = {name: value for name, value in body.items() if name in workflow.meta.parameters and value is not None}
    typed_inputs(workflow.meta, inputs, strict=True)
    job = await gateway.submit(service, desk, tenant, workflow.name, client_id, inputs)
    return _envelope(_message_of(workflow), ScenarioSubmitted(prompt_id=job.id, client_id=client_id, scenario=scenario), request)


async def _scenario(desk: ComfyDesk, tenant: str, name: str) -> NamedWorkflow:
    workflow = await desk.workflow(tenant, name)
    if workflow.meta.scenario is None:
        raise WorkflowNotFound(name)
    return workflow


def _message_of(workflow: NamedWorkflow) -> Text:
    scenario = workflow.meta.scenario
    chinese, english = (scenario.message, scenario.message_en) if scenario else ("", "")
    return Text(chinese or texts.SUCCESS.zh, english or texts.SUCCESS.en)


class SubmitRequest(BaseModel):
    """A workflow of the client's own."""

    model_config = ConfigDict(extra="ignore")

    workflow: JsonDocument = Field(description="graph in API or UI format", examples=[GRAPH_EXAMPLE])
    client_id: str | None = Field(None, description="whose WebSocket hears of it", examples=["my_client"])


@router.post("/workflows/submit", summary="Run a workflow")
async def submit_prompt(
    body: Annotated[SubmitRequest, Body()], gateway: Gateway, desk: Desk, service: Service, tenant: Tenant, request: Request
) -> Envelope[Submitted]:
    """Run a workflow; it is on disk when this answers, and 1001 while no ComfyUI server is there to run it."""
    client_id = parse_client_id(body.client_id)
    job = await gateway.submit(service, desk, tenant, body.workflow, client_id)
    return _envelope(texts.SUBMITTED, Submitted(prompt_id=job.id, client_id=client_id), request)


class HistoryEntry(View):
    """What a prompt has made."""

    prompt_id: str = Field(examples=[JOB_ID_EXAMPLE])
    outputs: dict[str, Any] = Field(description="by node, as ComfyUI's history; empty before the end")
    status: dict[str, Any] = Field(examples=[{"status_str": "success", "completed": True, "messages": []}])


@router.get("/workflows/{prompt_id}/history", summary="What a prompt has made")
async def read_prompt_history(
    prompt_id: Annotated[str, Path(examples=[JOB_ID_EXAMPLE])], service: Service, tenant: Tenant, request: Request
) -> Envelope[HistoryEntry]:
    """Read the outputs of a prompt, and how it is."""
    job = await service.get(prompt_id, tenant=tenant)
    return _envelope(texts.HISTORY_READ, HistoryEntry(**history_of(job)), request)


class InterruptBody(BaseModel):
    """Which prompt to stop."""

    model_config = ConfigDict(extra="ignore")

    prompt_id: str = Field(min_length=1, examples=[JOB_ID_EXAMPLE])


class Stopped(View):
    """A prompt that was told to stop."""

    prompt_id: str = Field(examples=[JOB_ID_EXAMPLE])


@router.post("/workflows/interrupt", summary="Stop a prompt")
async def interrupt_prompt(body: Annotated[InterruptBody, Body()], service: Service, tenant: Tenant, request: Request) -> Envelope[Stopped]:
    """Cancel a prompt, whether it waits or runs; one that has ended stays as it is."""
    job = await service.cancel(body.prompt_id, tenant=tenant)
    return _envelope(texts.SUCCESS, Stopped(prompt_id=job.id), request)


class QueuedPrompt(View):
    """A prompt in the queue."""

    prompt_id: str = Field(examples=[JOB_ID_EXAMPLE])
    number: int = Field(description="place in the queue, running ones first, from 0")
    timestamp: int = Field(description="when it was submitted, Unix seconds")


class QueueStatus(View):
    """The caller's queue."""

    queue_running: list[QueuedPrompt]
    queue_pending: list[QueuedPrompt]
    running_count: int
    pending_count: int


@router.get("/queue/status", summary="What runs and what waits")
async def read_queue_status(service: Service, tenant: Tenant, request: Request) -> Envelope[QueueStatus]:
    """List the caller's prompts, over all ComfyUI servers."""
    queue = await read_queue(service, tenant)
    status = QueueStatus(
        queue_running=_queued(queue.running, 0),
        queue_pending=_queued(queue.pending, len(queue.running)),
        running_count=queue.running_count,
        pending_count=queue.pending_count,
    )
    return _envelope(texts.QUEUE_READ, status, request)


def _queued(jobs: Iterable[Job], first: int) -> list[QueuedPrompt]:
    return [QueuedPrompt(prompt_id=job.id, number=n, timestamp=int(job.created_at)) for n, job in enumerate(jobs, start=first)]


class ClearBody(BaseModel):
    """Whether to clear."""

    model_config = ConfigDict(extra="ignore")

    clear: bool = Field(examples=[True])


class ClearedCount(View):
    """How many prompts were taken out."""

    cleared: int


@router.post("/queue/clear", summary="Empty the queue")
async def clear_queue(body: Annotated[ClearBody, Body()], service: Service, tenant: Tenant, request: Request) -> Envelope[ClearedCount]:
    """Cancel the caller's prompts that wait; those that run go on."""
    cleared = await service.cancel_all(KIND, JobStatus.QUEUED, tenant=tenant) if body.clear else ()
    return _envelope(texts.SUCCESS, ClearedCount(cleared=len(cleared)), request)


class UploadedImage(View):
    """A picture that was stored."""

    filename: str = Field(examples=["image.png"])
    name: str = Field(description="the same: what a LoadImage-like input takes", examples=["image.png"])
    local_path: str = Field(description="where ComfyUI has it, below its own folder", examples=["input/image.png"])


@router.post(
    "/images/upload",
    summary="Upload a picture",
    openapi_extra=upload_form(overwrite="`true` (default): the newest file of a name counts; `false`: a name that is taken gets a number"),
)
async def upload_image(request: Request, service: Service, tenant: Tenant) -> Envelope[UploadedImage]:
    """Store a picture that workflows may load by its name, whichever server runs them."""
    record = await store_picture(service, tenant, await read_file(request), overwrite=True)
    stored = UploadedImage(filename=record.name, name=record.name, local_path=f"input/{record.name}")
    return _envelope(texts.UPLOADED, stored, request)


async def _picture(
    filename: Annotated[str, Query(description="of a file", min_length=1, max_length=255, examples=["result.png"])],
    service: Service,
    tenant: Tenant,
    subfolder: Annotated[str, Query(description="ignored: names are unique", max_length=255)] = "",  # noqa: ARG001 -- a part of the contract
    img_type: Annotated[Literal["output", "input", "temp"], Query(description="input: uploads first")] = "output",
) -> FileRecord:
    return await find_picture(service, filename, tenant, uploads_first=img_type == "input")


Picture = Annotated[FileRecord, Depends(_picture)]


@router.get("/images/download", summary="Download a picture", response_class=Response, responses={200: BYTES_DOCUMENTED[200]})
async def download_image(picture: Picture, request: Request, service: Service) -> Response:
    """Send an output or an upload by its name."""
    return await file_response(picture, request.headers, service)


class ImageUrl(View):
    """Where to download a picture."""

    url: str
    filename: str = Field(examples=["result.png"])


@router.get("/images/url", summary="The address of a picture")
async def read_image_url(
    picture: Picture, filename: Annotated[str, Query(max_length=255)], links: LinksTo, request: Request
) -> Envelope[ImageUrl]:
    """Return an address that the client can reach: this service's, never a ComfyUI server's."""
    return _envelope(texts.URL_READ, ImageUrl(url=links.file(picture.id, picture), filename=filename), request)


def _envelope(text: Text, data: Data, request: Request) -> Envelope[Data]:
    return Envelope(message=text.said(request.headers), data=data)


def build_gateway(config: DialectsConfig) -> Dialect:
    """Return the dialect."""
    return Dialect(
        tag=TAG,
        routers=(router, gateway_socket.router),
        uploads=frozenset({UPLOAD_PATH}),
        outermost=(envelope_answers(mapped=config.gateway_http_status == "mapped"),),
        describe=describe_gateway,
        state={"gateway": GatewayState(config.patience_s)},
    )
