"""Downloads of media that users name by URL: guarded, limited, typed by content.

Rules: only http and https to public addresses (or allowed ones), at most three redirects and each checked anew, no cookies, no
proxies from the environment, no compressed bodies, a limit on bytes, on time and on slowness. The body goes to a file while it is
hashed and is never whole in memory. Messages show scheme, host and path: a query string may be a signature.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import ssl
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import aiohttp
from aiohttp.abc import AbstractResolver
from pydantic import BaseModel, ConfigDict, Field, field_validator
from yarl import URL

from deployments.jobs.errors import FetchFailed, InvalidInput, MediaTooLarge, UnsupportedMedia, UrlNotAllowed
from deployments.jobs.media_types import SNIFF_BYTES, sniff
from deployments.storage.address import AllowList
from deployments.storage.guard import AddressGuard, parse_url, without_secrets

CHUNK_BYTES = 256 * 1024
REDIRECTS = frozenset({301, 302, 303, 307, 308})
WORTH_ANOTHER_TRY = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
HEADERS = {"User-Agent": "atelier", "Accept-Encoding": "identity", "Accept": "image/*, video/*, audio/*;q=0.9, */*;q=0.1"}


class FetchConfig(BaseModel):
    """What the fetcher may reach, and how much it takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow: tuple[str, ...] = Field((), description="names, addresses and CIDRs allowed although private, ':port' for one port only")
    ports: frozenset[int] = Field(frozenset({80, 443}), description="ports of public addresses")
    max_bytes: int = Field(512 * 2**20, gt=0, description="longest body")
    max_redirects: int = Field(3, ge=0, description="redirects followed, each checked as a new URL")
    timeout_s: float = Field(300.0, gt=0, description="whole download, redirects included")
    connect_timeout_s: float = Field(10.0, gt=0, description="name lookup, connection and TLS handshake")
    read_timeout_s: float = Field(20.0, gt=0, description="longest silence of the server")
    min_rate: float = Field(10_000.0, ge=0, description="bytes per second, on average, below which a download is given up")
    grace_s: float = Field(10.0, ge=0, description="time before min_rate counts")
    ca_file: Path | None = Field(None, description="certificates trusted besides the public ones, for private buckets")

    @field_validator("allow")
    @classmethod
    def _entries_can_match(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        AllowList.parse(value)  # at start: an entry that never matches is found out by a customer otherwise
        return value


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A finished download. The file is the caller's to move or remove."""

    path: Path
    media_type: str  # by content
    sha256: str
    size_bytes: int
    etag: str | None


class GuardedFetcher:
    """Downloads media for jobs. Keeps no connections and no cookies between downloads."""

    def __init__(self, config: FetchConfig, resolver: AbstractResolver | None = None) -> None:
        """Build a fetcher; ``resolver`` replaces the machine's name lookup in tests."""
        self._config = config
        self._guard = AddressGuard(AllowList.parse(config.allow), config.ports)
        self._resolver = resolver
        self._tls = trust(config.ca_file)

    def check_url(self, url: str) -> None:
        """Refuse at submit time what can be refused without asking DNS; ``fetch`` checks again.

        Raises:
            UrlNotAllowed: it would never be fetched.
        """
        self._guard.check_url(url)

    async def fetch(self, url: str, directory: Path) -> FetchedFile:
        """Download to a new file in ``directory``.

        Raises:
            UrlNotAllowed: the guard refuses the address, or the one of a redirect.
            InvalidInput: the server refuses (4xx), its certificate is not trusted, or it redirects too often.
            UnsupportedMedia: the content is no media, such as a web page, or compressed in transfer.
            MediaTooLarge: longer than ``max_bytes``.
            FetchFailed: no or no whole answer; another try may succeed.
        """
        try:
            async with asyncio.timeout(self._config.timeout_s):
                return await self._follow(url, directory)
        except TimeoutError:
            raise FetchFailed(f"{_shown(url)} took too long to answer: make it reachable and try again") from None

    async def _follow(self, text: str, directory: Path) -> FetchedFile:
        url = self._guard.check_url(text)
        for _ in range(self._config.max_redirects + 1):
            async with self._request(url) as response:
                if response.status not in REDIRECTS:
                    self._check_answer(url, response)
                    return await self._receive(url, response, directory)
                url = self._guard.check_url(_target(url, response))
        raise InvalidInput(f"{_shown(text)} redirects more than {self._config.max_redirects} times: use the final URL")

    @contextlib.asynccontextmanager
    async def _request(self, url: URL) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=None, connect=self._config.connect_timeout_s, sock_read=self._config.read_timeout_s)
        session = aiohttp.ClientSession(
            connector=self._guard.connector(url, self._resolver, self._tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers=HEADERS,
            timeout=timeout,
        )
        # Their messages contain the whole URL, so none of these errors becomes a cause.
        try:
            async with session, session.get(url, allow_redirects=False) as response:
                yield response
        except aiohttp.ClientConnectorCertificateError:
            raise InvalidInput(
                f"the certificate of {url.raw_host} is not trusted: use https with a valid one, or upload the file"
            ) from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise UrlNotAllowed(f"{without_secrets(url)} cannot be requested: check how the URL is written") from None
        except (aiohttp.ClientError, OSError) as error:
            raise FetchFailed(f"{without_secrets(url)} could not be downloaded ({type(error).__name__}): try again later") from None

    def _check_answer(self, url: URL, response: aiohttp.ClientResponse) -> None:
        status, shown = response.status, without_secrets(url)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in WORTH_ANOTHER_TRY:
            raise FetchFailed(f"{shown} answered {status}: try again later")
        if status != HTTPStatus.OK:
            raise InvalidInput(f"{shown} answered {status}: check that the URL is right, public and not expired")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise UnsupportedMedia(f"{shown} answered a compressed body: serve the file without Content-Encoding")
        if (response.content_length or 0) > self._config.max_bytes:
            raise self._too_large(url)

    async def _receive(self, url: URL, response: aiohttp.ClientResponse, directory: Path) -> FetchedFile:
        descriptor, name = tempfile.mkstemp(prefix="fetch-", dir=directory)
        path = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                media_type, sha256, size_bytes = await self._write(url, response, file)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return FetchedFile(path, media_type, sha256, size_bytes, response.headers.get("ETag"))

    async def _write(self, url: URL, response: aiohttp.ClientResponse, file: BinaryIO) -> tuple[str, str, int]:
        digest = hashlib.sha256()
        head, size_bytes, media_type = b"", 0, None
        began = time.monotonic()
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            size_bytes += len(chunk)
            if size_bytes > self._config.max_bytes:
                raise self._too_large(url)
            self._check_pace(url, size_bytes, time.monotonic() - began)
            if media_type is None:
                head += chunk[:SNIFF_BYTES]
                media_type = _media_type(url, head) if len(head) >= SNIFF_BYTES else None
            digest.update(chunk)  # in the loop: a chunk costs less than handing it to a thread
            file.write(chunk)
        return media_type or _media_type(url, head), digest.hexdigest(), size_bytes

    def _check_pace(self, url: URL, size_bytes: int, elapsed_s: float) -> None:
        if elapsed_s > self._config.grace_s and size_bytes < self._config.min_rate * elapsed_s:
            raise FetchFailed(f"{without_secrets(url)} sends less than {self._config.min_rate:g} bytes a second: try again later")

    def _too_large(self, url: URL) -> MediaTooLarge:
        return MediaTooLarge(f"{without_secrets(url)} is longer than {self._config.max_bytes / 2**20:g} MiB: shorten or compress the media")


def _media_type(url: URL, head: bytes) -> str:
    found = sniff(head)
    if found == "text/html":
        raise UnsupportedMedia(f"{without_secrets(url)} answered a web page, not media: use the direct link to the file")
    if found is None or not found.startswith(("image/", "video/", "audio/")):
        raise UnsupportedMedia(
            f"{without_secrets(url)} answered {found or 'bytes of no known type'}: give the URL of a picture, video or audio file"
        )
    return found


def _target(url: URL, response: aiohttp.ClientResponse) -> str:
    location = response.headers.get("Location")
    if not location:
        raise InvalidInput(f"{without_secrets(url)} answered {response.status} without saying where to: use the final URL")
    return str(url.join(parse_url(location)))


def _shown(text: str) -> str:
    return without_secrets(parse_url(text))


def trust(ca_file: Path | None) -> ssl.SSLContext | None:
    """Return the TLS context that trusts a file's certificates besides the public ones; None for the public ones alone."""
    if ca_file is None:
        return None
    context = ssl.create_default_context()
    context.load_verify_locations(cafile=ca_file)
    return context
