"""A job as the task service (A) and the middleware (B) show it: one object with the fields of both, see ``docs/api.md``."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from fastapi import Query
from pydantic import BaseModel, Field

from deployments.jobs.errors import InvalidInput
from deployments.jobs.events import JobEvent
from deployments.jobs.model import Artifact, AttemptRecord, Job, JobQuery, JobStatus, JsonObject, Progress
from serve_app.api.links import Links
from serve_app.api.schemas import JOB_ID_EXAMPLE, View
from serve_app.dialects.pictures import file_name_of

MAX_PAGE = 500


class TaskStatus(StrEnum):
    """The states of a task, in the words of the task service."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


STATUS_OF = {
    JobStatus.QUEUED: TaskStatus.PENDING,
    JobStatus.RUNNING: TaskStatus.PROCESSING,
    JobStatus.SUCCEEDED: TaskStatus.COMPLETED,
    JobStatus.FAILED: TaskStatus.FAILED,
    JobStatus.CANCELLED: TaskStatus.CANCELLED,
}


def parse_status(text: str) -> JobStatus:
    """Read a state in either vocabulary, in any case.

    Raises:
        InvalidInput: it is none.
    """
    named: dict[str, JobStatus] = {str(task): job for job, task in STATUS_OF.items()} | {str(job).upper(): job for job in JobStatus}
    found = named.get(text.upper())
    if found is None:
        raise InvalidInput(f"a status is one of {', '.join(TaskStatus)}")
    return found


class ProgressDetail(View):
    """What a running task is doing."""

    stage: str = Field(examples=["computing"])
    frame: int | None
    frames: int | None
    eta_s: float | None
    message: str | None
    node: str | None = Field(description="of a workflow: id of the node that runs", examples=["3"])
    node_title: str | None
    step: int | None
    steps: int | None

    @classmethod
    def of(cls, progress: Progress) -> Self:
        """Show the progress of a job."""
        shown = {name: getattr(progress, name) for name in cls.model_fields if not name.startswith("node")}
        return cls(**shown, node=progress.comfy_node, node_title=progress.comfy_node_title)


class TaskOutput(View):
    """One result."""

    filename: str = Field(description="unique; what GET /api/image/{filename} takes", examples=[f"{JOB_ID_EXAMPLE}_9_1.png"])
    url: str = Field(description="where to download it")
    media_type: str = Field(examples=["image/png"])
    type: Literal["output", "temp"]
    subfolder: str = Field("", description="always empty: names are unique")
    node_id: str | None = Field(description="of a workflow: id of the node that made it", examples=["9"])
    size_bytes: int
    width: int | None
    height: int | None
    duration_s: float | None

    @classmethod
    def of(cls, job: Job, artifact: Artifact, links: Links) -> Self:
        """Show an output of a job."""
        same = {name: getattr(artifact, name) for name in ("media_type", "size_bytes", "width", "height", "duration_s")}
        return cls(
            **same,
            filename=file_name_of(job.id, artifact),
            url=links.file(artifact.file_id, artifact),
            type="temp" if artifact.temporary else "output",
            node_id=artifact.comfy_node,
        )


class TaskAttempt(View):
    """How one attempt ended."""

    attempt: int
    started_at: datetime
    ended_at: datetime
    outcome: str = Field(examples=["worker_lost"])
    message: str | None

    @classmethod
    def of(cls, record: AttemptRecord) -> Self:
        """Show an attempt."""
        return cls.model_validate(record)


class TaskView(View):
    """A task and everything known about it."""

    task_id: str = Field(examples=[JOB_ID_EXAMPLE])
    prompt_id: str = Field(description="the same", examples=[JOB_ID_EXAMPLE])
    status: TaskStatus
    type: str = Field(examples=["comfyui"])
    task_type: str = Field(description="the same", examples=["comfyui"])
    workflow_name: str | None = Field(examples=["text-to-image"])
    progress: float = Field(ge=0, le=100, description="percent", examples=[42.5])
    progress_detail: ProgressDetail | None = Field(description="of a running task")
    result_url: str | None = Field(description="the first of result_urls")
    result_urls: list[str] = Field(description="of the outputs that the workflow keeps, or of all where it keeps none")
    outputs: list[TaskOutput]
    error: str | None
    error_code: str | None = Field(examples=["no_face_detected"])
    attempts: int = Field(description="so far")
    max_attempts: int
    retries: int = Field(description="attempts beyond the first")
    attempt_history: list[TaskAttempt]
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    updated_at: datetime
    cancel_requested: bool

    @classmethod
    def of(cls, job: Job, links: Links, **more: str) -> Self:
        """Show a job, with addresses below ``links``; ``more`` are the fields of a subclass."""
        outputs = [TaskOutput.of(job, artifact, links) for artifact in job.outputs]
        kept = [output for output in outputs if output.type == "output"] or outputs
        return cls.model_validate(
            {
                "task_id": job.id,
                "prompt_id": job.id,
                "status": STATUS_OF[job.status],
                "type": job.kind,
                "task_type": job.kind,
                "workflow_name": workflow_name_of(job),
                "progress": percent(job.status, job.progress),
                "progress_detail": ProgressDetail.of(job.progress) if job.progress else None,
                "result_url": kept[0].url if kept else None,
                "result_urls": [output.url for output in kept],
                "outputs": outputs,
                "error": job.error.message if job.error else None,
                "error_code": job.error.code if job.error else None,
                "attempts": job.attempt,
                "max_attempts": job.max_attempts,
                "retries": max(0, job.attempt - 1),
                "attempt_history": [TaskAttempt.of(record) for record in job.attempts],
                "created_at": job.created_at,
                "started_at": job.started_at,
                "completed_at": job.finished_at,
                "updated_at": job.finished_at or job.started_at or job.created_at,
                "cancel_requested": job.cancel_requested,
                **more,
            }
        )


class TaskAnswer(TaskView):
    """A task after something was done with it."""

    message: str


class TaskPage(View):
    """A slice of a list of tasks, newest first."""

    total: int = Field(description="that fit the filters, on all pages")
    limit: int
    offset: int


class TaskList(TaskPage):
    """Tasks, newest first."""

    tasks: list[TaskView]


class TaskUpdate(BaseModel):
    """A change of a task, as the WebSocket sends it; the last one is merged with the whole task."""

    type: Literal["task_update"] = "task_update"
    task_id: str
    prompt_id: str
    status: TaskStatus
    progress: float
    progress_detail: ProgressDetail | None
    attempt: int
    error: str | None
    error_code: str | None
    timestamp: float  # Unix seconds
    event_id: str  # resume token: ?after=

    @classmethod
    def of(cls, event: JobEvent) -> Self:
        """Show an event."""
        return cls(
            task_id=event.job_id,
            prompt_id=event.job_id,
            status=STATUS_OF[event.status],
            progress=percent(event.status, event.progress),
            progress_detail=ProgressDetail.of(event.progress) if event.progress else None,
            attempt=event.attempt,
            error=event.error.message if event.error else None,
            error_code=event.error.code if event.error else None,
            timestamp=event.at,
            event_id=str(event.id),
        )


Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Offset = Annotated[int, Query(ge=0, le=10**9)]  # past every list, and within the database's integers


def page_query(tenant: str, limit: int, offset: int, status: JobStatus | None = None, kind: str | None = None) -> JobQuery:
    """Return what to ask for a page by number, with the count of all. Sketches, which no older client submits, only by their kind."""
    return JobQuery(tenant, status, kind, limit=limit, offset=offset, count=True, sessions=kind is not None)


def percent(status: JobStatus, progress: Progress | None) -> float:
    """Return how far a task is, 0 to 100."""
    if status is JobStatus.SUCCEEDED:
        return 100.0
    return round(100 * progress.fraction, 1) if progress and status is JobStatus.RUNNING else 0.0


def workflow_name_of(job: Job) -> str | None:
    """Return the name of the workflow that a job runs; None when it was brought along."""
    named: JsonObject = job.spec.get("workflow") or {}
    name: str | None = named.get("name") if job.kind == "comfyui" else None
    return name
