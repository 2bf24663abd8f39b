"""One client of a session: what it draws goes in, and of what becomes of it always the newest comes out.

::

    offer(sketch) ─▶ the newest one that waits ─▶ DrawingDesk.submit, one at a time
    EventFeed, PreviewFeed ─▶ the newest progress, preview and picture that wait ─▶ messages()

Neither way grows behind something slow. A sketch that comes while the one before is being accepted takes the place of another that
waits here; a picture that comes while the client is busy takes the place of an older one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deployments.drawing.desk import DrawingDesk, picture_of
from deployments.drawing.messages import Accepted, Completed, Failed, Message, Offer, Processing, Shown, Skipped
from deployments.drawing.sketches import is_alike, read
from deployments.jobs.errors import ServiceError, SessionsFull, Unavailable
from deployments.jobs.events import EventType, JobEvent
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import Artifact, JobStatus, Preview

if TYPE_CHECKING:  # codecs: an ingress in which nobody draws does without them
    from deployments.engines.media.sketch import Sketch

log = get_logger(__name__)

LONGEST_REST_S = 0.25
LONGEST_HOLD_S = 2.0  # for a feed that is interrupted
NEAR = 1  # of the jobs ahead of a sketch, how many may be left when a newer one takes its place
ASK_AGAIN_S = 1.0  # how often a sketch is tried again that there was no room for
READ_AGAIN_S = 1.0  # pause while the store is away
MAX_STATES = 1000  # events that may wait for a client; one further behind reads the session again
MAX_ANSWERS = 100  # the same of answers: whoever sends nonsense without reading gets the newest
MAX_FOLLOWED = 100  # jobs of whose number a client's previews need to know


class Conversation:
    """A client on its WebSocket. Its methods are called on one event loop."""

    def __init__(self, desk: DrawingDesk, tenant: str, session_id: str) -> None:
        self._desk = desk
        self._watch = desk.strokes.client()
        self._tenant = tenant
        self._session_id = session_id
        self._next: Offer | None = None
        self._offered = asyncio.Event()
        self._news = asyncio.Event()
        self._answers: deque[Message] = deque(maxlen=MAX_ANSWERS)
        self._states: deque[JobEvent] = deque()
        self._progress: JobEvent | None = None
        self._preview: Shown | None = None
        self._completed: Completed | None = None
        self._seq_of: OrderedDict[str, int] = OrderedDict()  # of the jobs that may have previews
        self._missed = True  # whether the session has to be read
        self._closed = False
        self._shown_seq = 0
        self._previewed_seq = 0
        self._ended_seq = 0
        self._last: tuple[Sketch, str | None, Mapping[str, Any], int] | None = None  # newest that was accepted
        self._failed_seq = 0
        self._active_at = time.monotonic()
        self._wants_previews = False
        self.by_request = False  # pictures one at a time, each after request(): see Viewing in deployments.jobs.preview_feed
        self._requested = True

    # What a client says.

    def offer(self, offer: Offer) -> None:
        """Take a sketch, in place of one that waits here."""
        self._active_at = time.monotonic()
        self._watch.arrived(offer.arrived)
        if self._next is not None:
            self._watch.dropped()
        self._next = offer
        self._offered.set()

    def answer(self, message: Message) -> None:
        """Say something about what the client has sent."""
        self._answers.append(message)
        self._news.set()

    def request(self) -> None:
        """Take note that the client has shown a picture and would like another."""
        self._requested = True
        self._news.set()

    def want_previews(self) -> None:
        """Begin to look at what computes."""
        self._wants_previews = True
        self._desk.previews.look(self.job_ids)

    # What the feeds say: SessionReader and PreviewReader.

    @property
    def job_ids(self) -> Collection[str]:
        """The jobs whose previews are wanted."""
        return tuple(self._seq_of) if self._wants_previews else ()

    def hear(self, event: JobEvent) -> None:
        """Take an event of this session."""
        self._active_at = time.monotonic()
        if event.type is EventType.PROGRESS:
            self._progress = event
        else:
            self._states.append(event)
            if len(self._states) > MAX_STATES:
                self.miss()
        self._news.set()

    def offer_preview(self, preview: Preview) -> None:
        """Take a preview of any job."""
        seq = self._seq_of.get(preview.job_id)
        if seq is not None and seq > self._shown_seq and seq >= self._previewed_seq:
            self._previewed_seq = seq
            self._preview = Shown(seq, preview)
            self._watch.previewed(seq)
            self._news.set()

    def miss(self) -> None:
        """Take note that events are missing."""
        self._states.clear()
        self._missed = True
        self._news.set()

    @property
    def cut_off(self) -> bool:
        """Whether the feed has ended, and the client is to come back to another replica."""
        return self._closed

    def close(self) -> None:
        """Take note that the feed has ended."""
        self._closed = True
        self._news.set()

    # The two directions.

    async def submit_forever(self) -> None:
        """Accept what is offered, always the newest, when it may make a difference.

        A sketch whose turn comes after several others' is not replaced in the job store before it is near: here, a newer one takes the
        place of an older one for nothing, there, it costs what the computing needs. For the same reason there is a rest as long as the
        accepting took, which so takes half of the time at most.
        """
        while True:
            await self._offered.wait()
            self._offered.clear()
            offer, self._next = self._next, None
            if offer is not None:
                began, left = time.monotonic(), self._desk.feed.left
                ahead = await self._submit(offer)
                if ahead == 0:
                    continue  # it may leave at any moment: what comes next must not miss that
                await asyncio.sleep(min(time.monotonic() - began, LONGEST_REST_S))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LONGEST_HOLD_S):
                        await self._desk.feed.until_left(left + ahead - NEAR)

    async def messages(self) -> AsyncGenerator[Message, None]:
        """Yield what the client shall hear, for ever: until the feed closes or nobody has drawn for too long."""
        async with self._desk.feed.follow_session(self._tenant, self._session_id, self):
            with self._desk.previews.show(self):
                async for message in self._messages():
                    yield message

    async def _messages(self) -> AsyncIterator[Message]:
        while not self._closed:
            self._news.clear()
            try:
                ready = await self._ready()
            except Unavailable as error:
                log.warning("session not read", extra=fields(action="session_unread", reason=str(error)))
                self.miss()
                await asyncio.sleep(READ_AGAIN_S)
                continue
            for message in ready:
                yield message
            if not self._news.is_set() and await self._is_idle():
                yield Failed("nobody has drawn for a while, so this session has ended: open it again to go on", "session_expired")
                return

    async def _is_idle(self) -> bool:
        """Wait for news; whether none came for as long as a session may rest."""
        rest_s = self._active_at + self._desk.config.idle_s - time.monotonic()
        if rest_s <= 0:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rest_s):
                await self._news.wait()
        return False

    async def _ready(self) -> list[Message]:
        """Return everything that can be said now: answers, then ends, then the newest picture and progress."""
        found: list[Message] = []
        if self._missed:
            self._missed = False
            await self._read_session()
        while self._states:
            found += self._of_state(self._states.popleft())
        found = [*self._take_answers(), *found]
        if self._progress is not None:
            event, self._progress = self._progress, None
            found += self._of_progress(event)
        picture = self._picture()
        return found if picture is None else [*found, picture]

    def _picture(self) -> Completed | Shown | None:
        """Return the newest picture, a finished one before a preview, when the client wants one."""
        if self._preview is not None and self._preview.seq <= self._shown_seq:
            self._preview = None  # what it showed is done
        if not self._requested or (self._completed is None and (self._preview is None or self._may_be_overtaken(self._preview.seq))):
            return None
        self._requested = not self.by_request
        if self._completed is not None:
            completed, self._completed = self._completed, None
            self._watch.completed(completed.seq)
            if self._preview is not None:
                self._news.set()  # it waited for this one
            return completed
        shown, self._preview = self._preview, None
        return shown

    def _may_be_overtaken(self, seq: int) -> bool:
        """Whether a picture of an older sketch is still to come, as one that is being stored: after this one it would be a step back."""
        return any(older < seq for older in self._seq_of.values())

    def _take_answers(self) -> Iterator[Message]:
        while self._answers:
            yield self._answers.popleft()

    async def _read_session(self) -> None:
        state = await self._desk.state(self._tenant, self._session_id)
        if state is None:
            return
        pending = {job.id for job in state.pending}
        for job_id in [known for known in self._seq_of if known not in pending]:
            del self._seq_of[job_id]  # its end was missed
        for job in state.pending:
            self._follow(job.id, job.coalesce_seq or 0)
        if state.result is not None:
            self._complete(state.result.id, state.result.coalesce_seq or 0, state.result.outputs)
        if state.newest.status is JobStatus.FAILED and state.newest.error is not None:
            self.answer(Failed(state.newest.error.message, state.newest.error.code, state.newest.coalesce_seq))

    def _of_state(self, event: JobEvent) -> list[Message]:
        seq = event.coalesce_seq or 0
        if not event.terminal:
            self._follow(event.job_id, seq)
            return [Processing(seq, 0.0)] if event.status is JobStatus.RUNNING and seq > self._shown_seq else []
        self._ended_seq = max(self._ended_seq, seq)
        self._seq_of.pop(event.job_id, None)
        if event.status is JobStatus.SUCCEEDED:
            self._complete(event.job_id, seq, event.outputs)
        elif event.status is JobStatus.FAILED:
            self._failed_seq = max(self._failed_seq, seq)
            self._watch.gave_up(seq)
            error = event.error
            return [Failed(error.message, error.code, seq)] if error is not None else []
        return []

    def _of_progress(self, event: JobEvent) -> list[Message]:
        seq = event.coalesce_seq or 0
        if event.progress is None or seq <= max(self._shown_seq, self._ended_seq):
            return []
        self._follow(event.job_id, seq)
        return [Processing(seq, round(event.progress.fraction, 3))]

    def _complete(self, job_id: str, seq: int, outputs: Sequence[Artifact]) -> None:
        picture = picture_of(outputs)
        if seq <= self._shown_seq:
            return  # older than what is shown
        if picture is None:
            self.answer(Failed("the style made no picture: its workflow has to end in a SaveImage or a PreviewImage", "outputs_lost", seq))
            return
        self._shown_seq = seq
        self._completed = Completed(seq, job_id, picture)

    def _follow(self, job_id: str, seq: int) -> None:
        if seq <= self._ended_seq:
            return  # the answer to its submit came after its end
        is_new = job_id not in self._seq_of
        self._seq_of[job_id] = seq
        while len(self._seq_of) > MAX_FOLLOWED:
            self._seq_of.popitem(last=False)
        if is_new and self._wants_previews:
            self._desk.previews.look((job_id,))

    async def _submit(self, offer: Offer) -> int:
        """Accept a sketch; return how many jobs leave before it."""
        try:
            sketch = await read(offer.data, self._desk.limits)
            if not offer.force and self._is_like_the_last(offer, sketch):
                self._skip(offer)
                return 0
            latest = await self._desk.submit(self._tenant, self._session_id, sketch, offer.style, offer.settings, offer.seq)
        except ServiceError as error:
            place = error.place if isinstance(error, SessionsFull) else None
            self.answer(Failed(str(error), error.code, offer.seq, place))
            if error.retryable:
                await self._offer_again(offer)
            else:
                self._watch.refused(offer.arrived)
        except Exception:
            log.exception("sketch broke", extra=fields(action="sketch_broke"))
            self._watch.refused(offer.arrived)
            self.answer(Failed("the service broke on this sketch: its log has the details", "internal_error", offer.seq))
        else:
            if latest.job is None:
                self._watch.refused(offer.arrived)
                self.answer(Skipped(offer.seq, "older", latest.seq))
                return 0
            self._last = (sketch, offer.style, offer.settings, latest.seq)
            self._watch.accepted(offer.arrived, latest.seq, replaced=latest.replaced)
            self._follow(latest.job.id, latest.seq)
            self.answer(Accepted(latest.seq))
            return latest.ahead
        return 0

    async def _offer_again(self, offer: Offer) -> None:
        """Try again in a moment, with what is newest by then: there may be a seat, or the store is back."""
        await asyncio.sleep(ASK_AGAIN_S)
        if self._next is None:
            self._next = offer
            self._offered.set()

    def _is_like_the_last(self, offer: Offer, sketch: Sketch) -> bool:
        if self._last is None:
            return False
        last, style, settings, seq = self._last
        if (style, settings) != (offer.style, offer.settings) or seq == self._failed_seq:
            return False
        return is_alike(last, sketch, self._desk.config.same_below)

    def _skip(self, offer: Offer) -> None:
        assert self._last is not None, "it is like the last"
        self._watch.skipped(offer.arrived, self._last[3], is_shown=self._last[3] <= self._shown_seq and self._completed is None)
        self.answer(Skipped(offer.seq, "unchanged", self._last[3]))
