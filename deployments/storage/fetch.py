"""Downloads of media that users name by URL: guarded, limited, typed by content.

Rules: only http and https to public addresses (or allowed ones), at most three redirects and each checked anew, no cookies, no
proxies from the environment, no compressed bodies, a limit on bytes, on time and on slowness. What passes is tried again, when the server
says so if it does; a download that broke goes on where it broke, under a strong ETag alone. Messages show scheme, host and path: a
query string may be a signature.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import aiohttp
from aiohttp.abc import AbstractResolver
from pydantic import BaseModel, ConfigDict, Field, field_validator
from yarl import URL

from deployments.jobs.errors import FetchFailed, InvalidInput, UnsupportedMedia, UrlNotAllowed
from deployments.jobs.logs import fields, get_logger
from deployments.storage.address import AllowList
from deployments.storage.cloud_configs import GcsServer
from deployments.storage.guard import AddressGuard, parse_url, without_secrets
from deployments.storage.incoming import FetchedFile, IncomingFile
from deployments.storage.retry_after import retry_after_s
from deployments.storage.s3_client import S3Server

log = get_logger(__name__)

CHUNK_BYTES = 256 * 1024
WORTH_GOING_ON = 4 * CHUNK_BYTES  # a try that brought more does not count as one that failed: the whole has its time-out
FIRST_PAUSE_S = 0.5
CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-")
REDIRECTS = frozenset({301, 302, 303, 307, 308})
WORTH_ANOTHER_TRY = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
HEADERS = {"User-Agent": "atelier", "Accept-Encoding": "identity", "Accept": "image/*, video/*, audio/*;q=0.9, */*;q=0.1"}


class InputBuckets(BaseModel):
    """Buckets that jobs may name inputs in: they are read with the rights of this installation, whoever asks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    s3: frozenset[str] = Field(frozenset(), description="names of buckets for s3://bucket/key; none opens none")
    gs: frozenset[str] = Field(frozenset(), description="names of buckets for gs://bucket/name; none opens none")


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
    tries: int = Field(4, ge=1, description="of one download, those that brought a megabyte not counted")
    max_pause_s: float = Field(
        20.0, ge=0, description="longest pause before the next try: a server that asks for more gets the job's next attempt instead"
    )
    ca_file: Path | None = Field(None, description="certificates trusted besides the public ones, for private buckets")

    buckets: InputBuckets = Field(InputBuckets(), description="buckets for inputs")
    s3: S3Server = Field(S3Server(), description="server of the buckets of s3:// inputs")
    gs: GcsServer = Field(GcsServer(), description="server of the buckets of gs:// inputs")

    @field_validator("allow")
    @classmethod
    def _entries_can_match(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        AllowList.parse(value)  # at start: an entry that never matches is found out by a customer otherwise
        return value


class _Again(FetchFailed):
    """A failure that passes, perhaps at a time that the server has named."""

    def __init__(self, message: str, pause_s: float | None = None) -> None:
        super().__init__(message)
        self.pause_s = pause_s


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

    async def fetch(self, url: str, directory: Path, etag: str | None = None) -> FetchedFile | None:
        """Download to a new file in ``directory``, going on where a connection broke if the server can.

        Args:
            url: http or https.
            directory: for the file.
            etag: of what is known already.

        Returns:
            The file; None when it is still what ``etag`` stands for.

        Raises:
            UrlNotAllowed: the guard refuses the address, or the one of a redirect.
            InvalidInput: the server refuses (4xx), its certificate is not trusted, or it redirects too often.
            UnsupportedMedia: the content is no media, such as a web page, or compressed in transfer.
            MediaTooLarge: longer than ``max_bytes``.
            FetchFailed: no or no whole answer, in several tries; a later one may succeed.
        """
        shown = _shown(url)
        with IncomingFile(directory, shown, self._config.max_bytes) as incoming:
            try:
                async with asyncio.timeout(self._config.timeout_s):
                    return await self._persist(url, incoming, etag)
            except TimeoutError:
                raise FetchFailed(f"{shown} took too long to answer: make it reachable and try again") from None

    async def _persist(self, url: str, incoming: IncomingFile, etag: str | None) -> FetchedFile | None:
        validator = _Validator()
        tries = 0
        while True:
            before = incoming.size_bytes
            try:
                return await self._follow(url, incoming, etag, validator)
            except _Again as error:
                tries = 1 if incoming.size_bytes - before > WORTH_GOING_ON else tries + 1
                pause_s = max(FIRST_PAUSE_S * 2 ** (tries - 1) * random.uniform(0.5, 1.5), error.pause_s or 0.0)  # noqa: S311 -- spreads load
                if tries >= self._config.tries or pause_s > self._config.max_pause_s:
                    raise FetchFailed(str(error)) from None
                log.info("download tried again", extra=fields(action="fetch_again", reason=str(error), pause_s=round(pause_s, 3)))
            await asyncio.sleep(pause_s)

    async def _follow(self, text: str, incoming: IncomingFile, etag: str | None, validator: _Validator) -> FetchedFile | None:
        url = self._guard.check_url(text)
        headers = _conditions(incoming, etag, validator)
        for _ in range(self._config.max_redirects + 1):
            async with self._request(url, headers) as response:
                if response.status == HTTPStatus.NOT_MODIFIED and "If-None-Match" in headers:
                    return None
                if response.status not in REDIRECTS:
                    self._begin(url, response, incoming, validator)
                    await self._receive(url, response, incoming)
                    return incoming.finish(response.headers.get("ETag"))
                url = self._guard.check_url(_target(url, response))
        raise InvalidInput(f"{_shown(text)} redirects more than {self._config.max_redirects} times: use the final URL")

    @contextlib.asynccontextmanager
    async def _request(self, url: URL, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=None, connect=self._config.connect_timeout_s, sock_read=self._config.read_timeout_s)
        session = self._guard.session(url, self._resolver, self._tls, headers=HEADERS | dict(headers), timeout=timeout)
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
            raise _Again(f"{without_secrets(url)} could not be downloaded ({type(error).__name__}): try again later") from None

    def _begin(self, url: URL, response: aiohttp.ClientResponse, incoming: IncomingFile, validator: _Validator) -> None:
        """Check an answer's head: either it goes on where the file ends, or the file begins anew."""
        status, shown = response.status, without_secrets(url)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in WORTH_ANOTHER_TRY:
            raise _Again(f"{shown} answered {status}: try again later", retry_after_s(response.headers.get("Retry-After")))
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and incoming.size_bytes:
            incoming.restart()  # what there was has changed
            raise _Again(f"{shown} was changed while it was downloaded: try again later")
        if status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
            raise InvalidInput(f"{shown} answered {status}: check that the URL is right, public and not expired")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise UnsupportedMedia(f"{shown} answered a compressed body: serve the file without Content-Encoding")
        if status == HTTPStatus.OK:
            incoming.restart()
            validator.etag = _strong(response.headers.get("ETag"))
        elif not incoming.size_bytes or _begin_of(response) != incoming.size_bytes:
            incoming.restart()
            validator.etag = None  # it gives other parts than it is asked for
            raise _Again(f"{shown} answered another part than was asked for: try again later")
        incoming.check_length(incoming.size_bytes + (response.content_length or 0))

    async def _receive(self, url: URL, response: aiohttp.ClientResponse, incoming: IncomingFile) -> None:
        began, before = time.monotonic(), incoming.size_bytes
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            incoming.add(chunk)
            self._check_pace(url, incoming.size_bytes - before, time.monotonic() - began)

    def _check_pace(self, url: URL, size_bytes: int, elapsed_s: float) -> None:
        if elapsed_s > self._config.grace_s and size_bytes < self._config.min_rate * elapsed_s:
            raise FetchFailed(f"{without_secrets(url)} sends less than {self._config.min_rate:g} bytes a second: try again later")


@dataclass(slots=True)
class _Validator:
    """What a server said of the bytes that have come: by it the rest is asked for, and never of another file."""

    etag: str | None = None  # a strong one


def _conditions(incoming: IncomingFile, etag: str | None, validator: _Validator) -> dict[str, str]:
    if incoming.size_bytes and validator.etag:
        return {"Range": f"bytes={incoming.size_bytes}-", "If-Range": validator.etag}
    return {"If-None-Match": etag} if etag and not incoming.size_bytes else {}


def _strong(etag: str | None) -> str | None:
    return etag if etag and etag.startswith('"') else None


def _begin_of(response: aiohttp.ClientResponse) -> int | None:
    found = CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


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
