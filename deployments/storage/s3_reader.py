"""Reading objects of one bucket of S3: ours, or one that jobs name as ``s3://bucket/key``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from deployments.jobs.errors import FileNotFound, Unavailable
from deployments.storage.base import Head
from deployments.storage.s3_client import GONE, S3Client, code_of

READ_BYTES = 1 << 20
READ_TRIES = 4  # without a byte between them: a connection that breaks is taken up where it broke


class S3Reader:
    """Reads by whole names, whatever characters they are of; ``shown`` is what errors call the object."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    async def head(self, name: str, shown: str) -> Head:
        """Look at an object.

        Raises:
            FileNotFound: there is none.
            UploadFailed: the bucket is away, refuses, or is not set up.
        """
        place = {"Bucket": self._bucket, "Key": name}
        found = await self._client.run("read", lambda s3: _or_not_found(shown, s3.head_object, place))
        return Head(int(found["ContentLength"]), str(found["ETag"]))

    async def read(self, name: str, shown: str, start: int, end: int, etag: str | None = None) -> AsyncGenerator[bytes, None]:
        """Yield up to 1 MiB at a time, and go on when a connection has broken.

        Args:
            name: of the object.
            shown: for errors.
            start: first byte.
            end: behind the last one.
            etag: of the object that is meant, where it may change.

        Raises:
            FileNotFound: there is none.
            Unavailable: the bucket ends it too early, again and again, or it has changed.
        """
        at, tries = start, 0
        while at < end:
            before = at
            async with contextlib.aclosing(self._read_once(name, shown, at, end, etag)) as chunks:
                async for chunk in chunks:
                    at += len(chunk)
                    yield chunk
            tries = tries + 1 if at == before else 0
            if tries == READ_TRIES:
                raise Unavailable(f"the store ends {shown} after {at} of {end} bytes: try again later")

    async def _read_once(self, name: str, shown: str, start: int, end: int, etag: str | None) -> AsyncGenerator[bytes, None]:
        """Read until the end, or until the connection breaks."""
        wanted = {"Bucket": self._bucket, "Key": name, "Range": f"bytes={start}-{end - 1}"} | ({"IfMatch": etag} if etag else {})
        answer = await self._client.run("read", lambda s3: _or_not_found(shown, s3.get_object, wanted))
        with contextlib.closing(answer["Body"]) as body:
            if answer["ContentLength"] != end - start:
                raise Unavailable(f"the store answers {answer['ContentLength']} bytes of {shown} where {end - start} were asked for")
            while chunk := await self._client.run("read", lambda _: _next_of(body)):
                yield chunk


def _or_not_found(shown: str, call: Any, place: dict[str, str]) -> Any:  # noqa: ANN401 -- boto3 makes its classes while it runs
    try:
        return call(**place)
    except ClientError as error:
        if code_of(error) in GONE:
            raise FileNotFound(shown) from None
        raise


def _next_of(body: Any) -> bytes:  # noqa: ANN401 -- same
    """Read on; nothing at the end and when the connection breaks."""
    try:
        return bytes(body.read(READ_BYTES))
    except (BotoCoreError, HTTPError, OSError):
        return b""
