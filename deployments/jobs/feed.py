"""One event feed per ingress replica, fanned out to its readers.

::

    JobStore ──events(after, wait_s)──▶ EventFeed ──offer──▶ Subscription (one per SSE, WebSocket or waiting request)
                                            │  └────hear───▶ SessionReader (one per WebSocket of a drawing session)
                                            └──history(job_id), at the start of a subscription and after a gap

One long poll for the whole replica, whatever the number of readers: 200 readers of one job hear of a change within 10 ms,
against 150 ms when each polls the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from itertools import chain
from typing import Protocol, Self

from deployments.jobs.errors import JobNotFound, StoreUnavailable
from deployments.jobs.events import EventBatch, EventId, EventType, JobEvent
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import JobQuery, JobStatus
from deployments.jobs.ports import JobStore

log = get_logger(__name__)

POLL_S = 10.0
ANSWER_GRACE_S = 5.0  # a poll that takes this much longer than it may is a store that is gone
FIRST_POSITION_S = 10.0  # how long a new reader waits for a store that has not answered yet
BACKOFF_S = (0.1, 5.0)  # first and longest pause after a poll that failed
MAX_WAITING_STATES = 10_000  # per reader: one that is further behind is let go, and comes back with the id of its last event
RECENT_JOBS = 100  # a reader of all jobs gets the missed changes of so many newest ones

Histories = dict[tuple[str, str], tuple[JobEvent, ...] | None]  # (tenant, job id) -> events; None for a job that was deleted


class Subscription:
    """What one reader has still to hear: every state event, and of progress the newest of each job.

    Iterate over it. With job ids it ends by itself after the last of them has ended.
    """

    def __init__(self, tenant: str, job_ids: frozenset[str] | None) -> None:
        self.tenant = tenant
        self.job_ids = job_ids
        self._running = set(job_ids or ())
        self._states: deque[JobEvent] = deque()
        self._progress: dict[str, JobEvent] = {}  # in the order of the ids: an update moves to the end
        self._replayed: dict[str, EventId] = {}  # newest state that came from the history; the feed may bring it again
        self._closed = False
        self._news = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return not self.waiting and (self._closed or (self.job_ids is not None and not self._running))

    @property
    def cut_off(self) -> bool:
        """Whether it was closed by the feed: the reader should come back with the id of its last event."""
        return self._closed

    @property
    def waiting(self) -> bool:
        """Whether an event can be had at once."""
        return bool(self._states or self._progress)

    def offer(self, event: JobEvent) -> None:
        """Take an event of the feed; never blocks, never grows without bound."""
        if not self._wants(event):
            return
        self._progress.pop(event.job_id, None)  # older than this event, whatever that is
        if event.type is EventType.PROGRESS:
            self._progress[event.job_id] = event
        else:
            self._states.append(event)
        if len(self._states) > MAX_WAITING_STATES:
            self.close()
        self.wake()

    def replay(self, history: Iterable[JobEvent], after: EventId | None) -> None:
        """Take a job's durable events, oldest first; those up to ``after`` have been delivered before."""
        fresh: list[JobEvent] = []
        for event in history:
            if after is None or event.id > after:
                fresh.append(event)
            elif event.terminal:
                self._running.discard(event.job_id)
            self._replayed[event.job_id] = event.id
        merged = {event.id: event for event in (*self._states, *fresh)}
        self._states = deque(merged[event_id] for event_id in sorted(merged))
        self.wake()

    def forget(self, job_id: str) -> None:
        """Stop waiting for a job that was deleted."""
        self._running.discard(job_id)
        self.wake()

    def close(self) -> None:
        """End the iteration without delivering what waits."""
        self._closed = True
        self._states.clear()
        self._progress.clear()
        self.wake()

    def wake(self) -> None:
        """Have the reader look again: something waits for it, here or at whoever calls this."""
        self._news.set()

    async def until_woken(self) -> None:
        """Wait for the next :meth:`wake`; look before, without an await in between."""
        self._news.clear()
        await self._news.wait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JobEvent:
        while not self.waiting:
            if self.ended:
                raise StopAsyncIteration
            await self.until_woken()
        event = self._pop()
        if event.terminal:
            self._running.discard(event.job_id)
        return event

    def _wants(self, event: JobEvent) -> bool:
        if self._closed or event.tenant != self.tenant:
            return False
        if self.job_ids is not None and event.job_id not in self.job_ids:
            return False
        replayed = self._replayed.get(event.job_id)
        return replayed is None or event.id > replayed

    def _pop(self) -> JobEvent:
        # In the order of the ids, because a reader resumes after the last one that it saw.
        progress = next(iter(self._progress.values()), None)
        if progress is None or (self._states and self._states[0].id < progress.id):
            return self._states.popleft()
        return self._progress.pop(progress.job_id)


class SessionReader(Protocol):
    """Hears of the jobs of one session, whichever they are. It reads what there was before from the store itself."""

    def hear(self, event: JobEvent) -> None:
        """Take an event; must not block."""

    def miss(self) -> None:
        """Events may be missing here: read the session again."""

    def close(self) -> None:
        """Nothing more will come from this feed."""


class EventFeed:
    """Reads the store's feed once and fans it out."""

    def __init__(self, store: JobStore, *, poll_s: float = POLL_S) -> None:
        """Take the store; nothing is read before ``start``.

        Args:
            store: where the events come from.
            poll_s: length of one long poll, seconds.
        """
        self._store = store
        self._poll_s = poll_s
        self._position: EventId | None = None
        self._positioned = asyncio.Event()
        self._connected = False
        self._closing = False  # a cancellation alone may be lost: asyncio.wait_for of Python 3.11 can swallow one
        self._subscriptions: set[Subscription] = set()
        self._sessions: defaultdict[tuple[str, str], set[SessionReader]] = defaultdict(set)  # by (tenant, key): others' cost them nothing
        self._task: asyncio.Task[None] | None = None
        self._left = 0
        self._leaving = asyncio.Event()  # a fresh one after each batch in which jobs left

    @property
    def left(self) -> int:
        """At least how many jobs have left a queue since this feed began."""
        return self._left

    async def until_left(self, count: int) -> None:
        """Wait until :attr:`left` has come to a number."""
        while self._left < count:
            await self._leaving.wait()

    @property
    def connected(self) -> bool:
        """Whether the store answered the last poll: tells readiness without another call."""
        return self._connected

    def start(self) -> None:
        """Begin to read; needs a running event loop."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="event-feed")

    async def close(self) -> None:
        """Stop reading and end every subscription: the readers come back to another replica with their last id."""
        self._closing = True
        for subscription in self._subscriptions:
            subscription.close()
        for reader in self._session_readers():
            reader.close()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @contextlib.asynccontextmanager
    async def subscribe(
        self, tenant: str, job_ids: Collection[str] | None = None, after: EventId | None = None
    ) -> AsyncIterator[Subscription]:
        """Open a subscription: the durable history after ``after`` first, then what happens.

        Args:
            tenant: whose jobs.
            job_ids: which jobs; None for all of the tenant, now and later.
            after: the last event that the reader saw. None replays the given jobs from their beginning, and all jobs from now.

        Raises:
            JobNotFound: one of the jobs does not exist.
            StoreUnavailable: the history cannot be read now.
        """
        await self._first_position()
        subscription = Subscription(tenant, None if job_ids is None else frozenset(job_ids))
        self._subscriptions.add(subscription)  # before the history is read: what happens meanwhile must not be lost
        try:
            for job_id in job_ids or ():
                subscription.replay(await self._store.history(tenant, job_id), after)
            if job_ids is None and after is not None:
                await self._replay_known(subscription, after, {})
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    @contextlib.asynccontextmanager
    async def follow_session(self, tenant: str, key: str, reader: SessionReader) -> AsyncIterator[None]:
        """Offer a reader every event of the jobs under a coalesce key, from now on.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        await self._first_position()
        self._sessions[tenant, key].add(reader)
        try:
            yield
        finally:
            self._sessions[tenant, key].discard(reader)
            if not self._sessions[tenant, key]:
                del self._sessions[tenant, key]

    async def _first_position(self) -> None:
        try:
            async with asyncio.timeout(FIRST_POSITION_S):
                await self._positioned.wait()
        except TimeoutError:
            raise StoreUnavailable("the job store does not answer: try again in a few seconds") from None

    async def _run(self) -> None:
        pause_s, longest_s = BACKOFF_S
        while not self._closing:
            try:
                await self._step()
                pause_s = BACKOFF_S[0]
            except Exception as error:  # noqa: BLE001 -- the readers hang on this loop: it must outlive any fault of the store
                log.warning("event feed interrupted", extra=fields(action="feed_interrupted", error=repr(error), pause_s=pause_s))
                self._connected = False
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, longest_s)

    async def _step(self) -> None:
        wait_s = self._poll_s if self._connected else 0.0  # the first answer after an outage is wanted at once
        async with asyncio.timeout(wait_s + ANSWER_GRACE_S):
            batch = await self._store.events(self._position, wait_s)
        if batch.gap:
            await self._read_again()
        self._publish(batch)
        self._position = batch.last_id
        self._connected = True
        self._positioned.set()

    def _publish(self, batch: EventBatch) -> None:
        left = sum(event.type is EventType.STATE and event.status is not JobStatus.QUEUED for event in batch.events)
        if left:
            self._left += left
            leaving, self._leaving = self._leaving, asyncio.Event()
            leaving.set()
        for event in batch.events:
            for subscription in self._subscriptions:
                subscription.offer(event)
            if event.coalesce_key is not None:
                for reader in self._sessions.get((event.tenant, event.coalesce_key), ()):
                    reader.hear(event)

    def _session_readers(self) -> Iterator[SessionReader]:
        return chain.from_iterable(tuple(self._sessions.values()))

    async def _read_again(self) -> None:
        """Replay from the histories what the feed missed; a second time does no harm."""
        log.info("event feed has a gap", extra=fields(action="feed_gap", readers=len(self._subscriptions)))
        for reader in self._session_readers():
            reader.miss()
        histories: Histories = {}
        for subscription in tuple(self._subscriptions):
            await self._replay_known(subscription, self._position, histories)

    async def _replay_known(self, subscription: Subscription, after: EventId | None, histories: Histories) -> None:
        for job_id in await self._job_ids(subscription):
            key = (subscription.tenant, job_id)
            if key not in histories:
                histories[key] = await self._history(*key)
            history = histories[key]
            if history is None:
                subscription.forget(job_id)
            else:
                subscription.replay(history, after)

    async def _history(self, tenant: str, job_id: str) -> tuple[JobEvent, ...] | None:
        try:
            return await self._store.history(tenant, job_id)
        except JobNotFound:
            return None  # deleted since

    async def _job_ids(self, subscription: Subscription) -> Collection[str]:
        if subscription.job_ids is not None:
            return subscription.job_ids
        page = await self._store.list_jobs(JobQuery(tenant=subscription.tenant, limit=RECENT_JOBS))
        return [job.id for job in page.jobs]
