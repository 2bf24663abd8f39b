"""The borders of the domain: what a job needs from the outside, as Protocols.

Boxes get an implementation through their constructor and never look one up themselves. Every method may be repeated with the same
arguments without harm, because a call to an actor that restarted is sent again.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from deployments.jobs.events import EventBatch, EventId, JobEvent
from deployments.jobs.model import (
    Artifact,
    BackendHealth,
    BackendHold,
    BackendSpec,
    BackendState,
    Claim,
    Depth,
    FileRecord,
    Job,
    JobError,
    JobPage,
    JobQuery,
    JobStatus,
    JsonObject,
    NewJob,
    Preview,
    Progress,
    Repeat,
    ScalingDecision,
    Stats,
    StoredWorkflow,
    Verdict,
)
from deployments.jobs.spec import JobSpec
from deployments.jobs.webhook import Delivery, DeliveryPage, DeliveryQuery, Outcome


class Clock(Protocol):
    """Time, so that tests can own it."""

    def time(self) -> float:
        """Return seconds since the epoch."""

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean anything."""


class SystemClock:
    """The machine's clock."""

    def time(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()


class JobStore(Protocol):
    """The one owner of job state. What it has answered is on disk."""

    async def create(self, new: NewJob) -> tuple[Job, bool]:
        """Accept a job; answered after COMMIT.

        Returns:
            The job, and whether this call made it: False when the id or the idempotency key was seen before with the same payload.

        Raises:
            JobExists: the id is taken by another payload.
            IdempotencyConflict: the key was used for another payload.
            QueueFull: the pool admits no more.
        """

    async def find_repeat(self, repeat: Repeat) -> Job | None:
        """Return the job that an equal submit made before; None when there is none yet. ``create`` decides between two at once.

        Raises:
            JobExists: the id is taken by another payload.
            IdempotencyConflict: the key was used for another payload.
        """

    async def get(self, tenant: str, job_id: str) -> Job:
        """Read one job.

        Raises:
            JobNotFound: no such job for this tenant.
        """

    async def list_jobs(self, query: JobQuery) -> JobPage:
        """List jobs, newest first."""

    async def cancel(self, tenant: str, job_id: str) -> Job:
        """Cancel: at once when queued, at its next heartbeat when running, no change when ended.

        Raises:
            JobNotFound: no such job for this tenant.
        """

    async def cancel_all(self, tenant: str, kind: str, status: JobStatus) -> tuple[str, ...]:
        """Cancel, as ``cancel`` does, every job of a kind that waits (QUEUED) or runs (RUNNING).

        Returns:
            Those that this call cancelled, oldest first; what was asked to stop before is not among them.
        """

    async def delete(self, tenant: str, job_id: str) -> None:
        """Forget an ended job and the records of its files, whose bytes the caller has removed.

        Raises:
            JobNotFound: no such job for this tenant.
            JobNotTerminal: it has not ended.
        """

    async def claim(self, claim: Claim) -> Job | None:
        """Lease the next job of a pool: priority, then age. Waits up to ``claim.wait_s``; None when there was none."""

    async def heartbeat(self, job_id: str, attempt: int, progress: Progress | None) -> Verdict:
        """Renew a lease and report progress in one call."""

    async def finish(
        self, job_id: str, attempt: int, outputs: Sequence[Artifact], timings: Mapping[str, float], facts: JsonObject | None = None
    ) -> Verdict:
        """End a job as succeeded and publish its outputs; anything but OK means that nothing was written.

        Args:
            job_id: of the job.
            attempt: that ends.
            outputs: what it made.
            timings: seconds by stage.
            facts: for the attempt's record.
        """

    async def fail(
        self,
        job_id: str,
        attempt: int,
        error: JobError,
        timings: Mapping[str, float],
        outputs: Sequence[Artifact] = (),
        facts: JsonObject | None = None,
    ) -> Verdict:
        """End this attempt: queued again with back-off when the error is retryable and attempts are left, else failed.

        Args:
            job_id: of the job.
            attempt: that ends.
            error: why.
            timings: seconds by stage.
            outputs: what was made before the failure; published with it, so given only with an error that is not retryable.
            facts: for the attempt's record.

        Returns:
            With outputs, OK means that they are published and LOST that they are not, because the job was queued again or cancelled, or
            the attempt had ended otherwise: remove their bytes. Without, OK means that this ended the attempt. Sent again, the same.
        """

    async def withdraw(self, owner: str) -> None:
        """Answer the open claims of an owner with None and give it no more jobs: its replica drains."""

    async def release(self, job_id: str, attempt: int) -> Verdict:
        """Hand a job back unfinished (the replica drains); the attempt does not count against ``max_attempts``."""

    async def acknowledge_cancel(self, job_id: str, attempt: int) -> Verdict:
        """Say that a cancelled job has stopped running."""

    async def events(self, after: EventId | None, wait_s: float) -> EventBatch:
        """Read the feed of all jobs after an event, waiting up to ``wait_s`` for news; ``after=None`` starts at now."""

    async def history(self, tenant: str, job_id: str) -> tuple[JobEvent, ...]:
        """Read the durable events of one job, oldest first.

        Raises:
            JobNotFound: no such job for this tenant.
        """

    async def add_file(self, record: FileRecord) -> FileRecord:
        """Publish an uploaded file."""

    async def get_file(self, tenant: str, file_id: str) -> FileRecord:
        """Read a published file's record.

        Raises:
            FileNotFound: no such file for this tenant.
        """

    async def keys_of(self, job_id: str) -> tuple[str, ...]:
        """Return the object keys of the files that go with a job: what it made, and what it alone reads."""

    async def find_files(self, tenant: str, names: Sequence[str], *, uploads_first: bool) -> Mapping[str, FileRecord]:
        """Return the newest published file of each name, as far as there is one.

        Args:
            tenant: whose.
            names: as they were given, compared whole.
            uploads_first: of an upload and an output with the same name, whether the upload is meant.
        """

    async def depth(self, pool: str) -> Depth:
        """Return the load of a pool."""

    async def stats(self, tenant: str, *, sessions: bool = True) -> Stats:
        """Return counts and percentiles, those of drawing sessions' jobs included or not."""

    async def record_scaling(self, decision: ScalingDecision) -> None:
        """Keep a decision of the autoscaler for people to read."""

    async def scaling(self) -> tuple[ScalingDecision, ...]:
        """Return the newest decisions of every pool, newest first."""


class WorkflowStore(Protocol):
    """Uploaded workflows, the same for every ingress replica at once."""

    async def put_workflow(self, workflow: StoredWorkflow) -> StoredWorkflow:
        """Store a new version and return it with its number (``workflow.version`` is ignored).

        An upload that equals the newest version by ``sha256`` makes no new one: that version is returned.
        """

    async def get_workflow(self, tenant: str, name: str, version: int | None = None) -> StoredWorkflow:
        """Read a version, the newest by default.

        Raises:
            WorkflowNotFound: no such workflow or version for this tenant.
        """

    async def list_workflows(self, tenant: str) -> tuple[StoredWorkflow, ...]:
        """Return the newest version of each workflow of a tenant, by name."""

    async def delete_workflow(self, tenant: str, name: str) -> None:
        """Forget all versions; jobs that were submitted by it keep their own copy of the graph.

        Raises:
            WorkflowNotFound: no such workflow for this tenant.
        """


class BackendHolds(Protocol):
    """Who drives which backend, as a bridge replica needs it."""

    async def hold_backends(self, owner: str, health: Mapping[str, BackendHealth], released: Sequence[str]) -> tuple[BackendHold, ...]:
        """Renew a bridge replica's leases, give back some, report health, and take free backends up to its share.

        A replica that does not call for ``StoreConfig.lease_s`` loses all, at the latest a third of that later; it must by then have
        stopped sending to them by its own clock. Shares are as even as can be over the replicas that called within a lease. A replica
        that has withdrawn (``JobStore.withdraw``) keeps what it holds, is asked to surrender it, and gets no more.

        Args:
            owner: replica.
            health: by name of backend, of those that it holds.
            released: names that it drives no more.

        Returns:
            What it holds from now on.
        """


class BackendRegistry(BackendHolds, Protocol):
    """Which ComfyUI servers there are, and which bridge replica drives which: exactly one each, under a lease."""

    async def configure_backends(self, specs: Sequence[BackendSpec]) -> None:
        """Make the configured backends those of the settings; those added at run time stay, and so do owners and drains."""

    async def add_backend(self, spec: BackendSpec) -> BackendState:
        """Add one at run time, or change one that was added so.

        Raises:
            NameTaken: the name or the URL is that of another backend.
        """

    async def remove_backend(self, name: str) -> None:
        """Remove one that was added at run time; what runs there is finished by its owner's drain.

        Raises:
            BackendNotFound: no such backend.
            NameTaken: it is configured in the settings: drain it instead.
        """

    async def drain_backend(self, name: str, *, draining: bool) -> BackendState:
        """Stop sending jobs to a backend, or go on; survives restarts.

        Raises:
            BackendNotFound: no such backend.
        """

    async def announce_backend(self, owner: str, spec: BackendSpec, health: BackendHealth | None) -> None:
        """Show a server that a replica has started for itself, until it has not called for a lease. Nobody else can take hold of it."""

    async def backends(self) -> tuple[BackendState, ...]:
        """Return all backends by name, announced ones included."""


class Previews(Protocol):
    """Pictures of jobs while they compute, on their way to whoever looks. Nothing is kept but the newest of each job."""

    async def put_preview(self, preview: Preview) -> bool:
        """Replace the newest preview of a job (``preview.n`` is ignored); dropped when nobody looks, or under an ended attempt.

        Returns:
            Whether anybody looks at this job, and this attempt of it runs. One over 1 MiB is dropped either way.
        """

    async def previews(self, job_ids: Sequence[str], after: int, wait_s: float) -> tuple[Preview, ...]:
        """Return the newest preview of each job with ``n > after``, waiting up to ``wait_s`` for one; marks the jobs as looked at."""


PART_BYTES = 8 * 2**20  # of an upload: at least 5 MiB for S3, a multiple of 256 KiB for GCS, small enough to send again


@dataclass(frozen=True, slots=True)
class UploadToken:
    """All the state of one upload, so that any Uploader replica can take any part."""

    key: str
    upload_id: str
    media_type: str


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What lies in the object store once an upload is complete."""

    key: str
    uri: str
    size_bytes: int
    sha256: str
    created: bool = field(default=True, compare=False)  # False: the same content was there before this call


INCOMING = "incoming"  # folder of the object store to which clients write


@dataclass(frozen=True, slots=True)
class ClientUpload:
    """A PUT by which a client sends an object itself."""

    url: str
    headers: Mapping[str, str]  # that it must have


class Uploader(Protocol):
    """Puts bytes into the object store, a part at a time. Parts may be sent again and in any order."""

    async def begin(self, key: str, media_type: str) -> UploadToken:
        """Open an upload."""

    async def put_part(self, token: UploadToken, number: int, data: bytes) -> None:
        """Store part ``number`` (from 0); at most ``PART_BYTES`` long, and exactly that long unless it is the last.

        Raises:
            UploadFailed: the store did not take it.
        """

    async def complete(self, token: UploadToken, parts: int, sha256: str) -> StoredObject:
        """Join the parts; the object appears whole or not at all.

        Raises:
            UploadFailed: a part is missing or the hash disagrees.
        """

    async def put(self, key: str, media_type: str, data: bytes, sha256: str) -> StoredObject:
        """Store an object of at most ``PART_BYTES`` in one call: it appears whole or not at all. Sent again, it is stored again.

        Raises:
            UploadFailed: the store did not take it or the hash disagrees.
        """

    async def abort(self, token: UploadToken) -> None:
        """Drop an upload and its parts."""

    async def delete(self, key: str) -> None:
        """Remove an object; no error when it is gone already."""

    async def open_to_client(self, key: str, media_type: str, size_bytes: int, seconds: int) -> ClientUpload | None:
        """Let whoever has the answer write one object for so long; None where the store cannot."""

    async def copy(self, source: str, target: str, media_type: str) -> None:
        """Copy an object within the store.

        Raises:
            FileNotFound: there is none.
        """


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that an engine has finished writing in its work folder."""

    path: Path
    name: str
    media_type: str
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    comfy_node: str | None = None  # as in Artifact
    temporary: bool = False


class Marker(Protocol):
    """Marks a result as generated, as the last thing that is done to it before it is stored."""

    def mark(self, job: Job, file: OutputFile, inputs: Mapping[str, LocalMedia]) -> JsonObject:
        """Mark the file where it lies. Blocks.

        Args:
            job: that made it.
            file: the result.
            inputs: what it was made of, by role.

        Returns:
            What was put into it, for the attempt's record.

        Raises:
            MarkingFailed: it cannot be marked, and must not be published.
        """


class ContentFilter(Protocol):
    """Judges what goes into a job and what comes out."""

    def check(self, path: Path, media_type: str, shown: str) -> None:
        """Let a file pass. Blocks.

        Args:
            path: of the file.
            media_type: by content.
            shown: what the error calls it.

        Raises:
            ContentRefused: it may not.
            UnsupportedMedia: it cannot be decoded.
        """


@dataclass(frozen=True, slots=True)
class PreviewPicture:
    """A picture of the work in progress, for whoever looks now."""

    media_type: str
    data: bytes
    comfy_node: str | None = None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What was decided while the attempt ran, such as the backend and the checkpoint; kept in the attempt's record."""

    values: JsonObject


@dataclass(frozen=True, slots=True)
class LocalMedia:
    """An input as a file on this machine. Read-only: it may be shared with other jobs."""

    path: Path
    media_type: str  # by content, never by name
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class EngineTask:
    """What an engine gets: validated spec, inputs on disk, a folder of its own to write in."""

    spec: JsonObject
    inputs: Mapping[str, LocalMedia]
    work_dir: Path
    job_id: str
    attempt: int
    tenant: str


EngineItem = Progress | OutputFile | PreviewPicture | RunFacts


class Engine(Protocol):
    """Computes one kind of job. Pure: no Ray, no network, no job state. Runs in a thread."""

    def references(self, spec: JsonObject) -> Mapping[str, JsonObject]:
        """Return the stored media references of a job by role; what they lead to is handed over in ``EngineTask.inputs``."""

    def run(self, task: EngineTask) -> Iterator[Progress | OutputFile]:
        """Do the work, yielding progress between steps and each output once it is whole on disk.

        The caller cancels by closing the generator at a yield; resources are freed in ``finally``.

        Raises:
            ServiceError: with a code; anything else is reported as ``engine_failed``.
        """


class AsyncEngine(Protocol):
    """What the runner drives: an engine on the event loop. Other threads' engines come by ``threads.ThreadedEngine``."""

    def references(self, spec: JsonObject) -> Mapping[str, JsonObject]:
        """See :class:`Engine`."""

    def run(self, task: EngineTask) -> AsyncGenerator[EngineItem, None]:
        """See :class:`Engine`. Outputs that were yielded before an error that is not retryable are published with the failure.

        Raises:
            BackendUnavailable: the attempt is handed back and costs no try.
        """


@dataclass(frozen=True, slots=True)
class Slot:
    """Room for one job."""

    capabilities: frozenset[str]  # what a job may require of it
    give_back: Callable[[], None]  # called once


class Slots(Protocol):
    """Room for jobs in a replica. It may change while the replica runs, as the backends do that it drives."""

    async def take(self) -> Slot:
        """Wait for a free slot and take it."""


class WorkFolder(Protocol):
    """Where a process writes while it computes; nobody else does, and it is removed after the process."""

    @property
    def path(self) -> Path:
        """The folder, which exists."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request becomes when it is accepted."""

    spec: JsonObject  # as stored: references are {"url"} or {"file_id"}
    requires: str | None = None
    timeout_s: float | None = None  # None: as the request's options say
    estimate_s: float | None = None
    pool: str | None = None  # None: that of the kind


class Planner(Protocol):
    """Turns a request of one kind into what is stored, or refuses it."""

    async def plan(self, tenant: str, spec: JobSpec) -> Plan:
        """Check a request against everything that can be known now.

        Raises:
            InvalidInput: it would fail when it runs.
            NotFound: it names something that is not there.
        """


class InputSource(Protocol):
    """Brings a job's inputs to this machine."""

    async def materialise(self, tenant: str, reference: JsonObject, directory: Path) -> LocalMedia:
        """Bring a stored ``MediaRef`` (``{"url"}`` or ``{"file_id"}``, with an optional declared ``media_type``) into a job's folder.

        With ``key`` and ``sha256`` beside its ``file_id`` it is a file of this job alone, which is not kept for others. Only we write
        those: what a client sends has no such fields.

        Raises:
            InvalidInput: refused, too large, or not what was declared.
            FetchFailed: could not be read now.
            FileNotFound: no such file.
        """


class ObjectReader(Protocol):
    """Reads objects of the configured store."""

    async def size(self, key: str) -> int:
        """Return the object's length in bytes.

        Raises:
            FileNotFound: no such object.
        """

    def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Stream bytes ``start`` (included) to ``end`` (excluded; None: to the end)."""

    async def link(self, key: str, seconds: int, media_type: str, disposition: str) -> str | None:
        """Return a URL at which anybody can read an object for so long; None where the store gives none.

        Args:
            key: of the object; whether there is one is not looked at.
            seconds: how long.
            media_type: the ``Content-Type`` that the store sends.
            disposition: the ``Content-Disposition`` that it sends.

        Raises:
            Unavailable: there are no keys to sign with.
        """


class WebhookOutbox(Protocol):
    """The owner of webhook deliveries."""

    async def take_deliveries(self, owner: str, limit: int, lease_s: float, wait_s: float) -> tuple[Delivery, ...]:
        """Lease deliveries that are due, waiting up to ``wait_s`` for the first; of each job the oldest one alone."""

    async def settle_delivery(self, delivery: Delivery, owner: str, outcome: Outcome) -> bool:
        """Write how a try went; False, and nothing is written, when the lease has gone to another."""

    async def list_deliveries(self, query: DeliveryQuery) -> DeliveryPage:
        """List deliveries, newest first.

        Raises:
            InvalidInput: a cursor that is none of ours.
        """

    async def add_test(self, tenant: str, url: str, secret: str) -> Delivery:
        """Put a test into the outbox."""

    async def redeliver(self, tenant: str, delivery_id: str) -> Delivery:
        """Send an ended delivery again.

        Raises:
            DeliveryNotFound: no such delivery for this tenant.
        """


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """What a receiver said."""

    status_code: int | None  # None: nothing
    error: str | None = None  # why not
    retry_after_s: float | None = None


class WebhookSender(Protocol):
    """The guarded way to receivers."""

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> WebhookAnswer:
        """Make one try.

        Raises:
            UrlNotAllowed: the guard refuses the address.
        """


class Metrics(Protocol):
    """Counters and timings of the job system. Tags are few and never ids."""

    def count(self, name: str, value: float = 1.0, **tags: str) -> None:
        """Add to a counter."""

    def gauge(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge."""

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Record one sample of a distribution, in seconds."""


class NoMetrics:
    """Metrics that go nowhere, for tests and for use outside a cluster."""

    def count(self, name: str, value: float = 1.0, **tags: str) -> None:
        """Ignore."""

    def gauge(self, name: str, value: float, **tags: str) -> None:
        """Ignore."""

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Ignore."""
