"""The names that older services have for a ComfyUI server in their environment.

Several of them may be set on one machine, and a client id or a port among them is easily left behind: those that are set must mean the
same servers, or nobody could tell which is right.
"""

from __future__ import annotations

from collections.abc import Mapping

from deployments.comfyui_bridge.config import parse_backend

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = "8188"


def address_of(host: str, port: str) -> str:
    """Return the server that a host and a port of which either may be left out mean; empty when both are."""
    if not (host or port):
        return ""
    host = host or DEFAULT_HOST
    return f"{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{port or DEFAULT_PORT}"


def one_meaning(given: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the servers that all names which are set agree on, as the first of them writes them.

    Args:
        given: servers by the name in the environment, see ``parse_backend``; none for a name that is not set.

    Raises:
        ValueError: two of them differ, or one is no server; names them and shows no address.
    """
    agreed: tuple[str, frozenset[str]] | None = None
    for name, servers in given.items():
        if not servers:
            continue
        urls = _urls(name, servers)
        if agreed is not None and urls != agreed[1]:
            raise ValueError(f"{agreed[0]} and {name} name different ComfyUI servers: set one of them, or both alike")
        agreed = agreed or (name, urls)
    return given[agreed[0]] if agreed else ()


def _urls(name: str, servers: tuple[str, ...]) -> frozenset[str]:
    try:
        return frozenset(parse_backend(server).url for server in servers)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
