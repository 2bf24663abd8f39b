"""How the S3 store reaches its bucket: settings, the client, and what its errors mean.

The client is boto3's, whose calls block: they run in a pool of threads with as many connections. Newer versions of boto3 send and expect
checksums by default that servers other than AWS do not all understand, over TLS not at all: elsewhere they are left out where the protocol
does not require them.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, NoCredentialsError, SSLError
from pydantic import BaseModel, ConfigDict, Field, field_validator

from deployments.jobs.errors import UploadFailed
from deployments.storage.retry_after import retry_after_s

CONNECTIONS = 16  # of one process: 4 parts in flight of each of 4 uploads
CONNECT_S, READ_S = 5.0, 30.0  # boto3 waits for a minute each: a server that hangs would hold a worker
TRIES = 4  # of one request, with pauses that grow: 503 SlowDown, resets and time-outs pass within them

GONE = frozenset({"NoSuchKey", "NoSuchUpload", "404", "NotFound"})  # how servers call what is not there

ADVICE = (
    ({"NoSuchBucket"}, "there is no such bucket: create it, or correct its name"),
    (
        {"InvalidAccessKeyId", "SignatureDoesNotMatch"},
        "the server does not know the access key, or its secret is wrong: check both, and the clock",
    ),
    ({"AccessDenied", "403"}, "the keys may not do that: they need to list the bucket, and to get, put and delete objects"),
    ({"RequestTimeTooSkewed"}, "the clock of this machine is wrong"),
    ({"PreconditionFailed", "412"}, "the object was changed while it was read: try again"),
    ({"SlowDown", "503", "InternalError", "500", "ServiceUnavailable"}, "the server is overloaded: try again later"),
)

T = TypeVar("T")


class S3Server(BaseModel):
    """Where the server is. The keys are in the environment of the processes that use them, or come from the cloud's own default chain."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str | None = Field(None, description="URL of the server; none for AWS, https://<account>.r2.cloudflarestorage.com for R2")
    region: str | None = Field(None, description="region of the bucket; none for what the default chain of AWS says")
    path_style: bool | None = Field(
        None, description="bucket in the path, not in the host name; not set: with every endpoint that is not AWS"
    )
    ca_file: Path | None = Field(None, description="certificates that sign the server's, in PEM; none for those of the system")

    @field_validator("endpoint")
    @classmethod
    def _is_a_server(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or parts.path.strip("/"):
            raise ValueError("an S3 endpoint is written https://host[:port], without keys, a path or a query")
        return value.rstrip("/")

    @property
    def is_aws(self) -> bool:
        """Whether the server is Amazon's own."""
        return self.endpoint is None or (urlsplit(self.endpoint).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


class S3Config(S3Server):
    """Which bucket is ours."""

    bucket: str = Field("", description="name of the bucket, which must exist")
    prefix: str = Field("", description="folder of the bucket that is ours, such as atelier/; empty for the whole bucket")

    @field_validator("prefix")
    @classmethod
    def _is_a_folder(cls, value: str) -> str:
        return f"{value.strip('/')}/" if value.strip("/") else ""


class S3Client:
    """Calls of boto3 off the event loop, with errors that say what to do."""

    def __init__(self, config: S3Config, key_names: tuple[str, str] | None) -> None:
        """Touch nothing before the first call.

        Args:
            config: where the bucket is.
            key_names: names in the environment of the access key and of its secret; None for the default chain of boto3.
        """
        self._config = config
        self._key_names = key_names
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="s3")
        self._lock = threading.Lock()
        self._client: Any = None  # boto3 makes its classes while it runs

    async def run(self, action: str, call: Callable[[Any], T]) -> T:
        """Make calls with the client in a thread.

        Args:
            action: for the error, such as "stored".
            call: is given the client.

        Raises:
            UploadFailed: the store is away, refuses, or is not set up; the text says which.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(self._run, action, call))

    def _run(self, action: str, call: Callable[[Any], T]) -> T:
        with self._explained(action):
            with self._lock:  # making a client is not safe in several threads, using it is
                self._client = self._client or self._connect()
            return call(self._client)

    def _connect(self) -> Any:  # noqa: ANN401 -- boto3 makes its classes while it runs
        config, keys = self._config, _read_keys(self._key_names)
        path_style = not config.is_aws if config.path_style is None else config.path_style
        checksums = "when_supported" if config.is_aws else "when_required"
        return boto3.Session().client(
            "s3",
            endpoint_url=config.endpoint,
            region_name=config.region or (None if config.is_aws else "auto"),
            verify=str(config.ca_file) if config.ca_file else None,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path" if path_style else "auto"},
                max_pool_connections=CONNECTIONS,
                connect_timeout=CONNECT_S,
                read_timeout=READ_S,
                retries={"mode": "standard", "total_max_attempts": TRIES},
                request_checksum_calculation=checksums,
                response_checksum_validation=checksums,
            ),
            **keys,
        )

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        where = f"bucket {self._config.bucket} at {self._config.endpoint or 'AWS'}"
        try:
            yield
        except ClientError as error:
            headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
            pause_s = retry_after_s(headers.get("retry-after"))
            raise UploadFailed(f"nothing could be {action} in {where}: {_advice(code_of(error))}", pause_s) from error
        except NoCredentialsError:
            raise UploadFailed(f"there are no keys for {where}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY on every machine") from None
        except SSLError:
            raise UploadFailed(f"the certificate of {where} is not trusted: name its CA's file in ATELIER_STORAGE__S3__CA_FILE") from None
        except EndpointConnectionError:
            raise UploadFailed(f"{where} cannot be reached: check the endpoint, DNS and the firewall") from None
        except BotoCoreError as error:  # its own text may show a signed URL
            raise UploadFailed(f"nothing could be {action} in {where} ({type(error).__name__}): try again later") from error


def _read_keys(names: tuple[str, str] | None) -> dict[str, str]:
    """Return the arguments for boto3. Each process reads the keys itself: what is bound to a deployment is no secret."""
    if names is None:
        return {}
    found = [os.environ.get(name, "") for name in names]  # noqa: TID251 -- see above
    if not all(found):
        raise UploadFailed(f"{' and '.join(names)} must be set in the environment of every machine of the cluster")
    return dict(zip(("aws_access_key_id", "aws_secret_access_key"), found, strict=True))


def code_of(error: ClientError) -> str:
    """Return what the server calls its error, or the HTTP status of an answer without a body."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _advice(code: str) -> str:
    return next((advice for codes, advice in ADVICE if code in codes), f"it answers {code}")
