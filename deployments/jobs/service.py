"""What a client may do, in the words of the domain: every HTTP dialect and every Ray job comes through here.

No HTTP and no Ray. The tenant is an argument everywhere. Methods that name a job raise ``JobNotFound`` when there is none for the
tenant; every method raises ``StoreUnavailable`` when the store does not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.jobs.capabilities import Capabilities
from deployments.jobs.errors import (
    ConsentRequired,
    FileNotFound,
    InvalidInput,
    JobNotFound,
    JobNotTerminal,
    SigningNotConfigured,
    Unavailable,
)
from deployments.jobs.events import EventId, JobEvent
from deployments.jobs.feed import EventFeed, Subscription
from deployments.jobs.fingerprint import fingerprint_of_retry, fingerprint_of_submit
from deployments.jobs.intake import MediaIntake, Rename, may_be_name
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import (
    DEFAULT_TENANT,
    FileRecord,
    Job,
    JobPage,
    JobQuery,
    JobStatus,
    NewJob,
    Repeat,
    ScalingDecision,
    Stats,
)
from deployments.jobs.options import UUID, JobOptions
from deployments.jobs.ports import JobStore, ObjectReader, Plan, Planner, Uploader
from deployments.jobs.preview_feed import PreviewFeed, Viewing
from deployments.jobs.spec import POOL_BY_KIND, JobSpec
from deployments.jobs.webhook import WebhookTarget

log = get_logger(__name__)

IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")  # printable ASCII without blanks


FACE_KINDS = frozenset({"faceswap", "face2face"})  # that change what a person seems to do or say


class ServiceConfig(BaseModel):
    """Limits of the job service."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_wait_s: float = Field(60.0, ge=0, description="longest wait of one request for the end of a job")
    max_watched: int = Field(100, ge=1, description="jobs that one subscription may name")
    min_free_bytes: int = Field(
        2**30,
        ge=0,
        description="free space of the data's disk below which no job and no upload is accepted (507); 0 accepts to the last byte",
    )
    files_from: Literal["service", "store"] = Field(
        "service",
        description="who sends the bytes of files: this service, or the bucket, to which GET /v1/files/{id} then sends clients on",
    )
    store_link_s: int = Field(3600, ge=1, le=7 * 24 * 3600, description="seconds that a link to the bucket is good for; S3 allows a week")
    can_sign: bool = Field(False, description="whether results can be signed")
    storages: frozenset[str] = Field(frozenset(), description="stores that a job may choose")
    require_consent: bool = Field(False, description="refuse faceswap and face2face jobs that come without `consent`")


@dataclass(frozen=True, slots=True)
class Submission:
    """The answer to a submit."""

    job: Job
    created: bool  # False: an earlier, equal request had made the job


class JobService:
    """Submit, read, wait, watch, cancel, retry, delete; files in and out; what the installation can do."""

    def __init__(
        self,
        *,
        store: JobStore,
        feed: EventFeed,
        previews: PreviewFeed,
        intake: MediaIntake,
        uploader: Uploader,
        reader: ObjectReader,
        capabilities: Callable[[], Awaitable[Capabilities]],
        planners: Mapping[str, Planner] | None = None,
        check_room: Callable[[], None] | None = None,
        check_webhook: Callable[[WebhookTarget | None], None] | None = None,
        config: ServiceConfig | None = None,
    ) -> None:
        """Take the parts.

        Args:
            store: of jobs.
            feed: of events, started by the caller.
            previews: of running jobs, started by the caller.
            intake: brings media in.
            uploader: removes them.
            reader: reads them.
            capabilities: what is installed, as of now.
            planners: by kind, for kinds whose requests are more than what is stored of them.
            check_room: raises ``DiskFull``.
            check_webhook: raises when a job may not have this receiver.
            config: limits.
        """
        self._store = store
        self._feed = feed
        self._previews = previews
        self._intake = intake
        self._uploader = uploader
        self._reader = reader
        self._capabilities = capabilities
        self._planners = planners or {}
        self._check_room = check_room or (lambda: None)
        self._check_webhook = check_webhook or (lambda _target: None)
        self._config = config or ServiceConfig()

    # Jobs.

    async def submit(
        self,
        spec: JobSpec,
        options: JobOptions | None = None,
        *,
        tenant: str = DEFAULT_TENANT,
        idempotency_key: str | None = None,
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> Submission:
        """Accept a job; when this returns it is on disk.

        Args:
            spec: what to compute.
            options: how.
            tenant: who asks.
            idempotency_key: sending the same request again with the same key finds the first one's job.
            check: raises what else is wrong with the request. Like everything that it refers to, a repeat is not checked again.

        Raises:
            InvalidInput: a reference that cannot be used, a malformed key, or a kind that no pool here runs.
            ConsentRequired: a face job without consent, where the operator asks for it.
            SigningNotConfigured: ``c2pa`` is asked for where nothing can be signed.
            FileNotFound: a reference to a file that does not exist.
            JobExists: the client-made id is taken by another payload.
            IdempotencyConflict: the key was used for another payload.
            QueueFull: too many jobs wait.
            DiskFull: the disk has too little room.
        """
        options = options or JobOptions()
        repeat = Repeat(tenant, options.id, _checked_key(idempotency_key), fingerprint_of_submit(spec, options))
        known = await self._find(repeat)
        if known is not None:
            return known
        self._check_room()
        await self._check_kind(spec.kind)
        if self._config.require_consent and spec.kind in FACE_KINDS and options.consent is None:
            raise ConsentRequired
        if options.c2pa and not self._config.can_sign:
            raise SigningNotConfigured
        if options.storage is not None and options.storage not in self._config.storages:
            offered = ", ".join(sorted(self._config.storages)) or "none besides the usual one, which is taken when storage is left out"
            raise InvalidInput(f"results cannot be kept in {options.storage} here: there is {offered}")
        self._check_webhook(options.webhook)
        if check is not None:
            await check()
        plan = await self._plan(tenant, spec)
        new = NewJob(
            id=options.id or str(uuid.uuid4()),
            kind=spec.kind,
            pool=plan.pool or POOL_BY_KIND[spec.kind],
            spec={**plan.spec, **options.kept()},
            fingerprint=repeat.fingerprint,
            tenant=tenant,
            priority=options.priority,
            requires=plan.requires,
            max_attempts=options.max_attempts,
            timeout_s=options.timeout_s if plan.timeout_s is None else plan.timeout_s,
            estimate_s=plan.estimate_s,
            labels=options.labels,
            webhook=options.webhook.model_dump(mode="json") if options.webhook else None,
            idempotency_key=repeat.idempotency_key,
        )
        return await self._create(new)

    async def get(self, job_id: str, *, wait_s: float = 0.0, tenant: str = DEFAULT_TENANT) -> Job:
        """Read a job, waiting up to ``wait_s`` (and never longer than ``ServiceConfig.max_wait_s``) for its end."""
        job = await self._store.get(tenant, _checked_job_id(job_id))
        return await self._ended(job, wait_s)

    async def wait(self, job: Job, wait_s: float) -> Job:
        """Wait as :meth:`get` does for the end of a job that this service has just answered with.

        A store that goes away meanwhile changes nothing about what was accepted: the job then comes back as it was given.
        """
        try:
            return await self._ended(job, wait_s)
        except Unavailable:
            log.warning("wait broken off", extra=fields(action="wait_broken_off", job_id=job.id))
            return job

    def clamp_wait(self, wait_s: float) -> float:
        """Return how long a request may wait that asks for ``wait_s``."""
        return min(wait_s, self._config.max_wait_s)

    async def list_jobs(self, query: JobQuery) -> JobPage:
        """List jobs, newest first.

        Raises:
            InvalidInput: a cursor that is none of ours.
        """
        return await self._store.list_jobs(query)

    async def cancel(self, job_id: str, *, tenant: str = DEFAULT_TENANT) -> Job:
        """Cancel: at once when queued, soon when running, no change when ended."""
        return await self._store.cancel(tenant, _checked_job_id(job_id))

    async def cancel_all(self, kind: str, status: JobStatus, *, tenant: str = DEFAULT_TENANT) -> tuple[str, ...]:
        """Cancel every job of a kind that waits (QUEUED) or runs (RUNNING); returns those that this call cancelled, oldest first."""
        return await self._store.cancel_all(tenant, kind, status)

    async def retry(self, job_id: str, *, tenant: str = DEFAULT_TENANT, idempotency_key: str | None = None) -> Submission:
        """Submit an ended job again as a new one that names it in ``retry_of``.

        Raises:
            JobNotTerminal: the job has not ended.
        """
        repeat = Repeat(tenant, None, _checked_key(idempotency_key), fingerprint_of_retry(_checked_job_id(job_id)))
        known = await self._find(repeat)
        if known is not None:
            return known
        job = await self._store.get(tenant, job_id)
        if not job.status.terminal:
            raise JobNotTerminal(job_id, job.status)
        self._check_room()
        new = NewJob(
            id=str(uuid.uuid4()),
            kind=job.kind,
            pool=job.pool,
            spec=job.spec,
            fingerprint=repeat.fingerprint,
            tenant=tenant,
            priority=job.priority,
            requires=job.requires,
            max_attempts=job.max_attempts,
            timeout_s=job.timeout_s,
            parent_id=job.parent_id,
            estimate_s=job.estimate_s,
            webhook=job.webhook,
            labels=job.labels,
            retry_of=job.id,
            idempotency_key=repeat.idempotency_key,
        )
        return await self._create(new)

    async def delete(self, job_id: str, *, tenant: str = DEFAULT_TENANT) -> None:
        """Forget an ended job and remove the bytes of the files that go with it.

        Raises:
            JobNotTerminal: the job has not ended.
        """
        # The bytes go first: whatever breaks in between, the job still names what is left, and the same request finishes it.
        job = await self._store.get(tenant, _checked_job_id(job_id))
        if not job.status.terminal:
            raise JobNotTerminal(job_id, job.status)
        for key in await self._store.keys_of(job_id):
            await self._uploader.delete(key)
        with contextlib.suppress(JobNotFound):  # an equal request was faster
            await self._store.delete(tenant, job_id)

    # Events.

    def subscribe(
        self, job_ids: Collection[str] | None = None, after: EventId | None = None, *, tenant: str = DEFAULT_TENANT
    ) -> AbstractAsyncContextManager[Subscription]:
        """Open a subscription, as :meth:`EventFeed.subscribe`; entering it raises, iterating over it does not.

        Raises:
            InvalidInput: more jobs than one subscription may name.
        """
        if job_ids is not None and len(job_ids) > self._config.max_watched:
            raise InvalidInput(f"one subscription may name {self._config.max_watched} jobs: open several, or watch all jobs")
        checked = None if job_ids is None else [_checked_job_id(job_id) for job_id in job_ids]
        return self._feed.subscribe(tenant, checked, after)

    @contextlib.asynccontextmanager
    async def subscribe_with_previews(
        self,
        job_ids: Collection[str] | None = None,
        after: EventId | None = None,
        *,
        tenant: str = DEFAULT_TENANT,
        by_request: bool = False,
    ) -> AsyncIterator[Viewing]:
        """Open a subscription that brings the newest previews of its jobs too, for as long as they run; as :class:`Viewing` says.

        Raises:
            InvalidInput: no jobs are named, or more than one subscription may name.
        """
        async with self.subscribe(job_ids, after, tenant=tenant) as events:
            with self._previews.view(events, by_request=by_request) as viewing:
                yield viewing

    async def watch(
        self, job_ids: Collection[str] | None = None, after: EventId | None = None, *, tenant: str = DEFAULT_TENANT
    ) -> AsyncIterator[JobEvent]:
        """Iterate over the events of some jobs until all of them have ended, or over those of all jobs for ever."""
        async with self.subscribe(job_ids, after, tenant=tenant) as subscription:
            async for event in subscription:
                yield event

    # Files.

    async def create_file(
        self,
        name: str,
        declared: str | None,
        chunks: AsyncIterator[bytes],
        *,
        tenant: str = DEFAULT_TENANT,
        rename: Rename | None = None,
    ) -> FileRecord:
        """Stream a file into the object store and publish it; as :meth:`MediaIntake.store_file`."""
        self._check_room()
        return await self._intake.store_file(tenant, name, declared, chunks, rename)

    async def find_file(self, name: str, *, tenant: str = DEFAULT_TENANT, uploads_first: bool = False) -> FileRecord:
        """Read the record of the newest upload or output of a name.

        Raises:
            FileNotFound: no file has it.
        """
        names = [name] if may_be_name(name) else []
        found = (await self._store.find_files(tenant, names, uploads_first=uploads_first)).get(name) if names else None
        if found is None:
            raise FileNotFound(name)
        return found

    async def get_file(self, file_id: str, *, tenant: str = DEFAULT_TENANT) -> FileRecord:
        """Read the record of an upload or an output.

        Raises:
            FileNotFound: no such file for this tenant.
        """
        if UUID.fullmatch(file_id) is None:
            raise FileNotFound(file_id)
        return await self._store.get_file(tenant, file_id)

    def read_file(self, record: FileRecord, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Stream bytes ``start`` (included) to ``end`` (excluded; None: to the end) of a file."""
        return self._reader.read(record.key, start, end)

    async def store_link(self, record: FileRecord, disposition: str) -> str | None:
        """Return where the object store itself sends a file from, for a while; None when this service sends it."""
        if self._config.files_from == "service":
            return None
        return await self._reader.link(record.key, self._config.store_link_s, record.media_type, disposition)

    # The installation.

    async def stats(self, *, tenant: str = DEFAULT_TENANT, sessions: bool = True) -> Stats:
        """Return counts and percentiles, those of drawing sessions' jobs included or not."""
        return await self._store.stats(tenant, sessions=sessions)

    async def scaling(self) -> tuple[ScalingDecision, ...]:
        """Return the autoscaler's newest decisions and their reasons."""
        return await self._store.scaling()

    async def capabilities(self) -> Capabilities:
        """Return engines, models, backends, formats and limits."""
        return await self._capabilities()

    def ready(self) -> bool:
        """Whether the store answered lately; asks the feed, so that a probe costs the store nothing."""
        return self._feed.connected

    async def _check_kind(self, kind: str) -> None:
        """Refuse what would wait for ever: no replica claims from a pool that is not deployed."""
        kinds = sorted({engine.kind for engine in (await self._capabilities()).engines})
        if kind not in kinds:
            raise InvalidInput(f"this installation runs no {kind} jobs: it offers {', '.join(kinds) or 'none'}")

    async def _find(self, repeat: Repeat) -> Submission | None:
        """Look for the job of an equal request before anything of this one is checked: what it refers to may be gone by now."""
        if repeat.job_id is None and repeat.idempotency_key is None:
            return None
        job = await self._store.find_repeat(repeat)
        return Submission(job, created=False) if job is not None else None

    async def _create(self, new: NewJob) -> Submission:
        job, created = await self._store.create(new)
        log.info("job accepted", extra=fields(action="job_accepted", job_id=job.id, kind=job.kind, created=created))
        return Submission(job, created)

    async def _plan(self, tenant: str, spec: JobSpec) -> Plan:
        planner = self._planners.get(spec.kind)
        return Plan(await self._intake.stored_spec(tenant, spec)) if planner is None else await planner.plan(tenant, spec)

    async def _ended(self, job: Job, wait_s: float) -> Job:
        wait_s = self.clamp_wait(wait_s)
        if job.status.terminal or wait_s <= 0:
            return job
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._until_ended(job.tenant, job.id)
        return await self._store.get(job.tenant, job.id)

    async def _until_ended(self, tenant: str, job_id: str) -> None:
        async with self._feed.subscribe(tenant, [job_id]) as subscription:
            async for _ in subscription:
                pass


def _checked_job_id(job_id: str) -> str:
    if UUID.fullmatch(job_id) is None:  # no text of a client reaches a query before it looks like an id
        raise JobNotFound(job_id)
    return job_id


def _checked_key(key: str | None) -> str | None:
    if key is not None and IDEMPOTENCY_KEY.fullmatch(key) is None:
        raise InvalidInput("an Idempotency-Key has 1 to 255 printable ASCII characters, no blanks")
    return key
