"""How the GCS store reaches its bucket: the client, when a request is repeated, and what its errors mean.

The client is Google's, whose calls block: they run in a pool of threads with as many connections. It repeats requests for two minutes and
waits a minute for each; here both are shorter. What is repeated must be safe to repeat: every write names the generation that it expects.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import google.auth
import requests
import urllib3
from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.auth.credentials import AnonymousCredentials, Signing
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError, TransportError
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud.storage import Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from requests.adapters import HTTPAdapter

from deployments.jobs.errors import UploadFailed
from deployments.storage.cloud_configs import GCS_CREDENTIALS, GcsConfig

CONNECTIONS = 16  # of one process: 4 parts in flight of each of 4 uploads
TIMEOUT_S = (5.0, 30.0)  # to connect, and between two bytes
RETRY_S = 15.0  # after so long a request is not sent again
GOOGLE = "https://storage.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
NO_BUCKET = "bucket does not exist"  # how the 404 of a bucket differs from that of an object
MAY_PASS = (api.TooManyRequests, api.InternalServerError, api.BadGateway, api.ServiceUnavailable, api.GatewayTimeout)
BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, ConnectionError)
BROKEN_BELOW = (urllib3.exceptions.ProtocolError, urllib3.exceptions.TimeoutError)
FAILURES = (
    api.GoogleAPIError,
    GoogleAuthError,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    InvalidResponse,
    DataCorruption,
    OSError,
)
TOO_EARLY_OR_LATE = ("short-lived", "timeframe")  # in Google's answer when a request is dated by a wrong clock
# The first that fits.
ADVICE: tuple[tuple[type[BaseException], str], ...] = (
    (
        DefaultCredentialsError,
        f"there are no whole credentials: name a service account's key file in {GCS_CREDENTIALS} on every machine, or attach an account",
    ),
    (
        RefreshError,
        f"Google refuses the credentials: make a new key for the service account, and name its file in {GCS_CREDENTIALS}",
    ),
    (api.Unauthorized, f"the server does not accept the credentials: check {GCS_CREDENTIALS} and the clock"),
    (api.Forbidden, "the service account may not do that: give it the role roles/storage.objectUser on the bucket"),
    (api.PreconditionFailed, "somebody else changed the object meanwhile: try again"),
    (DataCorruption, "the bytes came damaged: try again"),
    (requests.exceptions.SSLError, "its certificate is not trusted: name its CA's file in ATELIER_STORAGE__GCS__CA_FILE"),
    (requests.RequestException, "it cannot be reached or broke off: check the endpoint, DNS and the firewall, then try again"),
    (OSError, f"a file cannot be read: check {GCS_CREDENTIALS} and ATELIER_STORAGE__GCS__CA_FILE"),
)

T = TypeVar("T")


class GcsClient:
    """Calls of Google's client off the event loop, with errors that say what to do."""

    def __init__(self, config: GcsConfig) -> None:
        """Touch nothing before the first call."""
        self._config = config
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="gcs")
        self._lock = threading.Lock()
        self._bucket: Any = None
        # For every call: the arguments that Google's client takes.
        retry = Retry(predicate=may_pass, initial=0.2, maximum=2.0, multiplier=2.0, timeout=RETRY_S)
        self.patience: dict[str, Any] = {"timeout": TIMEOUT_S, "retry": retry}

    async def run(self, action: str, call: Callable[[Any], T]) -> T:
        """Make calls with the bucket in a thread.

        Args:
            action: for the error, such as "stored".
            call: is given the bucket.

        Raises:
            UploadFailed: the store is away, refuses, or is not set up; the text says which.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(self._run, action, call))

    def upload(self, blob: Any, data: bytes, media_type: str, generation: int) -> None:  # noqa: ANN401 -- Google's client has no types
        """Write an object in one request, in a call of ``run``, where its generation is as expected (0: there is none)."""
        blob.upload_from_string(data, content_type=media_type, if_generation_match=generation, checksum="crc32c", **self.patience)

    async def sign(self, name: str, method: str, seconds: int, **options: Any) -> str:  # noqa: ANN401 -- those of Google's client
        """Return a URL that allows one method on one object for a while. Nothing is sent.

        Raises:
            UploadFailed: the credentials have no private key: those of a machine's account have none.
        """

        def sign(bucket: Any) -> str:  # noqa: ANN401 -- Google's client has no types
            if not isinstance(bucket.client._credentials, Signing):  # noqa: SLF001 -- it has no other name
                raise UploadFailed(f"links are signed with a service account's key: name its file in {GCS_CREDENTIALS} on every machine")
            server = self._config.endpoint or GOOGLE
            return str(
                bucket.blob(name).generate_signed_url(
                    version="v4", expiration=timedelta(seconds=seconds), method=method, api_access_endpoint=server, **options
                )
            )

        return await self.run("signed", sign)

    def _run(self, action: str, call: Callable[[Any], T]) -> T:
        with self._explained(action):
            with self._lock:
                self._bucket = self._bucket or self._connect()
            return call(self._bucket)

    def _connect(self) -> Any:  # noqa: ANN401 -- Google's client has no types
        config = self._config
        options = {"api_endpoint": config.endpoint} if config.endpoint else None
        if config.anonymous:
            credentials: Any = AnonymousCredentials()  # type: ignore[no-untyped-call]  # google.auth has types here and there
        else:
            credentials, _ = google.auth.default(scopes=[SCOPE])
        session = AuthorizedSession(credentials, auth_request=Request(self._trust(requests.Session())))  # type: ignore[no-untyped-call]  # same
        client = Client(project=None, credentials=credentials, _http=self._trust(session), client_options=options)
        return client.bucket(config.bucket)

    def _trust(self, session: requests.Session) -> requests.Session:
        ca_file = None if self._config.ca_file is None else str(self._config.ca_file)
        session.mount("https://", _Adapter(ca_file, pool_maxsize=CONNECTIONS))
        return session

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        where = f"bucket {self._config.bucket} at {self._config.endpoint or 'Google Cloud Storage'}"
        try:
            yield
        except FAILURES as error:  # its own text may show a token, a signed URL or a path
            raise UploadFailed(f"nothing could be {action} in {where}: {_advice(_cause_of(error))}") from error


class _Adapter(HTTPAdapter):
    """Trusts the authorities of one file: REQUESTS_CA_BUNDLE in the environment would win over the session's own setting."""

    def __init__(self, ca_file: str | None, *, pool_maxsize: int) -> None:
        self._ca_file = ca_file
        super().__init__(pool_maxsize=pool_maxsize)

    def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]  # noqa: ANN401 -- requests has no types
        if self._ca_file is not None:
            options["verify"] = self._ca_file
        return super().send(request, **options)


def may_pass(error: BaseException) -> bool:
    """Say whether the same request may go through a moment later."""
    if isinstance(error, TransportError):
        return any(may_pass(cause) for cause in error.args if isinstance(cause, Exception))
    if isinstance(error, InvalidResponse):
        return error.response.status_code in {408, 429, 500, 502, 503, 504}
    if isinstance(error, requests.exceptions.SSLError):
        return False
    return isinstance(error, (*MAY_PASS, *BROKEN, *BROKEN_BELOW))


def is_gone(error: api.NotFound) -> bool:
    """Say whether an object is missing, and not its bucket."""
    return NO_BUCKET not in str(error)


def _cause_of(error: BaseException) -> BaseException:
    """Return what made Google's client give up."""
    if isinstance(error, api.RetryError) and error.cause is not None:
        return _cause_of(error.cause)
    if isinstance(error, TransportError):
        return next((cause for cause in error.args if isinstance(cause, BaseException)), error)
    return error


def _advice(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, RefreshError) and any(sign in text for sign in TOO_EARLY_OR_LATE):
        return "Google refuses the credentials because of their time: set the clock of this machine"
    if isinstance(error, api.NotFound) and NO_BUCKET in text:
        return "there is no such bucket: create it, or correct GCS_BUCKET_NAME"
    found = next((advice for kind, advice in ADVICE if isinstance(error, kind)), None)
    if found is not None:
        return found
    if may_pass(error):
        return "the server is overloaded: try again later"
    code = error.response.status_code if isinstance(error, InvalidResponse) else getattr(error, "code", None)
    return f"it answers {code or type(error).__name__}"
