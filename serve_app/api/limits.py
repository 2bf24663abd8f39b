"""The length of request bodies.

FastAPI's own ``max_body_size`` answers an overlong ``Content-Length`` in plain text, past every error handler; this one answers a
problem like everything else.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.jobs.errors import MediaTooLarge
from serve_app.api.errors import problem_response


class BodyLimit:
    """ASGI middleware: 413 for a body that is declared or turns out longer than its limit."""

    def __init__(self, app: ASGIApp, default_bytes: int, bytes_by_path: Mapping[str, int]) -> None:
        """Wrap an app.

        Args:
            app: what is protected.
            default_bytes: limit of every path that is not named.
            bytes_by_path: limits of paths, without what a proxy puts before them.
        """
        self._app = app
        self._default_bytes = default_bytes
        self._bytes_by_path = bytes_by_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, counting its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit_of(scope)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            await problem_response(413, _sentence(limit), MediaTooLarge.code)(scope, receive, send)
            return
        await self._app(scope, _counted(receive, limit), send)

    def _limit_of(self, scope: Scope) -> int:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return self._bytes_by_path.get(path, self._default_bytes)


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
    return f"the body of this request may have {limit} bytes: media go to POST /v1/files"
