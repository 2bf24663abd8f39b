"""How the store reaches Cloudflare Images: the official client, when a call is repeated, and what its errors mean.

The client repeats by itself what it should not (a 409 says that the picture is there), so it does not, and this module does.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx
import stamina
from cloudflare import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AsyncCloudflare,
    AuthenticationError,
    DefaultAsyncHttpxClient,
    PermissionDeniedError,
    RateLimitError,
)

from deployments.jobs.errors import UploadFailed
from deployments.storage.cloud_configs import CF_IMAGES_TOKEN, CfImagesConfig
from deployments.storage.retry_after import retry_after_s

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
TRIES = 5  # with pauses of 0.2, 0.4 … s and jitter, or as long as the server says
RETRY_S = 15.0  # a server that wants a longer pause is not asked again: the limit counts by five minutes
API_PATH = "/client/v4"
NO_SUCH_ACCOUNT = {7000, 7003}  # codes of Cloudflare: no route for that identifier
NO_SUCH_TOKEN = {6003, 6111, 9109, 10000, 10001}  # malformed, unknown, or not for this account
NO_ROOM = 5453  # the account has reached a limit of what it has paid for

T = TypeVar("T")


class CfImagesClient:
    """Calls of Cloudflare's client, with errors that say what to do."""

    def __init__(self, config: CfImagesConfig) -> None:
        """Touch nothing before the first call."""
        self._config = config
        self._sdk: AsyncCloudflare | None = None

    async def run(self, action: str, call: Callable[[AsyncCloudflare], Awaitable[T]]) -> T:
        """Make a call, again while it may pass.

        Args:
            action: for the error, such as "stored".
            call: is given the client; what it is refused by name (404, 409) it handles itself.

        Raises:
            UploadFailed: the service is away, refuses, or is not set up; the text says which.
        """
        with self._explained(action):
            sdk = self._sdk = self._sdk or self._connect()
            async for attempt in stamina.retry_context(on=pause_after, attempts=TRIES, timeout=RETRY_S, wait_initial=0.2, wait_jitter=0.2):
                with attempt:
                    return await call(sdk)
        raise AssertionError("stamina ends by raising the last error")

    def _connect(self) -> AsyncCloudflare:
        config, token = self._config, os.environ.get(CF_IMAGES_TOKEN, "")  # noqa: TID251 -- what is bound to a deployment is no secret
        if not token:
            raise UploadFailed(f"{CF_IMAGES_TOKEN} must be set in the environment of every machine of the cluster")
        trust = _trust(config)
        sdk = AsyncCloudflare(
            api_token=token,
            base_url=None if config.endpoint is None else config.endpoint + API_PATH,
            max_retries=0,
            timeout=TIMEOUT,
            http_client=DefaultAsyncHttpxClient(verify=trust, timeout=TIMEOUT),
        )
        # Of the account's other tools: the client would take them from the environment and prefer them to the token.
        sdk.api_email = sdk.api_key = sdk.user_service_key = None
        return sdk

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        where = f"account {self._config.account_id} of Cloudflare Images"
        try:
            yield
        except (APIError, httpx.HTTPError) as error:  # their own text may show a URL or what was sent
            raise UploadFailed(f"nothing could be {action} in {where}: {_advice(error)}") from error


def _trust(config: CfImagesConfig) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if config.ca_file is None else str(config.ca_file))
    except OSError:  # of which an SSLError is one
        raise UploadFailed("the certificates that ATELIER_STORAGE__CF_IMAGES__CA_FILE names cannot be read: correct the path") from None


def pause_after(error: Exception) -> bool | float:
    """Say whether the same call may go through a moment later, and after how many seconds where the server says so."""
    if isinstance(error, APIStatusError):
        if error.status_code not in {408, 429} and error.status_code < 500:
            return False
        wait_s = retry_after_s(error.response.headers.get("Retry-After"))
        return True if wait_s is None else wait_s <= RETRY_S and wait_s
    return isinstance(error, (APIConnectionError, httpx.TransportError)) and not _is_untrusted(error)


def codes_of(error: APIError) -> set[int]:
    """Return Cloudflare's own codes of an error."""
    return {item.code for item in error.errors or () if item.code is not None}


def _is_untrusted(error: BaseException | None) -> bool:
    return error is not None and (isinstance(error, ssl.SSLCertVerificationError) or _is_untrusted(error.__cause__ or error.__context__))


def _advice(error: Exception) -> str:  # noqa: PLR0911 -- one sentence a cause
    codes = codes_of(error) if isinstance(error, APIError) else set()
    if codes & NO_SUCH_ACCOUNT:
        return "Cloudflare does not know the account: correct CF_IMAGES_ACCOUNT_ID"
    if NO_ROOM in codes:
        return "the account has reached its limit of stored pictures: raise it at Cloudflare, or delete some"
    if isinstance(error, (AuthenticationError, PermissionDeniedError)) or codes & NO_SUCH_TOKEN:
        return f"the token is not accepted: make one with the permission Cloudflare Images Edit for this account, and set {CF_IMAGES_TOKEN}"
    if isinstance(error, RateLimitError):
        wait_s = retry_after_s(error.response.headers.get("Retry-After"))
        return f"Cloudflare takes no more calls now: try again {'later' if wait_s is None else f'in {wait_s:.0f} s'}"
    if isinstance(error, APIStatusError):
        shown = ", ".join(map(str, sorted(codes)))
        return "Cloudflare is overloaded: try again later" if error.status_code >= 500 else f"it answers {error.status_code} ({shown})"
    if _is_untrusted(error):
        return "its certificate is not trusted: name its CA's file in ATELIER_STORAGE__CF_IMAGES__CA_FILE"
    return "it cannot be reached or broke off: check DNS and the firewall, then try again"
