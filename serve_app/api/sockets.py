"""The two directions of a WebSocket as two tasks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect, status


async def converse(sending: Coroutine[Any, Any, None], listening: Coroutine[Any, Any, None]) -> None:
    """Send and listen until either ends, which ends the other; a client that leaves ends both without an error."""
    tasks = {asyncio.create_task(_until_left(sending)), asyncio.create_task(_until_left(listening))}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


async def receive_text(websocket: WebSocket) -> str:
    """Return the next text that a client sends; empty for a binary message, which Starlette's own method takes for a fault of ours.

    Raises:
        WebSocketDisconnect: it has left.
    """
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", status.WS_1005_NO_STATUS_RCVD))
    text: str = message.get("text") or ""
    return text


async def _until_left(direction: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(WebSocketDisconnect):
        await direction
