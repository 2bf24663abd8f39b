"""The paths that the task service (A) and the middleware (B) both claim: one answer with the fields of both."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from serve_app.api.dependencies import Config, LinksTo, MaybeDesk, Service, Tenant
from serve_app.api.errors import documented
from serve_app.api.schemas import View
from serve_app.dialects.task_view import Limit, Offset, TaskList, TaskView, page_query, parse_status

TAG = {"name": "tasks (A and B)", "description": "What the task service and the middleware both answer."}

router = APIRouter(prefix="/api", tags=[TAG["name"]])


class ComfyHealth(View):
    """Whether workflows can run now."""

    connected: bool = Field(description="whether a server is healthy")
    backends: int
    healthy: int


class TaskHealth(View):
    """Basic health."""

    status: Literal["healthy", "degraded"] = Field(description="degraded: the job store does not answer now; tasks are not lost")
    service: str = "atelier"
    version: str
    timestamp: float = Field(description="Unix seconds")
    comfyui_connected: bool
    comfyui: ComfyHealth | None = Field(description="null: not known now")
    queue_length: int | None = Field(description="tasks that wait; null: not known now")
    websocket_url: str = "/ws"


@router.get("/tasks", summary="List tasks, newest first", responses=documented(422, 503))
async def list_tasks(
    service: Service,
    tenant: Tenant,
    links: LinksTo,
    limit: Limit = 100,
    offset: Offset = 0,
    status: Annotated[str | None, Query(description="PENDING, PROCESSING, COMPLETED, FAILED or CANCELLED", examples=["COMPLETED"])] = None,
    task_type: Annotated[str | None, Query(alias="type", pattern=r"^[a-z0-9_]{1,32}$", description="comfyui or faceswap")] = None,
) -> TaskList:
    """List tasks of every kind, whoever's client submitted them."""
    query = page_query(tenant, limit, offset, parse_status(status) if status else None, task_type)
    page = await service.list_jobs(query)
    return TaskList(tasks=[TaskView.of(job, links) for job in page.jobs], total=page.total or 0, limit=limit, offset=offset)


@router.get("/health", summary="Basic health", responses=documented(503))
async def read_task_health(service: Service, tenant: Tenant, desk: MaybeDesk, config: Config) -> TaskHealth:
    """Answer whether tasks can be taken and workflows run."""
    about = {"version": config.version, "timestamp": time.time()}
    if not service.ready():
        return TaskHealth(**about, status="degraded", comfyui_connected=False, comfyui=None, queue_length=None)
    backends = await desk.backend_infos() if desk is not None else ()
    healthy = sum(backend.healthy for backend in backends)
    return TaskHealth(
        **about,
        status="healthy",
        comfyui_connected=healthy > 0,
        comfyui=ComfyHealth(connected=healthy > 0, backends=len(backends), healthy=healthy),
        queue_length=sum(depth.queued for depth in (await service.stats(tenant=tenant)).pools.values()),
    )
