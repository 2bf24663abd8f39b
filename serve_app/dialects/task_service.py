"""Dialect A: one queue for workflows and face swaps, whose clients submit a task and poll it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Body, Path
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from deployments.comfyui_bridge.catalogue import NamedWorkflow
from deployments.comfyui_bridge.desk import ComfyDesk
from deployments.jobs.media_url import to_reference
from deployments.jobs.model import Job, JobStatus, JsonObject
from deployments.jobs.spec import Resolution
from serve_app.api.dependencies import Config, Desk, LinksTo, MaybeDesk, Service, Tenant
from serve_app.api.dialect import Dialect
from serve_app.api.errors import documented
from serve_app.api.requests import GRAPH_EXAMPLE, InputValues, JsonDocument
from serve_app.api.schemas import JOB_ID_EXAMPLE, View
from serve_app.dialects.queue_view import KIND, QueueView, read_queue
from serve_app.dialects.servers_view import SystemStats
from serve_app.dialects.submits import FILE_SUFFIX, is_graph, plain_name, submit, workflow_request
from serve_app.dialects.task_figures import ServiceStatus, TaskStats
from serve_app.dialects.task_view import TaskAnswer, TaskView

TAG = {
    "name": "task service (A)",
    "description": "Tasks as clients of the unified task service know them: `/api/tasks/create` and polling.",
}

router = APIRouter(prefix="/api", tags=[TAG["name"]])

TaskId = Annotated[str, Path(description="id of a task", examples=[JOB_ID_EXAMPLE])]
MediaUrl = Annotated[str, Field(min_length=1, description="http(s) or data: URL", examples=["https://example.com/source_face.jpg"])]


class TaskOptions(BaseModel):
    """How a task is run. Fields that we do not know are ignored, as that service does."""

    model_config = ConfigDict(extra="ignore")

    priority: int | None = Field(None, description="-100 to 100, higher first")
    max_attempts: int | None = Field(None, ge=1, le=10, description="tries before a failure is final")
    max_retries: int | None = Field(None, ge=0, le=9, description="the same, not counting the first")

    def to_options(self) -> JsonObject:
        """Return the options of the job."""
        retries = None if self.max_retries is None else self.max_retries + 1
        found = {"priority": self.priority, "max_attempts": self.max_attempts or retries}
        return {name: value for name, value in found.items() if value is not None}


class InputData(BaseModel):
    """Values by input, or a graph of its own."""

    wf_json: JsonDocument = Field(default_factory=dict, examples=[{"prompt": "a beautiful landscape", "seed": 12345}])


class TaskParams(BaseModel):
    """Where the first form keeps its inputs."""

    input_data: InputData = InputData()


class TaskRequest(TaskOptions):
    """A workflow by name with inputs, in either form of that service."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"workflow": "text-to-image", "inputs": {"prompt": "cyberpunk city at night", "seed": 42}},
                {"workflow_name": "basic_generation", "params": {"input_data": {"wf_json": {"prompt": "a beautiful landscape"}}}},
            ]
        }
    )

    workflow: str | JsonDocument | None = Field(
        None,
        validation_alias=AliasChoices("workflow", "workflow_name"),
        description="name of a workflow (`workflow_name` says the same), or a graph",
        examples=["text-to-image"],
    )
    inputs: InputValues | None = Field(None, description="values by input", examples=[{"prompt": "cyberpunk city at night", "seed": 42}])
    params: TaskParams | None = Field(None, description="the other form: `input_data.wf_json` has the values, or is a graph itself")
    timeout: Annotated[float, Field(gt=0, description="longest running time, seconds")] | None = None

    @model_validator(mode="after")
    def _says_what_to_run(self) -> Self:
        if not self.workflow and not (self.params and is_graph(self.params.input_data.wf_json)):
            raise ValueError("name a workflow: workflow or workflow_name")
        return self

    def to_request(self) -> JsonObject:
        """Return the native request."""
        values = self.params.input_data.wf_json if self.params else {}
        if is_graph(values):
            return workflow_request(values, inputs=self.inputs, timeout_s=self.timeout, **self.to_options())
        assert self.workflow, "validated above"
        return workflow_request(self.workflow, inputs=values | (self.inputs or {}), timeout_s=self.timeout, **self.to_options())


class FaceSwapTask(TaskOptions):
    """A face swap by URLs."""

    source_url: MediaUrl
    target_url: Annotated[MediaUrl, Field(examples=["https://example.com/target_video.mp4"])]
    resolution: Resolution | None = None
    media_type: Literal["image", "video"] | None = Field(None, description="what the target is; another kind is an error")

    def to_request(self) -> JsonObject:
        """Return the native request."""
        target = to_reference(self.target_url, f"{self.media_type}/*" if self.media_type else None)
        output = {"resolution": self.resolution} if self.resolution else {}
        return {"kind": "faceswap", "source": to_reference(self.source_url), "target": target, "output": output, **self.to_options()}


@router.post("/faceswap/create", summary="Submit a face swap", responses=documented(400, 422, 429, 503, 507))
async def create_face_swap_task(request: Annotated[FaceSwapTask, Body()], service: Service, tenant: Tenant, links: LinksTo) -> TaskAnswer:
    """Accept a face swap; it is on disk when this answers."""
    return _accepted(await submit(service, tenant, request.to_request()), links)


@router.post("/tasks/create", summary="Submit a workflow", responses=documented(400, 404, 422, 429, 503, 507))
async def create_task(request: Annotated[TaskRequest, Body()], service: Service, tenant: Tenant, links: LinksTo) -> TaskAnswer:
    """Accept a workflow; it is on disk when this answers. Without a ComfyUI server that answers it waits."""
    return _accepted(await submit(service, tenant, request.to_request()), links)


def _accepted(job: Job, links: LinksTo) -> TaskAnswer:
    return TaskAnswer.of(job, links, message="task created")


@router.get("/tasks/{task_id}", summary="Read a task", responses=documented(404, 422, 503))
async def read_task_state(task_id: TaskId, service: Service, tenant: Tenant, links: LinksTo) -> TaskView:
    """Read a task: state, progress, result URLs, error, times and attempts."""
    return TaskView.of(await service.get(task_id, tenant=tenant), links)


@router.get("/stats", summary="Counts, times and rates", responses=documented(503))
async def read_task_stats(service: Service, tenant: Tenant) -> TaskStats:
    """Count the caller's tasks; percentiles are over the newest ended ones."""
    return TaskStats.of(await service.stats(tenant=tenant, sessions=False))


@router.get("/comfyui-queue-status", summary="What runs and what waits", responses=documented(503))
async def read_comfyui_queue(service: Service, tenant: Tenant) -> QueueView:
    """List the caller's workflows, over all ComfyUI servers."""
    return QueueView.of(await read_queue(service, tenant))


@router.get("/comfyui-system-stats", summary="What the ComfyUI servers say of themselves", responses=documented(404, 503))
async def read_comfyui_system_stats(desk: Desk) -> SystemStats:
    """Ask all servers; one that does not answer says so in `error`."""
    return SystemStats.of(await desk.servers.system_stats())


class InterruptRequest(BaseModel):
    """Which task to interrupt; all that run without it."""

    task_id: str | None = Field(None, validation_alias=AliasChoices("task_id", "prompt_id"), examples=[JOB_ID_EXAMPLE])


class Interrupted(View):
    """What was told to stop."""

    message: str
    interrupted: list[str]
    count: int


@router.post("/comfyui-interrupt", summary="Stop what ComfyUI runs now", responses=documented(400, 404, 422, 503))
async def interrupt_comfyui(service: Service, tenant: Tenant, request: Annotated[InterruptRequest | None, Body()] = None) -> Interrupted:
    """Cancel the caller's workflows that run, over all servers; they end as CANCELLED within seconds."""
    if request is not None and request.task_id:
        stopped: tuple[str, ...] = ((await service.cancel(request.task_id, tenant=tenant)).id,)
    else:
        stopped = await service.cancel_all(KIND, JobStatus.RUNNING, tenant=tenant)
    return Interrupted(message=f"{len(stopped)} interrupted", interrupted=list(stopped), count=len(stopped))


@router.get("/status", summary="The state of every part", responses=documented(503))
async def read_service_status(service: Service, tenant: Tenant, desk: MaybeDesk, config: Config) -> ServiceStatus:
    """Describe the parts: job store, ComfyUI servers, pools of workers, engines."""
    stats, capabilities = await service.stats(tenant=tenant, sessions=False), await service.capabilities()
    backends = await desk.backend_infos() if desk is not None else ()
    return ServiceStatus.of(stats, backends, list(dict.fromkeys(engine.name for engine in capabilities.engines)), config.version)


class Registration(BaseModel):
    """A workflow under a name, with the inputs that its tasks take."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(examples=["my-inverter"])
    workflow: JsonDocument = Field(description="graph in API or UI format", examples=[GRAPH_EXAMPLE])
    inputs: list[str] | dict[str, str | None] = Field(
        default_factory=list,
        description="names, each bound to the first input of that name (`prompt` to the sampler's positive text); "
        "or names with the place `<node id or title>.<input>` of each",
        examples=[{"image": "1.image"}],
    )
    title: Annotated[str, Field(max_length=200)] = ""
    description: Annotated[str, Field(max_length=4000)] = ""


class RegisteredInput(View):
    """An input of a registered workflow."""

    name: str = Field(examples=["prompt"])
    type: str = Field(examples=["string"])
    places: list[str] = Field(examples=[["6.text"]])


class RegisteredWorkflow(View):
    """A workflow as it was registered."""

    name: str
    filename: str = Field(description="as GET /api/workflow/{filename} takes it")
    version: int | None
    inputs: list[RegisteredInput]
    message: str

    @classmethod
    def of(cls, workflow: NamedWorkflow) -> Self:
        """Show a workflow."""
        inputs = [RegisteredInput(name=name, type=spec.type, places=list(spec.bind)) for name, spec in workflow.meta.parameters.items()]
        filename = workflow.name + FILE_SUFFIX
        return cls(name=workflow.name, filename=filename, version=workflow.version, inputs=inputs, message="workflow registered")


@router.post("/workflows", summary="Register a workflow", responses=documented(400, 404, 409, 422, 503))
async def register_workflow(request: Annotated[Registration, Body()], desk: Desk, tenant: Tenant) -> RegisteredWorkflow:
    """Store a workflow under a name that tasks may use; again under the same name makes a new version."""
    return RegisteredWorkflow.of(await _register(desk, tenant, request))


async def _register(desk: ComfyDesk, tenant: str, request: Registration) -> NamedWorkflow:
    inputs = request.inputs if isinstance(request.inputs, dict) else dict.fromkeys(request.inputs)
    return await desk.register_workflow(tenant, plain_name(request.name), request.workflow, inputs, request.title, request.description)


DIALECT = Dialect(tag=TAG, routers=(router,))
