"""The gateway's WebSocket: a client submits through it, and hears of the execution of its prompts in ComfyUI's own messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, WebSocket, status
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.websockets import WebSocketState

from deployments.comfyui_bridge.desk import ComfyDesk
from deployments.jobs.errors import JobNotFound, ServiceError
from deployments.jobs.events import JobEvent
from deployments.jobs.feed import Subscription
from deployments.jobs.model import JsonObject
from deployments.jobs.options import LabelValue
from deployments.jobs.service import JobService
from serve_app.api.dependencies import Desk, Service, Tenant
from serve_app.api.errors import problem_of
from serve_app.api.requests import JsonDocument
from serve_app.api.sockets import converse, receive_text
from serve_app.dialects import gateway_texts as texts
from serve_app.dialects.gateway_clients import Gateway, GatewayState
from serve_app.dialects.gateway_envelope import BAD_REQUEST, PREFIX, SUBMIT, to_envelope
from serve_app.dialects.gateway_progress import ExecutionMessages, ended_messages

router = APIRouter()


class SubmitData(BaseModel):
    """What a submit carries."""

    model_config = ConfigDict(extra="ignore")

    workflow: JsonDocument


class Command(BaseModel):
    """What a client may say."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["submit", "ping"]
    data: Any = None


async def _all_jobs(service: Service, tenant: Tenant) -> AsyncIterator[Subscription]:
    async with service.subscribe(None, tenant=tenant) as subscription:
        yield subscription


@router.websocket(f"{PREFIX}/ws/{{client_id}}")
async def converse_with_client(
    websocket: WebSocket,
    client_id: Annotated[LabelValue, Path(min_length=1)],
    subscription: Annotated[Subscription, Depends(_all_jobs)],
    gateway: Gateway,
    desk: Desk,
    service: Service,
    tenant: Tenant,
) -> None:
    """Greet, take submits and pings, and send the execution of every prompt of this client, wherever it was submitted."""
    await websocket.accept()
    conversation = _Conversation(websocket, client_id, gateway, desk, service, tenant)
    await conversation.greet()
    await converse(conversation.tell(subscription), conversation.listen())
    if websocket.client_state is WebSocketState.CONNECTED:
        await websocket.close(status.WS_1012_SERVICE_RESTART)  # the feed was closed: clients come back by themselves


class _Conversation:
    """One client on one WebSocket."""

    def __init__(
        self, websocket: WebSocket, client_id: str, gateway: GatewayState, desk: ComfyDesk, service: JobService, tenant: str
    ) -> None:
        self._websocket = websocket
        self._client_id = client_id
        self._gateway = gateway
        self._desk = desk
        self._service = service
        self._tenant = tenant
        self._executions: dict[str, ExecutionMessages] = {}  # of the prompts that have not ended
        self._turn = asyncio.Lock()  # a prompt's first message must not come before the answer to its submit

    async def greet(self) -> None:
        await self._say("connected", {"message": self._text(texts.CONNECTED), "client_id": self._client_id})

    async def tell(self, subscription: Subscription) -> None:
        """Send what happens to the client's prompts."""
        async for event in subscription:
            async with self._turn:
                if await self._gateway.client_of(self._service, self._tenant, event.job_id) != self._client_id:
                    continue
                for message in await self._messages(event):
                    await self._websocket.send_json(message)

    async def listen(self) -> None:
        """Answer what the client says."""
        while True:
            text = await receive_text(self._websocket)
            async with self._turn:
                await self._answer(text)

    async def _messages(self, event: JobEvent) -> list[JsonObject]:
        if not event.terminal:
            return self._executions.setdefault(event.job_id, ExecutionMessages()).of(event)
        self._executions.pop(event.job_id, None)
        try:
            return ended_messages(await self._service.get(event.job_id, tenant=self._tenant), event.at)
        except JobNotFound:
            return []  # deleted since

    async def _answer(self, text: str) -> None:
        try:
            command = Command.model_validate_json(text)
        except ValidationError:
            await self._say("error", {"code": BAD_REQUEST, "message": self._text(texts.INVALID)})
            return
        if command.type == "ping":
            await self._say("pong", {"timestamp": time.time()})
        else:
            await self._submit(command.data)

    async def _submit(self, data: object) -> None:
        try:
            workflow = SubmitData.model_validate(data).workflow
        except ValidationError:
            await self._say("submit_error", {"code": BAD_REQUEST, "message": self._text(texts.INVALID)})
            return
        try:
            job = await self._gateway.submit(self._service, self._desk, self._tenant, workflow, self._client_id)
        except ServiceError as error:
            envelope = to_envelope(problem_of(error, SUBMIT).model_dump(), SUBMIT, self._websocket.headers)
            await self._say("submit_error", {"code": envelope["code"], "message": envelope["message"]})
        else:
            accepted = {"prompt_id": job.id, "client_id": self._client_id, "message": self._text(texts.SUBMITTED)}
            await self._say("submit_success", accepted)

    async def _say(self, kind: str, data: JsonObject) -> None:
        await self._websocket.send_json({"type": kind, "data": data})

    def _text(self, text: texts.Text) -> str:
        return text.said(self._websocket.headers)
