"""Pictures of running jobs on their way to whoever looks: the newest of each job, in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from deployments.jobs.leases import Leases
from deployments.jobs.model import Preview
from deployments.jobs.ports import Clock

PREVIEW_BYTES = 2**20  # a preview of ComfyUI is a JPEG of 512 px, about 30 KB
LOOK_AGAIN_S = 5.0  # a reader is still there for so long, on top of its own wait, before its next call
NUMBERS_PER_EPOCH = 2**32  # so that the numbers rise across restarts: an hour of a thousand a second is under 2**22


class PreviewBoard:
    """Newest previews and who looks at them. Used from one event loop."""

    def __init__(self, leases: Leases, clock: Clock) -> None:
        self._leases = leases
        self._clock = clock
        self._newest: dict[str, Preview] = {}
        self._readers: Counter[str] = Counter()  # that wait now, by job
        self._looked_until: dict[str, float] = {}  # monotonic, after the last wait
        self._news = asyncio.Event()  # a fresh one after each arrival, as in the event log
        self._n = 0

    def open(self, epoch: int) -> None:
        """Begin the numbers of a store."""
        self._n = epoch * NUMBERS_PER_EPOCH

    def put(self, preview: Preview) -> bool:
        """See :meth:`deployments.jobs.ports.Previews.put_preview`."""
        if not (self._runs(preview) and self._looked_at(preview.job_id)):
            return False
        if len(preview.data) <= PREVIEW_BYTES:
            self._n += 1
            self._newest[preview.job_id] = replace(preview, n=self._n)
            news, self._news = self._news, asyncio.Event()
            news.set()
        return True

    async def read(self, job_ids: Sequence[str], after: int, wait_s: float) -> tuple[Preview, ...]:
        """See :meth:`deployments.jobs.ports.Previews.previews`."""
        with self._looking(job_ids, wait_s), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while not (found := self._newer(job_ids, after)):
                    await self._news.wait()
                return found
        return ()

    def drop(self, job_id: str) -> None:
        """Forget the picture of a job that ended or moved."""
        self._newest.pop(job_id, None)

    @contextlib.contextmanager
    def _looking(self, job_ids: Sequence[str], wait_s: float) -> Iterator[None]:
        """Mark jobs as looked at: during the wait, and afterwards until the reader must have come again."""
        self._readers.update(job_ids)
        try:
            yield
        finally:
            now = self._clock.monotonic()
            self._readers.subtract(job_ids)
            self._readers = +self._readers
            self._looked_until = {job_id: until for job_id, until in self._looked_until.items() if until > now}
            for job_id in job_ids:
                self._looked_until[job_id] = max(self._looked_until.get(job_id, 0.0), now + wait_s + LOOK_AGAIN_S)

    def _looked_at(self, job_id: str) -> bool:
        return self._readers[job_id] > 0 or self._looked_until.get(job_id, 0.0) > self._clock.monotonic()

    def _newer(self, job_ids: Sequence[str], after: int) -> tuple[Preview, ...]:
        known = (self._newest[job_id] for job_id in dict.fromkeys(job_ids) if job_id in self._newest)
        return tuple(preview for preview in known if preview.n > after and self._runs(preview))

    def _runs(self, preview: Preview) -> bool:
        lease = self._leases.get(preview.job_id)
        return lease is not None and lease.job.attempt == preview.attempt
