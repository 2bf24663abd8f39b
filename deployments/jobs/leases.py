"""Who runs what right now, in memory: deadlines, cancel flags and progress of the running jobs.

Nothing here is lost with the process that matters: a restarted store gives every running job a fresh lease, and a worker that is
alive renews it before it runs out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deployments.jobs.model import Job, Progress, Stage, Verdict


@dataclass(slots=True)
class Lease:
    """One running attempt."""

    job: Job
    renewed: float  # monotonic
    advanced: float  # monotonic, of the newest change of progress
    started: float  # monotonic
    heard: bool = False  # whether its worker ever sent a heartbeat
    progress: Progress | None = None
    cancel_requested: bool = False

    @property
    def transfers(self) -> bool:
        """Whether the job is fetching inputs or uploading outputs."""
        return self.progress is not None and self.progress.stage is not Stage.COMPUTING


class Leases:
    """The running attempts, by job id."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._by_job: dict[str, Lease] = {}

    def grant(self, job: Job, now: float) -> None:
        """Start the lease of a job that has just been claimed."""
        self._by_job[job.id] = Lease(job, now, now, now, cancel_requested=job.cancel_requested)

    def restore(self, job: Job, now: float, running_s: float) -> None:
        """Give a job that was running before this store started a fresh lease; its time-out goes on."""
        self._by_job[job.id] = Lease(job, now, now, now - running_s, heard=True, cancel_requested=job.cancel_requested)

    def renew_all(self, now: float) -> None:
        """Start every lease again: it was the store that was away, not the workers."""
        for lease in self._by_job.values():
            lease.renewed = now

    def drop(self, job_id: str) -> None:
        """Forget a job that runs no more."""
        self._by_job.pop(job_id, None)

    def get(self, job_id: str) -> Lease | None:
        """Return a job's lease."""
        return self._by_job.get(job_id)

    def renew(self, job_id: str, attempt: int, now: float) -> Verdict:
        """Move the deadline of the attempt that holds the lease."""
        lease = self._by_job.get(job_id)
        if lease is None or lease.job.attempt != attempt:
            return Verdict.LOST
        lease.renewed = now
        lease.heard = True
        return Verdict.CANCELLED if lease.cancel_requested else Verdict.OK

    def advance(self, job_id: str, progress: Progress, now: float) -> bool:
        """Note progress; False when it is what was known already, which does not count as being alive."""
        lease = self._by_job[job_id]
        if lease.progress == progress:
            return False
        lease.progress = progress
        lease.advanced = now
        return True

    def request_cancel(self, job_id: str) -> None:
        """Let the next heartbeat of this job answer ``cancelled``."""
        lease = self._by_job.get(job_id)
        if lease is not None:
            lease.cancel_requested = True

    def expired(self, now: float) -> list[Lease]:
        """Return the leases whose deadline has passed."""
        return [lease for lease in self._by_job.values() if now - lease.renewed > self._lease_s]

    def stalled(self, now: float, limit_s: float) -> list[Lease]:
        """Return the leases whose engine has not moved for too long. Downloads and uploads have time-outs of their own."""
        return [lease for lease in self._by_job.values() if now - lease.advanced > limit_s and not lease.transfers]

    def overdue(self, now: float) -> list[Lease]:
        """Return the leases whose attempt runs longer than its job allows."""
        return [lease for lease in self._by_job.values() if now - lease.started > lease.job.timeout_s]

    def uploading(self, pool: str) -> int:
        """Count the jobs of a pool whose slots are free again."""
        return sum(lease.progress is not None and lease.progress.stage is Stage.UPLOADING for lease in self.of_pool(pool))

    def of_pool(self, pool: str) -> Iterator[Lease]:
        """Iterate over a pool's leases."""
        return (lease for lease in self._by_job.values() if lease.job.pool == pool)

    def __iter__(self) -> Iterator[Lease]:
        return iter(list(self._by_job.values()))
