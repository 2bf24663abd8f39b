"""The drawing WebSocket: sketches in, progress and pictures out, always the newest."""

from __future__ import annotations

from fastapi import APIRouter, WebSocket, WebSocketDisconnect, status
from starlette.websockets import WebSocketState

from deployments.drawing.conversation import Conversation
from deployments.drawing.desk import DrawingDesk, checked_session_id
from deployments.drawing.messages import Completed, Failed, Message, Shown, Skipped
from deployments.jobs.errors import InvalidInput, ServiceError, Unavailable
from serve_app.api.dependencies import Tenant
from serve_app.api.sockets import converse
from serve_app.dialects.drawing import Drawing
from serve_app.dialects.drawing_wire import SAID_TO_ALL, Hello, parse_frame, parse_text, result_url, to_frame, to_json, with_preview

REFUSED = 4400  # a close code of the application's own: do not come back with this id
EXPIRED = 4408  # the session has ended: come back to begin another

router = APIRouter()


@router.websocket("/api/ws/{session_id}")
async def draw(websocket: WebSocket, session_id: str, desk: Drawing, tenant: Tenant) -> None:
    """Take sketches and send what becomes of them. Whoever comes again gets the last picture again."""
    await websocket.accept()
    try:
        checked_session_id(session_id)
    except InvalidInput as error:
        await websocket.send_json(to_json(Failed(str(error), error.code), session_id))
        await websocket.close(REFUSED)
        return
    line = _Line(websocket, desk, tenant, session_id)
    await line.run()
    if websocket.client_state is WebSocketState.CONNECTED:
        await websocket.close(line.close_code)


class _Line:
    """One client on one WebSocket."""

    def __init__(self, websocket: WebSocket, desk: DrawingDesk, tenant: str, session_id: str) -> None:
        self._websocket = websocket
        self._desk = desk
        self._tenant = tenant
        self._session_id = session_id
        self._talk = Conversation(desk, tenant, session_id)
        self._hello: Hello | None = None
        self._completed: Completed | None = None  # what was shown last
        self._is_away = False

    @property
    def close_code(self) -> int:
        """Why we end it."""
        if self._is_away:
            return status.WS_1013_TRY_AGAIN_LATER
        return status.WS_1012_SERVICE_RESTART if self._talk.cut_off else EXPIRED

    async def run(self) -> None:
        """Talk until the client leaves, the feed ends or the session does; or not at all while the store is away."""
        try:
            await converse(self._tell(), converse(self._talk.submit_forever(), self._listen()))
        except Unavailable as error:
            self._is_away = True
            if self._websocket.client_state is WebSocketState.CONNECTED:
                await self._websocket.send_json(to_json(Failed(str(error), error.code), self._session_id))

    async def _tell(self) -> None:
        async for message in self._talk.messages():
            await self._say(message)

    async def _listen(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", status.WS_1005_NO_STATUS_RCVD))
            try:
                await self._take(message.get("text"), message.get("bytes"))
            except Unavailable:
                raise  # a hello that is not answered would be waited for
            except ServiceError as error:
                self._talk.answer(Failed(str(error), error.code))

    async def _take(self, text: str | None, frame: bytes | None) -> None:
        if frame is not None:
            if self._hello is None or not self._hello.binary:
                raise InvalidInput('say {"type": "hello", "binary": true} before you send binary messages')
            self._talk.offer(parse_frame(frame))
            return
        said = parse_text(text or "", self._desk.limits.max_bytes)
        match said:
            case Hello():
                await self._greet(said)
            case "ack":
                self._talk.request()
            case "ping":
                await self._websocket.send_json({"status": "pong"})
            case offer:
                self._talk.offer(offer)

    async def _greet(self, hello: Hello) -> None:
        """Answer a client that numbers its sketches: a session that goes on has numbers already."""
        state = await self._desk.state(self._tenant, self._session_id)
        await self._websocket.send_json({"status": "connected", "session_id": self._session_id, "seq": state.newest_seq if state else 0})
        self._hello = hello
        self._talk.by_request = hello.ack
        if hello.previews:
            self._talk.want_previews()

    async def _say(self, message: Message) -> None:
        if self._hello is None:
            if isinstance(message, Skipped) and self._completed is not None:
                message = self._completed  # an older client waits for a picture after every sketch: this one is it
            if not isinstance(message, SAID_TO_ALL):
                return
        said = to_json(message, self._session_id)
        if isinstance(message, Completed):
            if self._completed is not None:
                said["result_url"] = result_url(self._session_id, message.seq)
            self._completed = message
        match message:
            case Completed() if self._hello is not None and self._hello.binary:
                await self._send_result(message)
            case Shown() if self._hello is not None and self._hello.binary:
                await self._websocket.send_bytes(to_frame(said, message.preview.data))
            case Shown():
                await self._websocket.send_json(with_preview(said, message.preview.data))
            case _:
                await self._websocket.send_json(said)

    async def _send_result(self, message: Completed) -> None:
        said = to_json(message, self._session_id)
        try:
            await self._websocket.send_bytes(to_frame(said, await self._desk.read_picture(message.picture)))
        except Unavailable as error:
            await self._websocket.send_json(to_json(Failed(str(error), error.code, message.seq), self._session_id))
        except ServiceError:
            return  # removed since: a newer one is there
