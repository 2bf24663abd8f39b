"""What a drawing client may do: send a sketch, read the styles and the newest picture. Everything else is the job system's."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deployments.drawing.binder import KIND, SketchBinder
from deployments.drawing.config import DrawingConfig
from deployments.drawing.stroke_watch import StrokeWatch
from deployments.drawing.styles import StyleBook, StyleShelf
from deployments.engines.media.limits import MediaLimits
from deployments.jobs.errors import InvalidInput, NoResultYet, SessionNotFound, Unavailable
from deployments.jobs.feed import EventFeed
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import Artifact, FileRecord, NewJob
from deployments.jobs.ports import JobStore, ObjectReader, Uploader
from deployments.jobs.preview_feed import PreviewFeed
from deployments.jobs.sessions import Latest, SessionState, SessionStore
from deployments.jobs.spec import POOL_BY_KIND

if TYPE_CHECKING:  # codecs: an ingress in which nobody draws does without them
    from deployments.engines.media.sketch import Sketch

log = get_logger(__name__)

SESSION_ID = re.compile(r"[A-Za-z0-9_-]{8,128}")
PER_SWEEP = 200  # jobs that are removed at a time
DELETES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class DrawingParts:
    """What the desk is made of."""

    store: JobStore
    sessions: SessionStore
    feed: EventFeed
    previews: PreviewFeed
    uploader: Uploader
    reader: ObjectReader
    styles: StyleBook
    binder: SketchBinder
    limits: MediaLimits
    check_room: Callable[[], None]
    config: DrawingConfig = field(default_factory=DrawingConfig)


class DrawingDesk:
    """Sessions of people who draw."""

    def __init__(self, parts: DrawingParts) -> None:
        self.config = parts.config
        self.feed = parts.feed
        self.previews = parts.previews
        self.sessions = parts.sessions
        self.limits = parts.limits.model_copy(
            update={"max_bytes": parts.config.max_bytes, "max_side_px": min(parts.config.max_side_px, parts.limits.max_side_px)}
        )
        self.strokes = StrokeWatch(parts.sessions)
        self._parts = parts
        self._removing: set[asyncio.Task[None]] = set()
        self._sweeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to report figures and to remove what is too old; needs a running event loop."""
        self.strokes.start()
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep_forever(), name="drawing-sweep")

    async def close(self) -> None:
        """Stop both."""
        await self.strokes.close()
        tasks = [*self._removing, *([self._sweeping] if self._sweeping else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def shelf(self) -> StyleShelf:
        """Return the styles."""
        return await self._parts.styles.shelf()

    async def submit(
        self, tenant: str, session_id: str, sketch: Sketch, style: str | None, settings: Mapping[str, Any], seq: int | None = None
    ) -> Latest:
        """Accept a sketch as the newest of its session.

        Raises:
            StyleNotFound: no such style.
            WorkflowInvalid: settings that the style does not take.
            BackendNotConfigured: there is no ComfyUI server.
            SessionsFull: as many people draw as are admitted at once.
            QueueFull: too many jobs wait.
            DiskFull: the disk has too little room.
        """
        self._parts.check_room()
        plan = await self._parts.binder.plan(tenant, style, settings)
        file_id = str(uuid.uuid4())
        key = f"sketches/{tenant}/{file_id}"
        sha256 = hashlib.sha256(sketch.data).hexdigest()
        stored = await self._parts.uploader.put(key, sketch.media_type, sketch.data, sha256)
        name = f"{file_id}.{sketch.media_type.partition('/')[2]}"
        file = FileRecord(file_id, tenant, stored.key, name, sketch.media_type, stored.size_bytes, sha256, time.time())
        new = NewJob(
            id=str(uuid.uuid4()),
            kind=KIND,
            pool=POOL_BY_KIND["comfyui"],
            spec=plan.with_sketch(file),
            fingerprint=file_id,
            tenant=tenant,
            priority=self.config.priority,
            requires=plan.requires,
            timeout_s=self.config.timeout_s,
            coalesce_key=session_id,
            coalesce_seq=seq,
        )
        used = False
        try:
            latest = await self.sessions.create_latest(new, file, self.config.interrupt_after_s)
            used = latest.job is not None
        except Unavailable:
            used = True  # whether it was written is not known: bytes without a record cost space, a record without bytes costs trust
            raise
        finally:
            if not used:
                self._remove_soon([stored.key])
        self._remove_soon(latest.dropped)
        return latest

    async def state(self, tenant: str, session_id: str) -> SessionState | None:
        """Read a session; None when nothing is known of it."""
        try:
            return await self.sessions.session(tenant, session_id)
        except SessionNotFound:
            return None

    async def result(self, tenant: str, session_id: str) -> FileRecord:
        """Return the newest picture of a session.

        Raises:
            SessionNotFound: nothing is known of it (any more).
            NoResultYet: nothing is ready yet; says why nothing will be, where the newest sketch has failed.
        """
        state = await self.sessions.session(tenant, checked_session_id(session_id))
        artifact = picture_of(state.result.outputs) if state.result else None
        if artifact is not None:
            return await self._parts.store.get_file(tenant, artifact.file_id)
        if state.newest.error is not None:
            raise NoResultYet(f"the newest sketch of this session has no picture: {state.newest.error.message}")
        raise NoResultYet("no picture of this session is ready yet: ask again, or listen on its WebSocket")

    async def read_picture(self, artifact: Artifact) -> bytes:
        """Read a picture whole."""
        return b"".join([chunk async for chunk in self._read(artifact)])

    def _read(self, artifact: Artifact) -> AsyncIterator[bytes]:
        return self._parts.reader.read(artifact.key)

    async def sweep(self) -> int:
        """Remove what is too old and return how many jobs that was."""
        now, removed = time.time(), 0
        while True:
            rows_before, results_before = now - self.config.rows_s, now - self.config.results_s
            expired = await self.sessions.expired_jobs(rows_before, results_before, PER_SWEEP)
            await self._remove(expired.keys)  # before their rows: whatever breaks in between, the rows still name what is left
            if expired.job_ids:
                await self.sessions.forget_jobs(expired.job_ids)
            removed += len(expired.job_ids)
            if len(expired.job_ids) < PER_SWEEP:
                return removed

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(self.config.sweep_s)
            try:
                await self.sweep()
            except Exception as error:  # noqa: BLE001 -- rows would grow without bound
                log.warning("sweep of sessions failed", extra=fields(action="session_sweep_failed", error=repr(error)))

    def _remove_soon(self, keys: Iterable[str]) -> None:
        keys = tuple(keys)
        if keys:
            task = asyncio.get_running_loop().create_task(self._remove(keys))
            self._removing.add(task)
            task.add_done_callback(self._removing.discard)

    async def _remove(self, keys: Iterable[str]) -> None:
        room = asyncio.Semaphore(DELETES_AT_ONCE)

        async def remove(key: str) -> None:
            async with room:
                with contextlib.suppress(Unavailable):  # an orphan costs disk, not truth
                    await self._parts.uploader.delete(key)

        await asyncio.gather(*(remove(key) for key in keys))


def new_session_id() -> str:
    """Return an id that nobody guesses: whoever holds it sees the session."""
    return secrets.token_urlsafe(18)


def checked_session_id(text: str) -> str:
    """Return an id that may be one.

    Raises:
        InvalidInput: it may not: too short to be unguessable, or other characters.
    """
    if SESSION_ID.fullmatch(text) is None:
        raise InvalidInput("a session id has 8 to 128 of A-Z, a-z, 0-9, _ and -: take one that nobody can guess, or leave it out")
    return text


def picture_of(outputs: Iterable[Artifact]) -> Artifact | None:
    """Return the picture among a job's outputs: what it saved, else what it only showed."""
    pictures = [artifact for artifact in outputs if artifact.media_type.startswith("image/")]
    return next((one for one in pictures if not one.temporary), next(iter(pictures), None))
