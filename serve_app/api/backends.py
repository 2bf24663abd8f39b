"""ComfyUI servers, for operators: which there are, how they are, adding, draining and removing them at run time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path
from pydantic import Field

from deployments.comfyui_bridge.config import MAX_TAGS, NAME, TAG
from deployments.jobs.model import BackendState
from deployments.jobs.spec import StrictModel
from serve_app.api.dependencies import Desk, require_json
from serve_app.api.errors import documented
from serve_app.api.schemas import View

PREFIX = "/v1/admin/backends"
TAKES_NO_BODY = re.compile(rf"{PREFIX}/[^/]+/(drain|resume)")

router = APIRouter(prefix=PREFIX, tags=["operations"])

Tag = Annotated[str, Field(pattern=rf"^{TAG.pattern}$")]
Name = Annotated[str, Path(description="of a backend", max_length=100, examples=["gpu1-8188"])]


class NewBackend(StrictModel):
    """A server to be added."""

    url: str = Field(min_length=1, max_length=500, description="its host must be in ATELIER_FETCH_ALLOW", examples=["http://gpu2:8188"])
    name: Annotated[str, Field(pattern=rf"^{NAME.pattern}$")] | None = Field(None, description="default: from host and port")
    tags: Annotated[tuple[Tag, ...], Field(max_length=MAX_TAGS)] = Field((), description="what jobs may ask for", examples=[["sdxl"]])
    weight: float = Field(1.0, ge=0.01, le=1000, description="share of the work, against the other backends")
    in_flight: int = Field(2, ge=1, le=2, description="jobs sent at once: 2 keep it busy while outputs are taken out")


class BackendHealthView(View):
    """What the replica that drives a backend saw of it last."""

    healthy: bool
    reason: str = Field(description="why not; empty when healthy", examples=["the WebSocket is not connected"])
    version: str | None = Field(description="of ComfyUI", examples=["0.33.0"])
    fake: bool = Field(description="a fake server for tests and demos")
    in_flight: int = Field(description="jobs of ours that it has")
    queue_remaining: int | None = Field(description="as the server counts, other clients' prompts included")
    model: str | None = Field(description="the checkpoint that it loaded last")
    checked_at: datetime


class BackendView(View):
    """A ComfyUI server."""

    name: str = Field(examples=["gpu1-8188"])
    url: str = Field(examples=["http://gpu1:8188"])
    tags: tuple[str, ...]
    weight: float
    in_flight: int = Field(description="jobs that may be sent to it at once")
    configured: bool = Field(description="from the settings; false: added at run time")
    draining: bool = Field(description="is sent no new jobs")
    held: bool = Field(description="whether a replica drives it now")
    health: BackendHealthView | None = Field(description="null until a replica has looked")

    @classmethod
    def of(cls, state: BackendState) -> BackendView:
        """Show a backend."""
        spec = {name: getattr(state.spec, name) for name in state.spec.__slots__}
        shown = {**spec, "draining": state.draining, "held": state.owner is not None, "health": state.health}
        return cls.model_validate(shown, from_attributes=True)


class BackendList(View):
    """All backends by name."""

    backends: list[BackendView]

    @classmethod
    def of(cls, states: Iterable[BackendState]) -> BackendList:
        """Show the backends."""
        return cls(backends=[BackendView.of(state) for state in states])


@router.get("", summary="List ComfyUI servers", responses=documented(404, 503))
async def list_backends(desk: Desk) -> BackendList:
    """Show every backend, whether a replica drives it, and what it saw last."""
    return BackendList.of(await desk.backends())


@router.post(
    "",
    status_code=201,
    summary="Add a ComfyUI server",
    responses=documented(400, 404, 409, 413, 415, 422, 503),
    dependencies=[Depends(require_json)],
)
async def create_backend(request: Annotated[NewBackend, Body()], desk: Desk) -> BackendView:
    """Add a server, or change one that was added so; it is used within seconds and kept across restarts."""
    added = await desk.add_backend(request.url, request.name, request.tags, request.weight, request.in_flight)
    return BackendView.of(added)


@router.delete("/{name}", status_code=204, summary="Remove a ComfyUI server", responses=documented(404, 409, 422, 503))
async def delete_backend(name: Name, desk: Desk) -> None:
    """Remove a server that was added at run time; what runs there is finished. One of the settings can be drained instead."""
    await desk.remove_backend(name)


@router.post("/{name}/drain", summary="Send a ComfyUI server no more jobs", responses=documented(404, 422, 503))
async def drain_backend(name: Name, desk: Desk) -> BackendView:
    """Let a server finish what it has and send it nothing more, until it is resumed; survives restarts."""
    return BackendView.of(await desk.drain_backend(name, draining=True))


@router.post("/{name}/resume", summary="Send a ComfyUI server jobs again", responses=documented(404, 422, 503))
async def resume_backend(name: Name, desk: Desk) -> BackendView:
    """End a drain."""
    return BackendView.of(await desk.drain_backend(name, draining=False))
