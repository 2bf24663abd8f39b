"""Problem documents in an older service's own words: whatever went wrong on its paths, a fault of ours too, is answered as it did.

Outermost of all, since everything inside may answer: a route, a limit on the body, a check of the origin.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.jobs.model import JsonObject
from serve_app.api.errors import PROBLEM_MEDIA_TYPE, fault_response

Covers = Callable[[str], bool]  # whether a path is that service's
Translate = Callable[[JsonObject, str, Headers], tuple[int, JsonObject]]  # (problem, path, request's headers) -> HTTP status and body


class ProblemTranslation:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, *, covers: Covers, translate: Translate) -> None:
        self._app = app
        self._covers = covers
        self._translate = translate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or not self._covers(path):
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, lambda problem: self._translate(problem, path, Headers(scope=scope)))
        try:
            await self._app(scope, receive, answer.send)
        except Exception as error:
            if answer.begun:
                raise
            await fault_response(error)(scope, receive, answer.send)


class _Answer:
    """Holds a problem back until it is whole; everything else passes at once."""

    def __init__(self, send: Send, translate: Callable[[JsonObject], tuple[int, JsonObject]]) -> None:
        self.begun = False
        self._send = send
        self._translate = translate
        self._held: Message | None = None
        self._body = bytearray()

    async def send(self, message: Message) -> None:
        self.begun = True
        if message["type"] == "http.response.start" and _media_type(message) == PROBLEM_MEDIA_TYPE:
            self._held = message
        elif self._held is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._answer(self._held)
        else:
            await self._send(message)

    async def _answer(self, start: Message) -> None:
        status, content = self._translate(json.loads(self._body))
        body = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
        translated: Message = {**start, "status": status, "headers": list(start["headers"])}
        headers = MutableHeaders(raw=translated["headers"])
        headers["content-type"] = "application/json"
        headers["content-length"] = str(len(body))
        await self._send(translated)
        await self._send({"type": "http.response.body", "body": body})


def _media_type(start: Message) -> str:
    raw: Any = start.get("headers", [])
    return Headers(raw=list(raw)).get("content-type", "")
