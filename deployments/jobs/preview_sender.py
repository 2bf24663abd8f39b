"""Previews on their way to the store: the newest one only, at a bounded pace, and none while nobody looks."""

from __future__ import annotations

import asyncio
import contextlib
import time

from deployments.jobs.errors import Unavailable
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import Job, Preview
from deployments.jobs.ports import PreviewPicture, Previews
from deployments.jobs.preview_board import PREVIEW_BYTES

log = get_logger(__name__)

PERIOD_S = 0.25  # four pictures a second show a sampler at work; more would cost the store what progress costs
UNWATCHED_PERIOD_S = 2.0  # how soon somebody who begins to look sees something


class PreviewSender:
    """Sends the previews of one attempt. Whoever computes never waits for it."""

    def __init__(self, previews: Previews, job: Job) -> None:
        self._previews = previews
        self._job = job
        self._newest: PreviewPicture | None = None
        self._next = 0.0  # monotonic time before which nothing is sent
        self._task: asyncio.Task[None] | None = None

    def offer(self, picture: PreviewPicture) -> None:
        """Take a picture; one that has not left yet is dropped for it."""
        if len(picture.data) > PREVIEW_BYTES:
            return  # no preview: the store would drop it, after the whole way
        self._newest = picture
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send())

    async def close(self) -> None:
        """Drop what waits."""
        self._newest = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _send(self) -> None:
        while self._newest is not None:
            await asyncio.sleep(max(0.0, self._next - time.monotonic()))
            picture, self._newest = self._newest, None
            if picture is not None:
                self._next = time.monotonic() + (PERIOD_S if await self._put(picture) else UNWATCHED_PERIOD_S)

    async def _put(self, picture: PreviewPicture) -> bool:
        preview = Preview(self._job.id, self._job.attempt, 0, picture.media_type, picture.data, picture.comfy_node)
        with contextlib.suppress(Unavailable):  # a preview is never worth a second try
            return await self._previews.put_preview(preview)
        log.debug("preview dropped", extra=fields(action="preview_dropped"))
        return False
