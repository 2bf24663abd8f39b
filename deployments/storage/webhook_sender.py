"""Sends webhooks to addresses that users named, through the guard: each try looks the name up and checks it anew."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp.abc import AbstractResolver

from deployments.jobs.errors import UrlNotAllowed
from deployments.jobs.ports import WebhookAnswer
from deployments.storage.address import AllowList
from deployments.storage.fetch import FetchConfig, trust
from deployments.storage.guard import AddressGuard
from deployments.storage.retry_after import retry_after_s

HEADERS = {"User-Agent": "atelier", "Accept-Encoding": "identity"}


class GuardedSender:
    """Implements :class:`deployments.jobs.ports.WebhookSender`. Follows no redirects, reads no answer's body, keeps no connections."""

    def __init__(self, fetch: FetchConfig, timeout_s: float, resolver: AbstractResolver | None = None) -> None:
        """Build a sender.

        Args:
            fetch: addresses and certificates that are allowed, as for inputs.
            timeout_s: of one try, name lookup included.
            resolver: replaces the machine's name lookup in tests.
        """
        self._guard = AddressGuard(AllowList.parse(fetch.allow), fetch.ports)
        self._tls = trust(fetch.ca_file)
        self._timeout = aiohttp.ClientTimeout(total=None, connect=fetch.connect_timeout_s)
        self._timeout_s = timeout_s
        self._resolver = resolver

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> WebhookAnswer:
        """See the port."""
        checked = self._guard.check_url(url)
        session = self._guard.session(checked, self._resolver, self._tls, headers=HEADERS, timeout=self._timeout)
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                session,
                session.post(checked, data=body, headers=headers, allow_redirects=False) as got,
            ):
                return WebhookAnswer(got.status, retry_after_s=retry_after_s(got.headers.get("Retry-After")))
        except TimeoutError:
            return WebhookAnswer(None, "the receiver did not answer in time")
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise UrlNotAllowed("the webhook's URL cannot be requested: check how it is written") from None
        except (aiohttp.ClientError, OSError) as error:  # their messages contain the whole URL
            return WebhookAnswer(None, f"the receiver could not be reached ({type(error).__name__})")
