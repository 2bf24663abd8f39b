"""What the API shows: pydantic views of the domain's values. Times are RFC 3339 in UTC, durations seconds, URLs absolute."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.jobs.events import EventType, JobEvent
from deployments.jobs.model import FileRecord, Job, JobStatus, Preview, ScalingDecision, Stage, Stats
from serve_app.api.links import Links

JOB_ID_EXAMPLE = "5d1c1f0e-58c2-4d0a-9f8b-0d8a7a4c9b11"
FILE_ID_EXAMPLE = "0b0f7a35-7c3e-4c67-8f0f-6a3b0f9f1c11"


class View(BaseModel):
    """Read from a domain value by the names of its attributes."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class ProgressView(View):
    """How far a running job is."""

    stage: Stage
    fraction: float = Field(ge=0, le=1, description="of the whole job", examples=[0.42])
    frame: int | None = Field(None, description="frames done")
    frames: int | None = Field(None, description="frames in all, where known")
    eta_s: float | None = None
    message: str | None = None
    comfy_node: str | None = Field(None, description="of a workflow: id of the node that runs", examples=["3"])
    comfy_node_title: str | None = Field(None, examples=["KSampler"])
    step: int | None = Field(None, description="of that node's own work, such as sampling")
    steps: int | None = None


class ErrorView(View):
    """Why a job failed."""

    code: str = Field(examples=["no_face_detected"])
    message: str
    retryable: bool
    details: dict[str, Any] | None = Field(None, description="for programs, such as the node of a workflow that failed")


class AttemptView(View):
    """How one attempt ended."""

    attempt: int
    started_at: datetime
    ended_at: datetime
    outcome: str = Field(description="succeeded, cancelled, released, or an error code", examples=["worker_lost"])
    message: str | None
    facts: dict[str, Any] = Field(description="what was decided while it ran, such as the backend", examples=[{"backend": "gpu1-8188"}])


class OutputView(View):
    """One result."""

    file_id: str = Field(description="usable as an input of another job", examples=[FILE_ID_EXAMPLE])
    name: str = Field(examples=["result.png"])
    media_type: str = Field(examples=["image/png"])
    url: str = Field(description="where to download it", examples=[f"https://example.com/v1/files/{FILE_ID_EXAMPLE}"])
    uri: str = Field(description="where it lies in the object store")
    size_bytes: int
    sha256: str
    width: int | None
    height: int | None
    duration_s: float | None
    comfy_node: str | None = Field(description="of a workflow: id of the node that made it", examples=["9"])
    temporary: bool = Field(description="a preview, which the workflow does not mean to keep")


class JobLinks(View):
    """Where to go on from a job."""

    self: str
    events: str = Field(description="server-sent events")


class JobView(View):
    """A job and everything known about it."""

    id: str = Field(examples=[JOB_ID_EXAMPLE])
    kind: str = Field(examples=["faceswap"])
    pool: str
    status: JobStatus
    progress: ProgressView | None = Field(description="of a running job")
    outputs: list[OutputView]
    error: ErrorView | None
    attempt: int = Field(description="0 before the first start")
    attempts: list[AttemptView] = Field(description="those that have ended")
    max_attempts: int
    priority: int
    timeout_s: float
    estimate_s: float | None
    cancel_requested: bool
    created_at: datetime
    not_before: datetime | None
    started_at: datetime | None = Field(description="of the newest attempt")
    finished_at: datetime | None
    timings: dict[str, float] = Field(description="seconds by stage, of the attempt that ended the job", examples=[{"computing": 1.8}])
    labels: dict[str, str]
    retry_of: str | None
    parent_id: str | None
    spec: dict[str, Any] = Field(description="as asked for; inline media are replaced by file ids")
    links: JobLinks

    @classmethod
    def of(cls, job: Job, links: Links) -> JobView:
        """Show a job with addresses below ``links``."""
        shown = {name: getattr(job, name) for name in cls.model_fields if name not in {"outputs", "links"}}
        outputs = [{**{name: getattr(a, name) for name in a.__slots__}, "url": links.file(a.file_id, a)} for a in job.outputs]
        places = JobLinks(self=links.job(job.id), events=links.events(job.id))
        return cls.model_validate({**shown, "outputs": outputs, "links": places}, from_attributes=True)


class JobList(View):
    """One page of jobs, newest first."""

    jobs: list[JobView]
    next_cursor: str | None = Field(description="send it as ?cursor= for the next page; null on the last")


class EventView(View):
    """One change of one job: the data of a server-sent event and a message of the WebSocket."""

    id: str = Field(description="resume token: Last-Event-ID or ?after=", examples=["3-141"])
    type: EventType
    job_id: str = Field(examples=[JOB_ID_EXAMPLE])
    status: JobStatus
    attempt: int
    at: datetime
    progress: ProgressView | None = None
    error: ErrorView | None = None

    @classmethod
    def of(cls, event: JobEvent) -> EventView:
        """Show an event."""
        shown = {name: getattr(event, name) for name in cls.model_fields}
        return cls.model_validate({**shown, "id": str(event.id)}, from_attributes=True)


class PreviewHeader(View):
    """Before the picture in a binary message of the WebSocket: four bytes, its length (big-endian), then this as JSON."""

    type: Literal["preview"] = "preview"
    job_id: str = Field(examples=[JOB_ID_EXAMPLE])
    attempt: int
    n: int = Field(description="rises from each preview to the next")
    media_type: str = Field(examples=["image/jpeg"])
    comfy_node: str | None = Field(examples=["3"])

    @classmethod
    def of(cls, preview: Preview) -> PreviewHeader:
        """Describe a preview."""
        return cls.model_validate(preview)


class FileView(View):
    """A file that can be downloaded and used as an input."""

    file_id: str = Field(examples=[FILE_ID_EXAMPLE])
    name: str = Field(examples=["portrait.jpg"])
    media_type: str = Field(description="by content", examples=["image/jpeg"])
    size_bytes: int
    sha256: str
    created_at: datetime
    job_id: str | None = Field(description="the job that made it; null for an upload")
    url: str

    @classmethod
    def of(cls, record: FileRecord, links: Links) -> FileView:
        """Show a file."""
        shown = {name: getattr(record, name) for name in cls.model_fields if name not in {"file_id", "url"}}
        return cls.model_validate({**shown, "file_id": record.id, "url": links.file(record.id, record)})


class PoolView(View):
    """The load of one pool."""

    queued: int
    running: int
    uploading: int
    oldest_age_s: float
    estimate_s: float


class StrokeStatsView(View):
    """How long people wait for what they draw: over all ingress replicas, since the store began, percentiles over the newest."""

    received: int
    dropped: int = Field(description="a newer sketch came before they were computed")
    skipped: int = Field(description="they looked like the one before")
    refused: int
    to_preview_p50_s: float | None = Field(description="from a sketch's arrival to the first preview of it or of a newer one")
    to_preview_p95_s: float | None
    to_result_p50_s: float | None = Field(description="the same to the picture")
    to_result_p95_s: float | None


class StatsView(View):
    """Counts and percentiles."""

    by_status: dict[JobStatus, int] = Field(examples=[{"queued": 2, "running": 1, "succeeded": 40}])
    by_kind: dict[str, dict[JobStatus, int]]
    pools: dict[str, PoolView]
    attempts_total: int
    workers_lost_total: int
    wait_p50_s: float | None = Field(description="submit to first start")
    wait_p95_s: float | None
    run_p50_s: float | None = Field(description="first start to end")
    run_p95_s: float | None
    drawing: StrokeStatsView | None = None

    @classmethod
    def of(cls, stats: Stats) -> StatsView:
        """Show the counts."""
        return cls.model_validate(stats)


class ScalingView(View):
    """One decision of the autoscaler."""

    pool: str
    at: datetime
    current: int
    desired: int
    reason: str = Field(examples=["7 jobs for 2 slots a replica: 4 replicas"])
    queued: int
    running: int


class ScalingList(View):
    """The newest decisions of every pool, newest first."""

    decisions: list[ScalingView]

    @classmethod
    def of(cls, decisions: tuple[ScalingDecision, ...]) -> ScalingList:
        """Show the decisions."""
        return cls.model_validate({"decisions": decisions}, from_attributes=True)


class CleanupView(View):
    """What the sweeps of this machine have removed since ever: files that killed processes left."""

    last_sweep: float | None = Field(None, description="seconds since the epoch", examples=[1703123456.789])
    files_removed: int = 0
    bytes_removed: int = 0


class HealthView(View):
    """This process lives."""

    status: Annotated[str, Field(examples=["healthy"])] = "healthy"
    version: str
    timestamp: float = Field(description="seconds since the epoch", examples=[1703123456.789])
    data_dir: str = Field(description="where the data of this installation lie", examples=["/code/data"])
    data_dir_exists: bool
    cleanup: CleanupView


class ObjectStoreView(View):
    """Where uploads and results lie."""

    provider: str = Field(examples=["s3"])
    problem: str | None = Field(description="what was wrong at the last look, and what to do about it; null when nothing was")
    checked_at: datetime


class ReadyView(View):
    """Work is accepted."""

    ready: bool = True
    object_store: ObjectStoreView | None = None
