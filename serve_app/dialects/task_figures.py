"""Counts, times and the state of every part, as the task service (A) shows them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field

from deployments.jobs.capabilities import BackendInfo
from deployments.jobs.model import JsonObject, Stats
from serve_app.api.schemas import PoolView, View
from serve_app.dialects.task_view import STATUS_OF, TaskStatus


class Percentiles(View):
    """Of the newest ended tasks; null without one."""

    p50_s: float | None
    p95_s: float | None


StatusCounts = dict[TaskStatus, int]


class TaskStats(View):
    """Counts and times."""

    total: int
    by_status: StatusCounts
    by_type: dict[str, StatusCounts] = Field(examples=[{"comfyui": {"PENDING": 1, "COMPLETED": 40}}])
    queue_length: int
    running: int
    processing_time: Percentiles = Field(description="from the first start to the end")
    waiting_time: Percentiles = Field(description="from the submit to the first start")
    success_rate: float | None = Field(description="0..1 of the tasks that completed or failed; null without one")
    failure_rate: float | None
    attempts_total: int
    retries_total: int = Field(description="attempts beyond the first of each task that was started")

    @classmethod
    def of(cls, stats: Stats) -> Self:
        """Show the figures of the job system."""
        counts = counts_of(stats.by_status)
        completed, failed = counts[TaskStatus.COMPLETED], counts[TaskStatus.FAILED]
        ended = completed + failed
        return cls(
            total=sum(counts.values()),
            by_status=counts,
            by_type={kind: counts_of(by_status) for kind, by_status in stats.by_kind.items()},
            queue_length=counts[TaskStatus.PENDING],
            running=counts[TaskStatus.PROCESSING],
            processing_time=Percentiles(p50_s=stats.run_p50_s, p95_s=stats.run_p95_s),
            waiting_time=Percentiles(p50_s=stats.wait_p50_s, p95_s=stats.wait_p95_s),
            success_rate=completed / ended if ended else None,
            failure_rate=failed / ended if ended else None,
            attempts_total=stats.attempts_total,
            retries_total=stats.retries_total,
        )


def counts_of(by_status: Mapping[str, int]) -> StatusCounts:
    """Return how many tasks are in each state, none included."""
    return {task: by_status.get(job, 0) for job, task in STATUS_OF.items()}


class Components(View):
    """Every part of the service."""

    job_store: dict[str, str] = Field(examples=[{"status": "healthy"}])
    comfyui: dict[str, Any] = Field(examples=[{"status": "healthy", "backends": []}])
    pools: dict[str, PoolView]
    engines: list[str]


class ServiceStatus(View):
    """The state of every part."""

    status: Literal["healthy", "degraded"]
    service: str = "atelier"
    version: str
    timestamp: float = Field(description="Unix seconds")
    components: Components
    tasks: dict[str, StatusCounts] = Field(examples=[{"by_status": {"PENDING": 1, "COMPLETED": 40}}])

    @classmethod
    def of(cls, stats: Stats, backends: Sequence[BackendInfo], engines: list[str], version: str) -> Self:
        """Show what the parts have just answered."""
        comfyui = _comfyui_status(backends)
        return cls(
            status="degraded" if comfyui["status"] == "unhealthy" else "healthy",
            version=version,
            timestamp=time.time(),
            components=Components(
                job_store={"status": "healthy"},  # the figures come from it
                comfyui=comfyui,
                pools={name: PoolView.model_validate(depth) for name, depth in stats.pools.items()},
                engines=engines,
            ),
            tasks={"by_status": counts_of(stats.by_status)},
        )


def _comfyui_status(backends: Sequence[BackendInfo]) -> JsonObject:
    healthy = "healthy" if any(backend.healthy for backend in backends) else "unhealthy"
    return {"status": healthy if backends else "not_configured", "backends": [backend.model_dump(mode="json") for backend in backends]}
