"""The job and the values around it, as frozen dataclasses: they cross processes by pickle and are never changed in place.

Times are seconds since the epoch on the store's clock, as floats; the API renders them as RFC 3339. Durations are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

JsonObject = dict[str, Any]  # JSON has no static shape; every producer validates with a pydantic model first

DEFAULT_TENANT = "default"  # a column and an argument everywhere from the first day; always this value until there are API keys


class JobStatus(StrEnum):
    """Where a job is. The last three never change again."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the job has ended for good."""
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class Stage(StrEnum):
    """What a running job is doing. Uploading frees the worker's slot, so depth does not count it."""

    FETCHING = "fetching"
    COMPUTING = "computing"
    UPLOADING = "uploading"


class Verdict(StrEnum):
    """The store's answer to a heartbeat."""

    OK = "ok"
    CANCELLED = "cancelled"  # a person asked for it: stop and acknowledge
    LOST = "lost"  # another attempt exists or the job has ended: stop and write nothing


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running job is. Not durable: a restarted store has forgotten it until the next heartbeat."""

    stage: Stage
    fraction: float  # 0..1 of the whole job
    frame: int | None = None  # frames done
    frames: int | None = None  # frames in all, where known
    eta_s: float | None = None
    message: str | None = None
    comfy_node: str | None = None  # id in the graph of the node that runs
    comfy_node_title: str | None = None
    step: int | None = None  # of that node's own work, such as sampling
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """One published output of a job."""

    file_id: str  # what GET /v1/files/{id} answers to
    name: str  # for people and Content-Disposition; never used as a path
    media_type: str
    uri: str  # where it lies: <provider>://<key>
    size_bytes: int
    sha256: str
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    comfy_node: str | None = None  # id in the graph of the node that made it
    temporary: bool = False  # a preview, which its maker did not mean to keep

    @property
    def key(self) -> str:
        """Where it lies in its store."""
        return self.uri.partition("://")[2]


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file in the object store that clients may read: an upload, or an artifact of a succeeded job."""

    id: str
    tenant: str
    key: str  # in the object store; made by us, never by a client
    name: str
    media_type: str
    size_bytes: int
    sha256: str
    created_at: float
    job_id: str | None = None  # the job that made it; None for an upload


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """How one attempt of a job ended."""

    attempt: int
    owner: str
    started_at: float
    ended_at: float
    outcome: str  # succeeded, cancelled, released, or an error code such as worker_lost
    message: str | None = None
    facts: JsonObject = field(default_factory=dict)  # what was decided while it ran, such as the backend and the checkpoint


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed, as the client sees it."""

    code: str
    message: str
    retryable: bool = False
    details: JsonObject | None = None  # for programs, such as which input of which node was refused


@dataclass(frozen=True, slots=True)
class Repeat:
    """What tells that a submit was seen before."""

    tenant: str
    job_id: str | None  # made by the client; None: by us, so that it was never seen
    idempotency_key: str | None
    fingerprint: str  # as in NewJob


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a client asks for, validated; the store gives it times and a state."""

    id: str
    kind: str
    pool: str
    spec: JsonObject
    fingerprint: str  # hash of what the client sent: tells a repeated submit from another one under the same id or key
    tenant: str = DEFAULT_TENANT
    priority: int = 0  # higher leaves first
    requires: str | None = None  # capability that a worker must offer, such as an engine's name
    max_attempts: int = 3
    timeout_s: float = 3600.0  # running time of one attempt
    not_before: float | None = None
    idempotency_key: str | None = None
    coalesce_key: str | None = None  # set: see deployments.jobs.sessions
    coalesce_seq: int | None = None
    parent_id: str | None = None
    retry_of: str | None = None
    estimate_s: float | None = None
    webhook: JsonObject | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """One unit of accepted work and everything known about it."""

    id: str
    tenant: str
    kind: str
    pool: str
    spec: JsonObject
    requires: str | None
    status: JobStatus
    attempt: int  # 0 before the first claim; the fencing token of every later write
    max_attempts: int
    priority: int
    timeout_s: float
    created_at: float
    not_before: float | None
    started_at: float | None  # of the newest attempt
    finished_at: float | None
    idempotency_key: str | None
    coalesce_key: str | None
    coalesce_seq: int | None  # of the request under that key
    parent_id: str | None
    retry_of: str | None
    estimate_s: float | None
    webhook: JsonObject | None
    labels: Mapping[str, str]
    cancel_requested: bool
    owner: str | None  # replica that holds the lease
    lease_until: float | None
    progress: Progress | None
    outputs: tuple[Artifact, ...]
    error: JobError | None
    attempts: tuple[AttemptRecord, ...]
    timings: Mapping[str, float]  # stage -> seconds, of the attempt that ended the job


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs to list, newest first."""

    tenant: str = DEFAULT_TENANT
    status: JobStatus | None = None
    kind: str | None = None
    label: tuple[str, str] | None = None
    cursor: str | None = None  # opaque, from the page before
    limit: int = 50
    offset: int = 0  # for callers that page by number
    ended: bool = False  # only those that have
    by_turn: bool = False  # as they leave the queue, instead of newest first; then there is no cursor
    count: bool = False  # count all that fit, too
    sessions: bool = True  # the jobs of sessions too, of which there are several a second


@dataclass(frozen=True, slots=True)
class JobPage:
    """A slice of a listing."""

    jobs: tuple[Job, ...]
    next_cursor: str | None
    total: int | None = None  # where it was asked for


@dataclass(frozen=True, slots=True)
class Claim:
    """A replica's offer to run one job."""

    claim_id: str  # one per call: a call that is answered twice (actor restart) gets the same job twice, not two jobs
    pool: str
    owner: str
    capabilities: frozenset[str] = frozenset()
    wait_s: float = 10.0  # long poll
    computed: frozenset[str] = frozenset()  # jobs of this owner that only upload: they keep no newer one of their session waiting


@dataclass(frozen=True, slots=True)
class Depth:
    """The load of one pool, read by the autoscaler and by metrics."""

    queued: int
    running: int
    uploading: int  # part of running; their slots are free again
    oldest_age_s: float  # of the queued job that waits longest and may run now; 0 when none waits
    estimated: int  # of the queued ones, how many carry an estimate
    estimate_s: float  # sum of those estimates


@dataclass(frozen=True, slots=True)
class StoredWorkflow:
    """One version of an uploaded workflow. Versions are never changed; the newest one counts."""

    tenant: str
    name: str
    version: int  # from 1, rises with every upload under the name
    graph: JsonObject  # as uploaded, either format
    meta: JsonObject  # title, description, tags, typed parameters, output selection: what the yaml of a shipped one holds
    sha256: str  # of graph and meta as canonical JSON
    created_at: float


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """A ComfyUI server that may be driven."""

    name: str
    url: str
    tags: tuple[str, ...] = ()
    weight: float = 1.0  # share of the work, against the other backends
    in_flight: int = 2  # prompts sent at once: 2 keeps it busy while outputs are taken out
    configured: bool = True  # from the settings; False: added at run time


@dataclass(frozen=True, slots=True)
class BackendHealth:
    """What the bridge replica that drives a backend sees of it. Kept in memory only."""

    healthy: bool
    reason: str = ""  # why not, in words
    version: str | None = None
    fake: bool = False  # the server says of itself that it is the fake one
    in_flight: int = 0
    queue_remaining: int | None = None  # as the server counts, other clients' prompts included
    model: str | None = None  # the checkpoint that it loaded last
    checked_at: float = 0.0


@dataclass(frozen=True, slots=True)
class BackendState:
    """A backend as the store knows it."""

    spec: BackendSpec
    draining: bool  # takes no new jobs
    owner: str | None  # bridge replica that drives it, under a lease; None when none does
    health: BackendHealth | None  # of the owner's newest report
    unhealthy_s: float = 0.0  # how long nobody has seen it healthy, at most since the store began to look


@dataclass(frozen=True, slots=True)
class BackendHold:
    """A bridge replica's hold on a backend, for as long as it renews it."""

    spec: BackendSpec
    draining: bool
    surrender: bool  # another replica has too few: finish what runs there, then release it


@dataclass(frozen=True, slots=True)
class Preview:
    """The newest picture of a job that computes. In memory only; an older one is never sent after a newer."""

    job_id: str
    attempt: int
    n: int  # rises with every preview of the store
    media_type: str
    data: bytes
    comfy_node: str | None = None


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """What the autoscaler decided for a pool, and why."""

    pool: str
    at: float
    current: int
    desired: int
    reason: str
    queued: int
    running: int


@dataclass(frozen=True, slots=True)
class StrokeStats:
    """The figures of drawing, over all ingress replicas, since the store began."""

    received: int
    dropped: int  # a newer sketch came before they were computed
    skipped: int  # they looked like the one before
    refused: int
    to_preview_p50_s: float | None  # arrival of a sketch to the first preview of it, or of a newer one; over the newest ones
    to_preview_p95_s: float | None
    to_result_p50_s: float | None
    to_result_p95_s: float | None


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts for people; cheap to compute."""

    by_status: Mapping[str, int]
    by_kind: Mapping[str, Mapping[str, int]]
    pools: Mapping[str, Depth]
    attempts_total: int
    retries_total: int  # attempts beyond the first of each job
    workers_lost_total: int
    wait_p50_s: float | None  # submit to first claim, over the newest ended jobs
    wait_p95_s: float | None
    run_p50_s: float | None  # first claim to end
    run_p95_s: float | None
    drawing: StrokeStats | None = None
