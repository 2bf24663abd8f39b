"""Sessions: of the requests under one ``coalesce_key`` only the newest counts.

::

    sketch 1 ─▶ job A running                       at most one job of a session computes
    sketch 2 ─▶ job B waiting
    sketch 3 ─▶ job B waiting, with other content   in place: same id, no new row, the old file dropped
    A done   ─▶ job B running with sketch 3         no stale picture is computed once a newer one waits

A session is nothing else but its jobs: it is known as long as one of its rows is. Requests are numbered; the numbers rise. As a session
has at most one waiting job, which keeps its place in line when it is overwritten, the queue goes round the sessions and not the requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from deployments.jobs.model import FileRecord, Job, NewJob


@dataclass(frozen=True, slots=True)
class Latest:
    """What became of a request that was meant to be the newest of its session."""

    job: Job | None  # that will run it; None: it is older than the newest, and nothing was changed
    seq: int  # the number it got; when it was too old, that of the newest
    dropped: tuple[str, ...] = ()  # object keys of files that nobody needs any more: the caller removes the bytes
    replaced: bool = False  # whether it took the place of one that waited
    ahead: int = 0  # jobs of the pool that leave before it


@dataclass(frozen=True, slots=True)
class SessionState:
    """A session as its jobs tell it."""

    newest_seq: int
    pending: tuple[Job, ...]  # running or waiting, oldest first
    newest: Job  # by number, whatever became of it
    result: Job | None  # the newest that succeeded


@dataclass(frozen=True, slots=True)
class ExpiredJobs:
    """Ended jobs of sessions that need not be known any more, and their files."""

    job_ids: tuple[str, ...]
    keys: tuple[str, ...]  # object keys


@dataclass(frozen=True, slots=True)
class Strokes:
    """What one ingress replica has seen since its last report."""

    received: int = 0
    dropped: int = 0  # a newer one came before they were computed
    skipped: int = 0  # they looked like the one before
    refused: int = 0
    to_preview_s: tuple[float, ...] = ()  # from the arrival of a sketch to the first preview of it, or of a newer one
    to_result_s: tuple[float, ...] = ()


class SessionStore(Protocol):
    """The part of the job store that knows sessions."""

    async def create_latest(self, new: NewJob, file: FileRecord, interrupt_after_s: float | None) -> Latest:
        """Accept a request as the newest of its session, in place of one that waits there.

        Args:
            new: with its ``coalesce_key``; without a ``coalesce_seq`` it gets the next number.
            file: its picture, whose bytes are stored; published together with the job and forgotten with it.
            interrupt_after_s: age from which a running job of the session is cancelled for it; None: it is let end. Of two in a row
                the second one is let end in any case, so that whoever draws without a pause sees something.

        Raises:
            SessionsFull: as many sessions as are admitted at once are active; says which place in line this one has.
            QueueFull: the pool admits no more.
        """

    async def session(self, tenant: str, key: str) -> SessionState:
        """Read a session.

        Raises:
            SessionNotFound: nothing is known of it (any more).
        """

    async def expired_jobs(self, rows_before: float, results_before: float, limit: int) -> ExpiredJobs:
        """Return ended jobs of sessions, oldest first.

        Args:
            rows_before: those that ended before, but for the newest result of each session,
            results_before: which counts when it was made before this.
            limit: how many.
        """

    async def forget_jobs(self, job_ids: Sequence[str]) -> None:
        """Forget ended jobs whose bytes the caller has removed."""

    async def report_strokes(self, strokes: Strokes) -> None:
        """Add what a replica has seen to the figures of ``JobStore.stats``."""
