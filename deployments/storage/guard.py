"""The guard in front of every connection to an address that a user named: fetched media, webhook targets, backends of a request.

The name is resolved once, every answer is checked (one bad one refuses all), and the checked address itself is dialled, so that a
name which changes its answer in between gains nothing. Redirects are never followed by the client: each comes back here as a new URL.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from aiohttp import AddrInfoType, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from deployments.jobs.errors import UrlNotAllowed
from deployments.storage.address import AllowList, IpAddress, is_name, is_public, normal_name, parse_host

_BAD_CHARACTERS = re.compile(r"[\x00-\x20\x7f\\\ud800-\udfff]")  # where two parsers read a URL differently, an attacker stands between them


def without_secrets(url: URL) -> str:
    """Return scheme, host and path, for messages and logs: query strings and credentials may be secrets (signed URLs)."""
    return f"{url.scheme}://{url.raw_host}{url.raw_path}"[:200]


@dataclass(frozen=True, slots=True)
class AddressGuard:
    """Decides which URLs and addresses may be dialled."""

    allow: AllowList
    ports: frozenset[int]  # of public addresses; what the allow-list names may be on any port

    def check_url(self, text: str) -> URL:
        """Check what a URL shows without asking DNS.

        Returns:
            The parsed URL, its path and query as they were sent; connect to it only through ``connector``.

        Raises:
            UrlNotAllowed: malformed, another scheme, credentials inside, a port that is not open, or a private address or name.
        """
        url = parse_url(text)
        host, port = url.raw_host, url.port
        if url.scheme not in {"http", "https"} or not host or not port:
            raise UrlNotAllowed("the URL is not allowed: give an absolute http:// or https:// URL")
        if url.raw_user is not None or url.raw_password is not None:
            raise UrlNotAllowed(f"{without_secrets(url)} carries a user name or password: use a signed URL instead")
        address = parse_host(host)
        if address is None:
            self._check_name(host, port)
        else:
            self.check_address(address, port)
        return url

    def check_address(self, address: IpAddress, port: int) -> None:
        """Check one address that is about to be dialled.

        Raises:
            UrlNotAllowed: private and not in the allow-list, or public on a port that is not open.
        """
        if self.allow.allows_address(address, port):
            return
        if not is_public(address):
            raise UrlNotAllowed("the URL leads to a private address: use one that the internet reaches, or upload the file")
        if port not in self.ports:
            raise self._port_refused(port)

    def connector(self, url: URL, resolver: AbstractResolver | None = None, tls: ssl.SSLContext | None = None) -> TCPConnector:
        """Build a connector that dials nothing but checked addresses, for requests to one URL that ``check_url`` returned.

        Args:
            url: where the requests go.
            resolver: how names are looked up; default: as the machine does.
            tls: the certificates that are trusted; default: the public authorities.
        """
        dialer = _Dialer(self, url, resolver or ThreadedResolver())
        return TCPConnector(resolver=dialer, socket_factory=dialer.socket, ssl=tls or True, use_dns_cache=False, force_close=True)

    def session(
        self,
        url: URL,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
        *,
        headers: Mapping[str, str],
        timeout: ClientTimeout,
    ) -> ClientSession:
        """Build a client for one request to a URL that ``check_url`` returned: no cookies, no proxies of the environment, no decompression.

        The caller turns ``allow_redirects`` off in the request itself. The first three arguments are those of :meth:`connector`.
        """
        return ClientSession(
            connector=self.connector(url, resolver, tls),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers=headers,
            timeout=timeout,
        )

    def _check_name(self, host: str, port: int) -> None:
        if not is_name(host):
            raise UrlNotAllowed("the URL's host is not a name or an address: check how it is written")
        if self.allow.allows_name(host, port):
            return
        name = normal_name(host)
        if name == "localhost" or name.endswith(".localhost"):
            self.check_address(ip_address("127.0.0.1"), port)
        if port not in self.ports and not self.allow.opens_port(port):
            raise self._port_refused(port)

    def _port_refused(self, port: int) -> UrlNotAllowed:
        return UrlNotAllowed(f"port {port} is not allowed in URLs: use one of {', '.join(map(str, sorted(self.ports)))}")


def parse_url(text: str) -> URL:
    """Parse a URL without changing how its path and query are written: a signature covers every character.

    Raises:
        UrlNotAllowed: malformed.
    """
    if not _BAD_CHARACTERS.search(text):
        try:
            url = URL(text, encoded=text.isascii())
            if "[" in url.raw_authority and ":" not in (url.raw_host or ""):
                raise ValueError("brackets around what is no IPv6 address")  # yarl would take them off and ask DNS
            return url.with_port(url.port) if url.port else url  # reading the port raises when it is no number
        except ValueError:
            pass
    raise UrlNotAllowed("the URL cannot be read: check how it is written, and percent-encode spaces")


class _Dialer(AbstractResolver):
    """Stands between aiohttp and the network for one host: checks what a name resolves to, and again what is dialled."""

    def __init__(self, guard: AddressGuard, url: URL, resolver: AbstractResolver) -> None:
        self._guard = guard
        self._resolver = resolver
        self._name_allowed = bool(url.raw_host and url.port and guard.allow.allows_name(url.raw_host, url.port))

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        answers = await self._resolver.resolve(host, port, family)
        for answer in answers:
            self._check(answer["host"], port)
        return answers

    async def close(self) -> None:
        await self._resolver.close()

    def socket(self, info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, target = info
        self._check(str(target[0]), int(target[1]))
        return socket.socket(family, kind, protocol)

    def _check(self, address: str, port: int) -> None:
        if not self._name_allowed:
            self._guard.check_address(ip_address(address), port)
