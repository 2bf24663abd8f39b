"""Adapters from Ray handles to the domain's ports, and the one place where Ray's errors are unwrapped.

``str()`` of a remote error is a traceback with a process id and an address in it; what a client may see is its ``cause``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.job_store import ACTOR_NAME, MAX_CONCURRENCY, NAMESPACE, JobStoreActor, fingerprint_of
from deployments.jobs.config import StoreConfig
from deployments.jobs.errors import ServiceError, StoreUnavailable, UploadFailed
from deployments.jobs.events import EventBatch, EventId, JobEvent
from deployments.jobs.logs import fields, get_logger
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
from deployments.jobs.ports import ClientUpload, StoredObject, UploadToken
from deployments.jobs.retention import Forgotten
from deployments.jobs.sessions import ExpiredJobs, Latest, SessionState, Strokes
from deployments.jobs.webhook import Delivery, DeliveryPage, DeliveryQuery, Outcome

log = get_logger(__name__)

HEARTBEAT_TIMEOUT_S = 5.0  # a heartbeat that hangs must not take the lease's whole time
CALL_TIMEOUT_S = 30.0  # a restart of the store takes about a second; longer than this and the caller should hear of it
REPLACE_TIMEOUT_S = 60.0


class StoreHandle:
    """Implements the stores of :mod:`deployments.jobs.ports`, and that of sessions, over the store's actor, found by its name."""

    def __init__(self) -> None:
        self._actor: ActorHandle[Any] | None = None

    async def create(self, new: NewJob) -> tuple[Job, bool]:
        """See the port."""
        created: tuple[Job, bool] = await self._call("create", new)
        return created

    async def find_repeat(self, repeat: Repeat) -> Job | None:
        """See the port."""
        job: Job | None = await self._call("find_repeat", repeat)
        return job

    async def get(self, tenant: str, job_id: str) -> Job:
        """See the port."""
        job: Job = await self._call("get", tenant, job_id)
        return job

    async def list_jobs(self, query: JobQuery) -> JobPage:
        """See the port."""
        page: JobPage = await self._call("list_jobs", query)
        return page

    async def cancel(self, tenant: str, job_id: str) -> Job:
        """See the port."""
        job: Job = await self._call("cancel", tenant, job_id)
        return job

    async def cancel_all(self, tenant: str, kind: str, status: JobStatus) -> tuple[str, ...]:
        """See the port."""
        cancelled: tuple[str, ...] = await self._call("cancel_all", tenant, kind, status)
        return cancelled

    async def delete(self, tenant: str, job_id: str) -> None:
        """See the port."""
        await self._call("delete", tenant, job_id)

    async def take_deliveries(self, owner: str, limit: int, lease_s: float, wait_s: float) -> tuple[Delivery, ...]:
        """See the port."""
        taken: tuple[Delivery, ...] = await self._call("take_deliveries", owner, limit, lease_s, wait_s, timeout_s=CALL_TIMEOUT_S + wait_s)
        return taken

    async def settle_delivery(self, delivery: Delivery, owner: str, outcome: Outcome) -> bool:
        """See the port."""
        settled: bool = await self._call("settle_delivery", delivery, owner, outcome)
        return settled

    async def list_deliveries(self, query: DeliveryQuery) -> DeliveryPage:
        """See the port."""
        page: DeliveryPage = await self._call("list_deliveries", query)
        return page

    async def redeliver(self, tenant: str, delivery_id: str) -> Delivery:
        """See the port."""
        delivery: Delivery = await self._call("redeliver", tenant, delivery_id)
        return delivery

    async def claim(self, claim: Claim) -> Job | None:
        """See the port."""
        job: Job | None = await self._call("claim", claim, timeout_s=CALL_TIMEOUT_S + claim.wait_s)
        return job

    async def heartbeat(self, job_id: str, attempt: int, progress: Progress | None) -> Verdict:
        """See the port."""
        verdict: Verdict = await self._call("heartbeat", job_id, attempt, progress, timeout_s=HEARTBEAT_TIMEOUT_S)
        return verdict

    async def finish(
        self, job_id: str, attempt: int, outputs: Sequence[Artifact], timings: Mapping[str, float], facts: JsonObject | None = None
    ) -> Verdict:
        """See the port."""
        return await self._verdict("finish", job_id, attempt, tuple(outputs), dict(timings), facts)

    async def fail(
        self,
        job_id: str,
        attempt: int,
        error: JobError,
        timings: Mapping[str, float],
        outputs: Sequence[Artifact] = (),
        facts: JsonObject | None = None,
    ) -> Verdict:
        """See the port."""
        return await self._verdict("fail", job_id, attempt, error, dict(timings), tuple(outputs), facts)

    async def withdraw(self, owner: str) -> None:
        """See the port."""
        await self._call("withdraw", owner)

    async def release(self, job_id: str, attempt: int) -> Verdict:
        """See the port."""
        return await self._verdict("release", job_id, attempt)

    async def acknowledge_cancel(self, job_id: str, attempt: int) -> Verdict:
        """See the port."""
        return await self._verdict("acknowledge_cancel", job_id, attempt)

    async def events(self, after: EventId | None, wait_s: float) -> EventBatch:
        """See the port."""
        batch: EventBatch = await self._call("events", after, wait_s, timeout_s=CALL_TIMEOUT_S + wait_s)
        return batch

    async def history(self, tenant: str, job_id: str) -> tuple[JobEvent, ...]:
        """See the port."""
        events: tuple[JobEvent, ...] = await self._call("history", tenant, job_id)
        return events

    async def add_file(self, record: FileRecord) -> FileRecord:
        """See the port."""
        added: FileRecord = await self._call("add_file", record)
        return added

    async def get_file(self, tenant: str, file_id: str) -> FileRecord:
        """See the port."""
        record: FileRecord = await self._call("get_file", tenant, file_id)
        return record

    async def keys_of(self, job_id: str) -> tuple[str, ...]:
        """See the port."""
        keys: tuple[str, ...] = await self._call("keys_of", job_id)
        return keys

    async def find_files(self, tenant: str, names: Sequence[str], *, uploads_first: bool) -> Mapping[str, FileRecord]:
        """See the port."""
        found: Mapping[str, FileRecord] = await self._call("find_files", tenant, tuple(names), uploads_first=uploads_first)
        return found

    async def depth(self, pool: str) -> Depth:
        """See the port."""
        depth: Depth = await self._call("depth", pool)
        return depth

    async def stats(self, tenant: str, *, sessions: bool = True) -> Stats:
        """See the port."""
        stats: Stats = await self._call("stats", tenant, sessions=sessions)
        return stats

    async def record_scaling(self, decision: ScalingDecision) -> None:
        """See the port."""
        await self._call("record_scaling", decision)

    async def scaling(self) -> tuple[ScalingDecision, ...]:
        """See the port."""
        decisions: tuple[ScalingDecision, ...] = await self._call("scaling")
        return decisions

    async def put_workflow(self, workflow: StoredWorkflow) -> StoredWorkflow:
        """See the port."""
        stored: StoredWorkflow = await self._call("put_workflow", workflow)
        return stored

    async def get_workflow(self, tenant: str, name: str, version: int | None = None) -> StoredWorkflow:
        """See the port."""
        workflow: StoredWorkflow = await self._call("get_workflow", tenant, name, version)
        return workflow

    async def list_workflows(self, tenant: str) -> tuple[StoredWorkflow, ...]:
        """See the port."""
        workflows: tuple[StoredWorkflow, ...] = await self._call("list_workflows", tenant)
        return workflows

    async def delete_workflow(self, tenant: str, name: str) -> None:
        """See the port."""
        await self._call("delete_workflow", tenant, name)

    async def configure_backends(self, specs: Sequence[BackendSpec]) -> None:
        """See the port."""
        await self._call("configure_backends", tuple(specs))

    async def add_backend(self, spec: BackendSpec) -> BackendState:
        """See the port."""
        state: BackendState = await self._call("add_backend", spec)
        return state

    async def remove_backend(self, name: str) -> None:
        """See the port."""
        await self._call("remove_backend", name)

    async def drain_backend(self, name: str, *, draining: bool) -> BackendState:
        """See the port."""
        state: BackendState = await self._call("drain_backend", name, draining=draining)
        return state

    async def announce_backend(self, owner: str, spec: BackendSpec, health: BackendHealth | None) -> None:
        """See the port."""
        await self._call("announce_backend", owner, spec, health, timeout_s=HEARTBEAT_TIMEOUT_S)

    async def backends(self) -> tuple[BackendState, ...]:
        """See the port."""
        states: tuple[BackendState, ...] = await self._call("backends")
        return states

    async def hold_backends(self, owner: str, health: Mapping[str, BackendHealth], released: Sequence[str]) -> tuple[BackendHold, ...]:
        """See the port."""
        args = (owner, dict(health), tuple(released))
        holds: tuple[BackendHold, ...] = await self._call("hold_backends", *args, timeout_s=HEARTBEAT_TIMEOUT_S)
        return holds

    async def create_latest(self, new: NewJob, file: FileRecord, interrupt_after_s: float | None) -> Latest:
        """See the port."""
        latest: Latest = await self._call("create_latest", new, file, interrupt_after_s)
        return latest

    async def session(self, tenant: str, key: str) -> SessionState:
        """See the port."""
        state: SessionState = await self._call("session", tenant, key)
        return state

    async def expired_jobs(self, rows_before: float, results_before: float, limit: int) -> ExpiredJobs:
        """See the port."""
        expired: ExpiredJobs = await self._call("expired_jobs", rows_before, results_before, limit)
        return expired

    async def forget_jobs(self, job_ids: Sequence[str]) -> None:
        """See the port."""
        await self._call("forget_jobs", tuple(job_ids))

    async def forget_old(self, jobs_before: float | None, uploads_before: float | None, limit: int) -> Forgotten:
        """See the port."""
        gone: Forgotten = await self._call("forget_old", jobs_before, uploads_before, limit)
        return gone

    async def left_over(self, limit: int) -> tuple[str, ...]:
        """See the port."""
        keys: tuple[str, ...] = await self._call("left_over", limit)
        return keys

    async def strike_off(self, keys: Sequence[str]) -> None:
        """See the port."""
        await self._call("strike_off", tuple(keys))

    async def report_strokes(self, strokes: Strokes) -> None:
        """See the port."""
        await self._call("report_strokes", strokes)

    async def put_preview(self, preview: Preview) -> bool:
        """See the port."""
        looked_at: bool = await self._call("put_preview", preview, timeout_s=HEARTBEAT_TIMEOUT_S)
        return looked_at

    async def previews(self, job_ids: Sequence[str], after: int, wait_s: float) -> tuple[Preview, ...]:
        """See the port."""
        newest: tuple[Preview, ...] = await self._call("previews", tuple(job_ids), after, wait_s, timeout_s=CALL_TIMEOUT_S + wait_s)
        return newest

    async def _verdict(self, method: str, *args: object) -> Verdict:
        verdict: Verdict = await self._call(method, *args)
        return verdict

    async def _call(self, method: str, *args: object, timeout_s: float = CALL_TIMEOUT_S, **options: object) -> Any:  # noqa: ANN401 -- each method above names its type
        try:
            if self._actor is None:
                self._actor = _find_store()
            return await _answer(getattr(self._actor, method).remote(*args, **options), timeout_s)
        except StoreUnavailable:
            self._actor = None  # it may have been replaced: look it up again at the next call
            raise


async def ensure_store(config: StoreConfig) -> None:
    """Have the store run with this code and this config: make it when there is none, replace one that runs others.

    Called when an ingress starts, and nowhere else: a worker of an older deployment that met the new store would put its own back.

    Raises:
        StoreUnavailable: it does not start.
    """
    ours = fingerprint_of(config)
    deadline = time.monotonic() + REPLACE_TIMEOUT_S
    while True:
        try:
            actor = _get_or_create_store(config, ours)
            if await _answer(actor.fingerprint.remote(), CALL_TIMEOUT_S) == ours:
                return
            log.info("replacing the job store", extra=fields(action="store_replaced"))
            ray.kill(actor, no_restart=True)
        except (StoreUnavailable, ValueError):  # the name of a killed actor is free once the cluster has noticed
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.2)


def _find_store() -> ActorHandle[Any]:
    try:
        return ray.get_actor(ACTOR_NAME, namespace=NAMESPACE)
    except ValueError:
        raise StoreUnavailable("the job store has not started yet: try again in a few seconds") from None


def _get_or_create_store(config: StoreConfig, fingerprint: str) -> ActorHandle[Any]:
    placement: dict[str, Any] = {"resources": {"node:__internal_head__": 0.001}}
    if config.node_label is not None:
        placement = {"label_selector": config.node_label}
    actor_class: Any = ray.remote(JobStoreActor)  # Ray types its own decorator only for functions and plain classes
    actor: ActorHandle[Any] = actor_class.options(
        name=ACTOR_NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,  # every method may be repeated, see ports.py
        max_concurrency=MAX_CONCURRENCY,
        enable_task_events=False,  # heartbeats would fill the cluster's task history
        runtime_env={"env_vars": {"CUDA_VISIBLE_DEVICES": ""}},  # an actor without a GPU share would still see the GPU
        **placement,
    ).remote(config, fingerprint)
    return actor


async def _answer(reference: Awaitable[Any], timeout_s: float) -> Any:  # noqa: ANN401 -- Ray's references carry no type
    try:
        async with asyncio.timeout(timeout_s):
            return await reference
    except TimeoutError:
        raise StoreUnavailable("the job store did not answer in time: it may be restarting, try again") from None
    except RayTaskError as error:
        raise _cause(error) from None
    except RayError as error:
        raise StoreUnavailable(f"the job store is away ({type(error).__name__}): it is restarted by itself, try again") from None


class UploaderHandle:
    """Implements :class:`deployments.jobs.ports.Uploader` over the Uploader deployment."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def identity(self) -> str:
        """Return which object store the uploader writes to."""
        identity: str = await self._call("identity")
        return identity

    async def begin(self, key: str, media_type: str) -> UploadToken:
        """See the port."""
        token: UploadToken = await self._call("begin", key, media_type)
        return token

    async def put_part(self, token: UploadToken, number: int, data: bytes) -> None:
        """See the port."""
        await self._call("put_part", token, number, data)

    async def complete(self, token: UploadToken, parts: int, sha256: str) -> StoredObject:
        """See the port."""
        stored: StoredObject = await self._call("complete", token, parts, sha256)
        return stored

    async def put(self, key: str, media_type: str, data: bytes, sha256: str) -> StoredObject:
        """See the port."""
        stored: StoredObject = await self._call("put", key, media_type, data, sha256)
        return stored

    async def abort(self, token: UploadToken) -> None:
        """See the port."""
        await self._call("abort", token)

    async def delete(self, key: str) -> None:
        """See the port."""
        await self._call("delete", key)

    async def open_to_client(self, key: str, media_type: str, size_bytes: int, seconds: int) -> ClientUpload | None:
        """See the port."""
        opened: ClientUpload | None = await self._call("open_to_client", key, media_type, size_bytes, seconds)
        return opened

    async def copy(self, source: str, target: str, media_type: str) -> None:
        """See the port."""
        await self._call("copy", source, target, media_type)

    async def _call(self, method: str, *args: object) -> Any:  # noqa: ANN401 -- each method above names its type
        try:
            return await self._handle.options(method_name=method).remote(*args)
        except RayTaskError as error:
            raise _cause(error) from None
        except (RayError, RayServeException) as error:  # the latter: no replica, or too many requests wait for one
            raise UploadFailed(f"the uploader is away ({type(error).__name__}): it is restarted by itself") from None


def _cause(error: RayTaskError) -> Exception:
    """Return the error that was raised on the other side; of one that nobody raised on purpose the type only, the rest is in its log."""
    cause = error.cause
    return cause if isinstance(cause, ServiceError) else RuntimeError(f"remote {type(cause).__name__}")
