"""One feed of previews per ingress replica, fanned out to those who look.

::

    JobStore ──previews(job_ids, after, wait_s)──▶ PreviewFeed ──offer──▶ Viewing (one per WebSocket that asked for pictures)
                                                       EventFeed ──offer──▶ └─ Subscription, whose events go first
                                                   PreviewFeed ──offer──▶ another PreviewReader, such as a drawing session's

One long poll over all jobs that somebody looks at; while nobody looks nothing is asked, and then the workers send no pictures either.
A picture is worth nothing once there is a newer one: each reader has at most one of each job waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator
from typing import Protocol, Self

from deployments.jobs.errors import InvalidInput
from deployments.jobs.events import JobEvent
from deployments.jobs.feed import Subscription
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import Preview
from deployments.jobs.ports import Previews

log = get_logger(__name__)

POLL_S = 1.0  # a job that somebody begins to look at is asked for when the running poll ends
PACE_S = 0.05  # between two polls that brought something: many jobs at once share an answer instead of each having one
ANSWER_GRACE_S = 5.0  # a poll that takes this much longer than it may is a store that is gone
BACKOFF_S = (0.1, 5.0)  # first and longest pause after a poll that failed


class PreviewReader(Protocol):
    """Somebody who looks at jobs."""

    @property
    def job_ids(self) -> Collection[str]:
        """The jobs that may still have previews."""

    def offer_preview(self, preview: Preview) -> None:
        """Take a preview of any job; must not block."""


class Viewing:
    """What one reader has still to hear and to see: every event that waits, then the newest preview of each job. Iterate over it."""

    def __init__(self, events: Subscription, job_ids: frozenset[str], *, by_request: bool = False) -> None:
        """Take a reader's events.

        Args:
            events: that go first.
            job_ids: the jobs that they are of.
            by_request: show one picture, and each further one after :meth:`request`. For readers behind something that takes whatever it
                is sent, as Serve's proxy does: nobody here notices how slow they are.
        """
        self._events = events
        self._by_request = by_request
        self._requested = True
        self._open = set(job_ids)
        self._newest: dict[str, Preview] = {}  # in the order of their arrival: a replacement keeps its place, so that no job starves
        self._seen: dict[str, int] = {}

    @property
    def job_ids(self) -> Collection[str]:
        """The jobs that may still have previews."""
        return self._open

    @property
    def cut_off(self) -> bool:
        """As :attr:`Subscription.cut_off`."""
        return self._events.cut_off

    def offer_preview(self, preview: Preview) -> None:
        """Take a preview of the feed, in place of one that waits."""
        if preview.job_id in self._open and preview.n > self._seen.get(preview.job_id, 0):
            self._seen[preview.job_id] = preview.n
            self._newest[preview.job_id] = preview
            self._events.wake()

    def request(self) -> None:
        """Say that the reader has shown the last picture and would like another."""
        self._requested = True
        self._events.wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobEvent | Preview:
        while not self._events.waiting:
            if self._events.ended:
                raise StopAsyncIteration
            if self._newest and self._requested:
                self._requested = not self._by_request
                return self._newest.pop(next(iter(self._newest)))
            await self._events.until_woken()
        event = await anext(self._events)
        if event.terminal:
            self._open.discard(event.job_id)
            self._newest.pop(event.job_id, None)
        return event


class PreviewFeed:
    """Reads the store's previews once and fans them out."""

    def __init__(self, store: Previews, *, poll_s: float = POLL_S) -> None:
        """Take the store; nothing is read before ``start``, nor while nobody looks.

        Args:
            store: where the previews come from.
            poll_s: length of one long poll, seconds.
        """
        self._store = store
        self._poll_s = poll_s
        self._position = 0
        self._readers: set[PreviewReader] = set()
        self._new: set[str] = set()  # jobs that a reader has just begun to look at: it has not seen their newest picture
        self._somebody = asyncio.Event()
        self._changed = asyncio.Event()  # somebody looks at another job: a poll that does not know of it is not waited for
        self._asking: set[asyncio.Task[tuple[Preview, ...]]] = set()  # such polls, until they end
        self._closing = False  # a cancellation alone may be lost: asyncio.wait_for of Python 3.11 can swallow one
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read; needs a running event loop."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="preview-feed")

    async def close(self) -> None:
        """Stop reading. Readers are told by the event feed, which closes their subscriptions."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for task in self._asking:
            task.cancel()
        if self._asking:
            await asyncio.wait(self._asking)

    @contextlib.contextmanager
    def show(self, reader: PreviewReader) -> Iterator[None]:
        """Offer previews to a reader. Whenever it looks at another job it says so by :meth:`look`."""
        self._readers.add(reader)
        try:
            yield
        finally:
            self._readers.discard(reader)

    def look(self, job_ids: Collection[str]) -> None:
        """Begin to look at jobs that a reader has just named."""
        self._new |= set(job_ids)
        self._somebody.set()
        self._changed.set()

    @contextlib.contextmanager
    def view(self, events: Subscription, *, by_request: bool = False) -> Iterator[Viewing]:
        """Add previews to an event subscription, which has checked whose the jobs are.

        Args:
            events: of named jobs.
            by_request: see :class:`Viewing`.

        Raises:
            InvalidInput: the subscription is to all jobs.
        """
        if events.job_ids is None:
            raise InvalidInput("previews are sent of named jobs only: add job_id, or leave out previews")
        viewing = Viewing(events, events.job_ids, by_request=by_request)
        with self.show(viewing):
            self.look(events.job_ids)
            yield viewing

    async def _run(self) -> None:
        pause_s, longest_s = BACKOFF_S
        while not self._closing:
            await self._somebody.wait()
            try:
                await self._step()
                pause_s = BACKOFF_S[0]
            except Exception as error:  # noqa: BLE001 -- the readers hang on this loop: it must outlive any fault of the store
                log.warning("preview feed interrupted", extra=fields(action="previews_interrupted", error=repr(error), pause_s=pause_s))
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, longest_s)

    async def _step(self) -> None:
        self._changed.clear()
        watched = {job_id for reader in self._readers for job_id in reader.job_ids}
        self._new &= watched
        if not watched:
            self._somebody.clear()
            return
        if new := frozenset(self._new):
            self._publish(await self._ask(new, 0, 0.0))
            self._new -= new
            return
        if await self._poll(watched):
            await asyncio.sleep(PACE_S)

    async def _poll(self, watched: Collection[str]) -> bool:
        """Show what is new of some jobs; False when there was nothing, or somebody began to look at another one first."""
        asking = asyncio.create_task(self._ask(watched, self._position, self._poll_s))
        changed = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait({asking, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            if not asking.done():
                self._asking.add(asking)
                asking.add_done_callback(self._asked)
        return asking.done() and self._take(asking.result())

    def _take(self, found: tuple[Preview, ...]) -> bool:
        self._publish(found)
        self._position = max((self._position, *(preview.n for preview in found)))
        return bool(found)

    def _asked(self, task: asyncio.Task[tuple[Preview, ...]]) -> None:
        """Show what a poll brings that nobody waits for any more."""
        self._asking.discard(task)
        if not task.cancelled() and task.exception() is None:
            self._take(task.result())

    async def _ask(self, job_ids: Collection[str], after: int, wait_s: float) -> tuple[Preview, ...]:
        async with asyncio.timeout(wait_s + ANSWER_GRACE_S):
            return await self._store.previews(sorted(job_ids), after, wait_s)

    def _publish(self, previews: Collection[Preview]) -> None:
        for preview in previews:
            for reader in self._readers:
                reader.offer_preview(preview)
