"""The length of request bodies.

Ray Serve's proxy keeps a body in memory until the replica has read it, however long it is. So what would not be read is refused at
once, and only an upload, which is read as it comes, may be of a length that nobody has declared.

FastAPI's own ``max_body_size`` answers an overlong ``Content-Length`` in plain text, past every error handler; this one answers a
problem like everything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.jobs.errors import MediaTooLarge
from serve_app.api.errors import problem_response

WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
LENGTH_DIGITS: Final = 18  # fewer than 2**63 bytes


class BodyLimit:
    """ASGI middleware: 413 for a body that is declared or turns out longer than its limit, 411 for one of undeclared length."""

    def __init__(self, app: ASGIApp, default_bytes: int, streams: Mapping[str, int], without_body: re.Pattern[str]) -> None:
        """Wrap an app.

        Args:
            app: what is protected.
            default_bytes: limit of every path that is not named.
            streams: limits of the paths that read a body as it comes, without what a proxy puts before them.
            without_body: paths that take no body by any method.
        """
        self._app = app
        self._default_bytes = default_bytes
        self._streams = streams
        self._without_body = without_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, counting its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        limit = self._limit_of(scope["method"], path)
        refusal = _refusal(Headers(scope=scope), limit, may_stream=scope["method"] == "POST" and path in self._streams)
        if refusal is not None:
            await refusal(scope, receive, send)
        else:
            await self._app(scope, _counted(receive, limit), send)

    def _limit_of(self, method: str, path: str) -> int:
        if method not in WITH_BODY or self._without_body.fullmatch(path):
            return 0
        return self._streams.get(path, self._default_bytes)


def _refusal(headers: Headers, limit: int, *, may_stream: bool) -> Response | None:
    declared = headers.get("content-length", "0")
    if declared.isdecimal() and (len(declared) > LENGTH_DIGITS or int(declared) > limit):
        return problem_response(413, _sentence(limit), MediaTooLarge.code)
    if "transfer-encoding" in headers and not may_stream:
        return problem_response(411, "send a Content-Length: only uploads of files may have a body of unknown length", "length_required")
    return None


def _counted(receive: Receive, limit: int) -> Receive:
    size = 0

    async def counting() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            # FastAPI reads the body and lets no other exception than this one through.
            raise HTTPException(413, _sentence(limit))
        return message

    return counting


def _sentence(limit: int) -> str:
    return f"the body of this request may have {limit} bytes: media go to POST /v1/files" if limit else "this request takes no body"
