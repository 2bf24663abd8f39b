"""Events: one job's as server-sent events, several or all jobs' over a WebSocket. Both resume after an event's id."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, WebSocket, status
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException
from starlette.websockets import WebSocketState

from deployments.jobs.events import EventId
from deployments.jobs.feed import Subscription
from deployments.jobs.model import Preview
from deployments.jobs.preview_feed import Viewing
from serve_app.api.dependencies import Service, Tenant
from serve_app.api.errors import documented
from serve_app.api.jobs import JobId
from serve_app.api.schemas import EventView, PreviewHeader
from serve_app.api.sockets import converse

router = APIRouter(prefix="/v1", tags=["events"])

NOTHING_LEFT: dict[int | str, dict[str, Any]] = {
    204: {"description": "Nothing came after `Last-Event-ID`, and nothing will: the job has ended"}
}
RECONNECT_MS = 2000  # how long an EventSource waits before it comes back


async def _one_job(
    job_id: JobId,
    service: Service,
    tenant: Tenant,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", description="go on after this event", examples=["3-141"])] = None,
) -> AsyncIterator[Subscription]:
    # A dependency, so that a job that does not exist is answered 404: once the stream has begun it is too late.
    after = EventId.parse(last_event_id) if last_event_id else None
    async with service.subscribe([job_id], after, tenant=tenant) as subscription:
        if subscription.ended:
            raise HTTPException(204)  # an EventSource that gets this stops reconnecting
        yield subscription


@router.get(
    "/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    summary="Follow a job",
    responses=NOTHING_LEFT | documented(404, 422, 503),
)
async def follow_job(subscription: Annotated[Subscription, Depends(_one_job)]) -> AsyncIterator[ServerSentEvent]:
    """Stream a job's events: all state changes so far, then what happens, until the job has ended.

    `event` is `state` or `progress`, `data` an EventView. Every state change is sent; of progress a slow reader gets the newest.
    A comment every 15 s keeps the connection open.
    """
    yield ServerSentEvent(retry=RECONNECT_MS)
    async for event in subscription:
        view = EventView.of(event)
        yield ServerSentEvent(raw_data=view.model_dump_json(exclude_none=True), event=view.type, id=view.id)


async def _some_jobs(
    service: Service,
    tenant: Tenant,
    job_id: Annotated[list[str] | None, Query()] = None,
    after: Annotated[str | None, Query()] = None,
    previews: Annotated[bool, Query()] = False,  # noqa: FBT002 -- a query parameter
    ack: Annotated[bool, Query()] = False,  # noqa: FBT002 -- a query parameter
) -> AsyncIterator[Subscription | Viewing]:
    position = EventId.parse(after) if after else None
    if previews:
        async with service.subscribe_with_previews(job_id, position, tenant=tenant, by_request=ack) as viewing:
            yield viewing
    else:
        async with service.subscribe(job_id, position, tenant=tenant) as subscription:
            yield subscription


@router.websocket("/events")
async def follow_jobs(websocket: WebSocket, subscription: Annotated[Subscription | Viewing, Depends(_some_jobs)]) -> None:
    """Send the events of the named jobs, or of all, and with ``previews=1`` pictures of the named ones while they run.

    With ``ack=1`` each picture waits until the client has answered the one before by a message, whatever it says.
    Closes with 1000 once all named jobs have ended, with 1012 to be reopened.
    """
    await websocket.accept()
    await converse(_send(websocket, subscription), _listen(websocket, subscription))
    if websocket.client_state is WebSocketState.CONNECTED:
        await websocket.close(status.WS_1012_SERVICE_RESTART if subscription.cut_off else status.WS_1000_NORMAL_CLOSURE)


async def _send(websocket: WebSocket, subscription: Subscription | Viewing) -> None:
    # One sender, which takes the next thing when the last one has left: behind a slow reader events wait, and previews are replaced.
    async for item in subscription:
        match item:
            case Preview() as preview:
                await websocket.send_bytes(to_frame(preview))
            case event:
                await websocket.send_text(EventView.of(event).model_dump_json(exclude_none=True))


def to_frame(preview: Preview) -> bytes:
    """Return a preview as a binary message: the length of the header in four bytes (big-endian), the header, the picture."""
    header = PreviewHeader.of(preview).model_dump_json().encode()
    return len(header).to_bytes(4, "big") + header + preview.data


async def _listen(websocket: WebSocket, subscription: Subscription | Viewing) -> None:
    # Nobody else reads, and an unread disconnect would keep the subscription for ever. Of what a client says only that it says it counts.
    while websocket.client_state is WebSocketState.CONNECTED:
        await websocket.receive()
        if isinstance(subscription, Viewing):
            subscription.request()
