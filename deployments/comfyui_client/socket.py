"""The WebSocket to one ComfyUI server, kept open for as long as the server is driven.

Each connection has a client id of its own. A server that sees an id again while it still holds the old socket (a half-open connection,
which it never notices by itself) removes the *new* one when the old one closes at last: from then on no event arrives, and the
connection looks well (ComfyUI issue 16010). Prompts that were sent under an older id are followed by polling.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from deployments.comfyui_client.config import ClientConfig
from deployments.comfyui_client.messages import FEATURE_FLAGS, Message, Picture, parse_binary, parse_text
from deployments.jobs.logs import fields, get_logger

log = get_logger(__name__)

LONGEST_PAUSE_S = 5.0


class Listener(Protocol):
    """Hears what a server says. Must return at once: a reader that is slow holds up the server's every other client."""

    def on_message(self, message: Message) -> None:
        """Take a JSON message."""

    def on_picture(self, picture: Picture) -> None:
        """Take a picture."""

    def on_connection(self, *, connected: bool) -> None:
        """Take note that the connection stands under a new client id, or is gone."""


class EventSocket:
    """Connects again and again until it is closed."""

    def __init__(self, name: str, url: str, prefix: str, config: ClientConfig, listener: Listener) -> None:
        """Prepare.

        Args:
            name: of the backend, for the log.
            url: ``http://host:port``.
            prefix: of the client ids, so that a server's queue shows whose prompts they are.
            config: heartbeat and pauses.
            listener: who hears it.
        """
        self._name = name
        self._base = url.rstrip("/").replace("http", "ws", 1)
        self._identity = f"{prefix}-{uuid.uuid4()}"
        self._config = config
        self._listener = listener
        self._task: asyncio.Task[None] | None = None
        self.generation = 0
        self.connected = False

    @property
    def client_id(self) -> str:
        """The id of the newest connection."""
        return f"{self._identity}-{self.generation}"

    def start(self) -> None:
        """Begin to connect; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"comfyui-socket-{self._name}")

    async def close(self) -> None:
        """Disconnect for good."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        pause_s = self._config.reconnect_s
        while True:
            try:
                self.generation += 1
                async with self._connection() as socket:
                    pause_s = self._config.reconnect_s
                    await self._listen(socket)
            except (OSError, TimeoutError, WebSocketException) as error:
                log.debug("socket lost", extra=fields(action="comfyui_socket_lost", backend=self._name, reason=type(error).__name__))
            except Exception:  # without this task the backend would never be heard again
                log.exception("socket broke", extra=fields(action="comfyui_socket_broke", backend=self._name))
            finally:
                self._set_connected(connected=False)
            await asyncio.sleep(pause_s * (0.5 + random.random() / 2))  # noqa: S311 -- jitter
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _connection(self) -> connect:
        # Frames may be larger than any client's default limit, and compression would cost more than a local network does.
        return _ConnectHere(
            f"{self._base}/ws?clientId={self.client_id}",
            max_size=self._config.max_message_bytes,
            compression=None,
            ping_interval=self._config.ping_s,
            ping_timeout=self._config.ping_s,
            open_timeout=self._config.connect_timeout_s,
            close_timeout=1,
            proxy=None,
        )

    async def _listen(self, socket: ClientConnection) -> None:
        await socket.send(FEATURE_FLAGS)  # the first message, or previews would not say whose they are
        self._set_connected(connected=True)
        async for raw in socket:
            try:
                self._hand_over(raw)
            except Exception:  # one odd message must not end the task that connects again: nobody would hear of the server any more
                log.exception("message broke", extra=fields(action="comfyui_message_broke", backend=self._name))

    def _hand_over(self, raw: str | bytes) -> None:
        if isinstance(raw, str):
            message = parse_text(raw)
            if message is not None:
                self._listener.on_message(message)
        else:
            picture = parse_binary(raw)
            if picture is not None:
                self._listener.on_picture(picture)

    def _set_connected(self, *, connected: bool) -> None:
        if self.connected != connected:
            self.connected = connected
            self._listener.on_connection(connected=connected)


class _ConnectHere(connect):
    """Follows no redirect: it could lead to any address inside."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Give the redirect up as the error that it is."""
        return exc
