"""Who listens, and what they are sent: one registered WebSocket per client id.

A second socket with the same id takes over at once. Each socket has a writer of its own, so that a client that does not read blocks
nobody; the hazard ``head_of_line_stall`` puts one writer before them all, as real servers have it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Callable

from aiohttp import WSMsgType, web

from deployments.fake_comfyui.config import Hazards
from deployments.fake_comfyui.dice import Dice
from deployments.fake_comfyui.graph import JsonObject
from deployments.fake_comfyui.messages import Message, encode_json
from deployments.jobs.logs import fields, get_logger

CLOSE_TIMEOUT_S = 0.2

log = get_logger(__name__)


class Connection:
    """One WebSocket with what waits to be sent to it."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse, client_id: str) -> None:
        self._request = request
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        self.socket = socket
        self.client_id = client_id
        self.flags: JsonObject = {}

    def put(self, message: Message) -> None:
        """Queue a message for this socket's own writer."""
        self._outbox.put_nowait(message)

    async def send(self, message: Message) -> None:
        """Write a message, waiting while the client does not read; a socket that is gone is no error."""
        with contextlib.suppress(ConnectionError):
            if isinstance(message, str):
                await self.socket.send_str(message)
            else:
                await self.socket.send_bytes(message)

    async def write(self) -> None:
        """Send what is queued, for ever."""
        while True:
            await self.send(await self._outbox.get())

    def abort(self) -> None:
        """Drop the connection without a close frame: the client sees 1006."""
        if self._request.transport is not None:
            self._request.transport.abort()


class SocketHub:
    """The registered sockets. ``post`` may be called from any thread, everything else from the loop's."""

    def __init__(self, hazards: Hazards, dice: Dice, server_features: JsonObject) -> None:
        self._hazards = hazards
        self._dice = dice
        self._server_features = server_features
        self._loop = asyncio.get_running_loop()
        self._registered: dict[str, Connection] = {}
        self._open: set[Connection] = set()
        self._shared_outbox: asyncio.Queue[tuple[Connection, Message]] = asyncio.Queue()
        self._shared_writer = asyncio.create_task(self._write_in_line()) if hazards.head_of_line_stall else None
        self._closed = False

    async def serve(self, request: web.Request, greet: Callable[[str], list[Message]]) -> web.WebSocketResponse:
        """Answer a WebSocket request until the client leaves; ``greet`` returns the first messages for a client id."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        connection = Connection(request, socket, request.query.get("clientId") or uuid.uuid4().hex)
        writer = asyncio.create_task(connection.write())
        self._open.add(connection)
        self._registered[connection.client_id] = connection
        try:
            for message in greet(connection.client_id):
                self._hand_over(connection, message, direct=True)
            await self._listen(connection)
        finally:
            writer.cancel()
            self._open.discard(connection)
            if self._hazards.reconnect_loses_events or self._registered.get(connection.client_id) is connection:
                self._registered.pop(connection.client_id, None)
        return socket

    def post(self, message: Message, client_id: str | None) -> None:
        """Send a message to a client, or to all without one; a client that is not there misses it."""
        if not self._closed:
            self._loop.call_soon_threadsafe(self._deliver, message, client_id)

    def wants_metadata(self, client_id: str | None) -> bool:
        """Whether the client negotiated previews that say where they belong."""
        connection = self._registered.get(client_id or "")
        return connection is not None and connection.flags.get("supports_preview_metadata") is True

    async def close(self, *, abruptly: bool) -> None:
        """Close all sockets and send nothing more."""
        self._closed = True
        if self._shared_writer is not None:
            self._shared_writer.cancel()
        if abruptly:
            self.abort()
        else:
            await asyncio.gather(*(_say_goodbye(connection) for connection in self._open))

    def abort(self) -> None:
        """Drop all sockets without a close frame."""
        for connection in list(self._open):
            connection.abort()

    async def _listen(self, connection: Connection) -> None:
        """Read to the end; only the first text may negotiate features."""
        first = True
        async for message in connection.socket:
            if message.type is WSMsgType.TEXT and first:
                self._negotiate(connection, message.data)
                first = False

    def _negotiate(self, connection: Connection, text: str) -> None:
        with contextlib.suppress(ValueError, AttributeError):  # whatever else a client says is ignored
            message = json.loads(text)
            if message.get("type") == "feature_flags":
                connection.flags = dict(message.get("data", {}))
                self._hand_over(connection, encode_json("feature_flags", self._server_features), direct=True)

    def _deliver(self, message: Message, client_id: str | None) -> None:
        if self._closed:
            return
        receivers = list(self._registered.values()) if client_id is None else [self._registered.get(client_id)]
        for connection in receivers:
            if connection is not None:
                self._hand_over(connection, message)

    def _hand_over(self, connection: Connection, message: Message, *, direct: bool = False) -> None:
        """Pass a message to its writer; answers to the client itself are ``direct`` and never stand in the common line."""
        if self._dice.hits("drop_websocket", self._hazards.drop_websocket):
            log.info("websocket dropped by hazard", extra=fields(action="websocket_dropped", client_id=connection.client_id))
            connection.abort()
        elif self._shared_writer is not None and not direct:
            self._shared_outbox.put_nowait((connection, message))
        else:
            connection.put(message)

    async def _write_in_line(self) -> None:
        while True:
            connection, message = await self._shared_outbox.get()
            await connection.send(message)


async def _say_goodbye(connection: Connection) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.socket.close(code=1001)
    connection.abort()
