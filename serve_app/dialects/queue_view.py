"""The queue as clients of ComfyUI's older front ends know it: what runs and what waits of a tenant's workflows, over all backends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pydantic import Field

from deployments.jobs.model import Job, JobQuery, JobStatus
from deployments.jobs.service import JobService
from serve_app.api.schemas import JOB_ID_EXAMPLE, View
from serve_app.dialects.task_view import workflow_name_of

KIND = "comfyui"
MAX_LISTED = 200  # of each list, since every job comes with its graph; the counts are right beyond it


@dataclass(frozen=True, slots=True)
class Queue:
    """The queue at one moment, in the order in which jobs leave it."""

    running: tuple[Job, ...]
    pending: tuple[Job, ...]
    running_count: int
    pending_count: int


async def read_queue(service: JobService, tenant: str) -> Queue:
    """Read what runs and what waits."""
    running = await service.list_jobs(JobQuery(tenant, JobStatus.RUNNING, KIND, limit=MAX_LISTED, by_turn=True, count=True))
    pending = await service.list_jobs(JobQuery(tenant, JobStatus.QUEUED, KIND, limit=MAX_LISTED, by_turn=True, count=True))
    return Queue(running.jobs, pending.jobs, running.total or 0, pending.total or 0)


class QueueItem(View):
    """One task of the queue."""

    prompt_id: str = Field(examples=[JOB_ID_EXAMPLE])
    task_id: str = Field(description="the same", examples=[JOB_ID_EXAMPLE])
    number: int = Field(description="place in the queue, running ones first, from 0")
    timestamp: int = Field(description="when it was submitted, Unix seconds")
    workflow_name: str | None

    @classmethod
    def of(cls, job: Job, number: int) -> Self:
        """Show a job."""
        name = workflow_name_of(job)
        return cls(prompt_id=job.id, task_id=job.id, number=number, timestamp=int(job.created_at), workflow_name=name)


class QueueView(View):
    """The caller's queue."""

    queue_running: list[QueueItem]
    queue_pending: list[QueueItem]
    running_count: int
    pending_count: int

    @classmethod
    def of(cls, queue: Queue) -> Self:
        """Show a queue."""
        first_pending = len(queue.running)
        return cls(
            queue_running=[QueueItem.of(job, n) for n, job in enumerate(queue.running)],
            queue_pending=[QueueItem.of(job, n) for n, job in enumerate(queue.pending, start=first_pending)],
            running_count=queue.running_count,
            pending_count=queue.pending_count,
        )
