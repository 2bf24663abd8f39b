"""Which names this service answers to, and which web pages may change something through a browser.

A browser lets any page send simple requests to any address, this machine's included, and open a WebSocket without asking first. The
``Origin`` of such a request tells the page. A page whose name has been made to lead to this machine (DNS rebinding) has the same
origin as its requests, and is found out by the ``Host`` that it asks for. Programs send no ``Origin`` and are not concerned.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Self

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from serve_app.api.errors import problem_response

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, section 9.2.1
PROBES: Final = frozenset({"/health", "/ready"})  # asked for by whatever address a machine has, and they tell nothing
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
MAX_PORT: Final = 0xFFFF
AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9_.-]{1,253})(?::([0-9]{1,5}))?", re.IGNORECASE)


def parse_authority(text: str) -> tuple[str, int | None]:
    """Read ``host`` or ``host:port``.

    Returns:
        The host in its one spelling (lower case, addresses compressed and without brackets), and the port where one is written.

    Raises:
        ValueError: not of that form.
    """
    found = AUTHORITY.fullmatch(text)
    port = int(found[2]) if found and found[2] else None
    if found is None or (port is not None and not 0 < port <= MAX_PORT):
        raise ValueError(f"{text[:100]!r} is no host or host:port")
    return normal_host(found[1]), port


def normal_host(host: str) -> str:
    """Return a host in its one spelling; ``[::1]`` and ``::1`` are the same.

    Raises:
        ValueError: brackets around what is no IPv6 address.
    """
    if host.startswith("[") or ":" in host:
        return str(ip_address(host.strip("[]")))
    return host.lower().rstrip(".")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a web page comes from (RFC 6454)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``http://host`` or ``https://host:port``.

        Raises:
            ValueError: not of that form, such as ``null``.
        """
        scheme, _, authority = text.partition("://")
        if scheme.lower() not in DEFAULT_PORTS:
            raise ValueError("give an http:// or https:// address such as https://studio.example.com")
        host, port = parse_authority(authority)
        return cls(scheme.lower(), host, port or DEFAULT_PORTS[scheme.lower()])

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}")

    def is_of(self, authority: str) -> bool:
        """Whether a page of this origin asks the host that served it; the scheme may have changed in a proxy that ends TLS."""
        host, port = parse_authority(authority)
        return (self.host, self.port) == (host, port or DEFAULT_PORTS[self.scheme])


@dataclass(frozen=True, slots=True)
class TrustedHosts:
    """The hosts that this service answers to: those named, and always this machine's loopback."""

    names: frozenset[str]  # in their one spelling
    any_address: bool  # listening on every interface: no address is a stranger's, and rebinding needs a name

    def __contains__(self, host: str) -> bool:
        if host in self.names or host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return self.any_address or address.is_loopback


class OriginCheck:
    """ASGI middleware: 421 for a host that is not ours, 403 for a page of others that would change something or open a WebSocket."""

    def __init__(self, app: ASGIApp, hosts: TrustedHosts, origins: frozenset[Origin]) -> None:
        """Wrap an app.

        Args:
            app: what is protected.
            hosts: what requests may ask for.
            origins: pages of other hosts that are trusted.
        """
        self._app = app
        self._hosts = hosts
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        refusal = self._refusal(scope) if scope["type"] in {"http", "websocket"} else None
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await refusal(scope, receive, send)
        else:
            await _deny(WebSocket(scope, receive, send), refusal)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if not (_path_of(scope) in PROBES or self._is_ours(headers)):
            detail = "this service does not answer for that host: call it by its own address, or add the host to api.allowed_hosts"
            return problem_response(421, detail, "host_not_allowed")
        if not (scope.get("method") in SAFE_METHODS or self._is_trusted(headers)):
            return problem_response(403, "web pages of that origin may not do this: add it to api.allowed_origins", "origin_not_allowed")
        return None

    def _is_ours(self, headers: Headers) -> bool:
        asked = headers.getlist("host")
        try:
            return len(asked) == 1 and parse_authority(asked[0])[0] in self._hosts
        except ValueError:
            return False

    def _is_trusted(self, headers: Headers) -> bool:
        named = headers.getlist("origin")
        try:
            return all(self._is_known(Origin.parse(text), headers) for text in named)  # programs send none
        except ValueError:
            return False

    def _is_known(self, origin: Origin, headers: Headers) -> bool:
        return origin in self._origins or origin.is_of(headers["host"])


async def _deny(websocket: WebSocket, refusal: Response) -> None:
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(refusal)
    else:
        await websocket.close()  # before the handshake: the client sees 403


def _path_of(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
