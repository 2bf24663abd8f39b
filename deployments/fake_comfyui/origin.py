"""A browser on another site must not reach a server on the loopback."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler


@web.middleware
async def refuse_foreign_origins(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer 403 where ``Origin`` differs from a loopback ``Host``, and to cross-site requests."""
    if request.headers.get("Sec-Fetch-Site") == "cross-site" or _is_foreign(request.headers.get("Host"), request.headers.get("Origin")):
        return web.Response(status=403)
    return web.Response() if request.method == "OPTIONS" else await handler(request)


def _is_foreign(host: str | None, origin: str | None) -> bool:
    if not host or not origin:
        return False
    here, there = urlsplit(f"//{host}"), urlsplit(origin)
    if not _is_loopback(here.hostname) or not there.hostname:
        return False
    if there.port is None or here.port is None:  # a browser leaves out what is the default
        return here.hostname != there.hostname
    return here.netloc.lower() != there.netloc.lower()


def _is_loopback(name: str | None) -> bool:
    try:
        return name == "localhost" or ipaddress.ip_address(name or "").is_loopback
    except ValueError:
        return False
