"""What a client who draws is shown, and in which order."""

import asyncio
import contextlib
from types import SimpleNamespace

from deployments.drawing.config import DrawingConfig
from deployments.drawing.conversation import Conversation
from deployments.drawing.messages import Completed, Shown
from deployments.drawing.stroke_watch import StrokeWatch
from deployments.jobs.events import EventId, EventType, JobEvent
from deployments.jobs.model import Artifact, JobStatus, Preview

TENANT, SESSION = "default", "a-session-of-ours"


class Desk:
    """A desk whose feeds are the test itself, and whose store knows nothing of the session yet."""

    def __init__(self):
        self.config, self.strokes = DrawingConfig(), StrokeWatch(None)
        self.feed = SimpleNamespace(follow_session=self._follow)
        self.previews = SimpleNamespace(show=lambda _: contextlib.nullcontext(), look=lambda _: None)

    @contextlib.asynccontextmanager
    async def _follow(self, *_):
        yield

    async def state(self, tenant, session_id):
        return None


def event(seq, status, outputs=()):
    return JobEvent(
        EventId(1, seq),
        EventType.STATE,
        f"job-{seq}",
        TENANT,
        0.0,
        status,
        1,
        None,
        coalesce_key=SESSION,
        coalesce_seq=seq,
        outputs=outputs,
    )


def picture(seq):
    return Artifact(file_id=f"file-{seq}", name="p.png", media_type="image/png", uri=f"local://p{seq}", size_bytes=1, sha256="0" * 64)


async def said(messages, count):
    async with asyncio.timeout(5):
        return [await anext(messages) for _ in range(count)]


async def test_a_preview_waits_for_the_picture_of_an_older_sketch_that_is_being_stored():
    talk = Conversation(Desk(), TENANT, SESSION)
    talk.want_previews()
    messages = talk.messages()
    talk.hear(event(1, JobStatus.RUNNING))
    await said(messages, 1)
    talk.hear(event(2, JobStatus.RUNNING))  # the first is computed, and on its way to the store
    await said(messages, 1)
    talk.offer_preview(Preview("job-2", 1, 1, "image/png", b"newer"))
    waiting = asyncio.ensure_future(anext(messages))
    await asyncio.sleep(0)
    talk.hear(event(1, JobStatus.SUCCEEDED, (picture(1),)))
    async with asyncio.timeout(5):
        first = await waiting
    (second,) = await said(messages, 1)

    assert isinstance(first, Completed)
    assert isinstance(second, Shown)
    assert (first.seq, second.seq) == (1, 2)
    await messages.aclose()


async def test_a_preview_is_shown_when_no_older_sketch_is_under_way():
    talk = Conversation(Desk(), TENANT, SESSION)
    talk.want_previews()
    messages = talk.messages()
    talk.hear(event(1, JobStatus.RUNNING))
    await said(messages, 1)
    talk.offer_preview(Preview("job-1", 1, 1, "image/png", b"first"))
    (shown,) = await said(messages, 1)
    assert shown.seq == 1
    await messages.aclose()
