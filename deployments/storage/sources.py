"""Where inputs come from that jobs name: the web, and buckets that the operator has opened."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Protocol

from aiohttp.abc import AbstractResolver

from deployments.jobs.errors import FileNotFound, InvalidInput, UrlNotAllowed
from deployments.storage.base import Head
from deployments.storage.cloud_configs import GcsConfig
from deployments.storage.fetch import FetchConfig, GuardedFetcher
from deployments.storage.gcs_client import GcsClient
from deployments.storage.gcs_reader import GcsReader
from deployments.storage.incoming import FetchedFile, IncomingFile
from deployments.storage.s3_client import S3Client, S3Config
from deployments.storage.s3_reader import S3Reader

CLOUD = re.compile(r"(s3|gs)://", re.IGNORECASE)
OBJECT = re.compile(r"(?P<scheme>s3|gs)://(?P<bucket>[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])/(?P<name>[^\x00-\x1f\x7f]{1,1024})")


class BucketReader(Protocol):
    """Reads objects of one bucket."""

    async def head(self, name: str, shown: str) -> Head:
        """Look at an object."""

    def read(self, name: str, shown: str, start: int, end: int, etag: str | None = None) -> AsyncGenerator[bytes, None]:
        """Yield its bytes."""


class InputSources:
    """Downloads what a URL of a job leads to: ``http:``, ``https:``, ``s3:`` or ``gs:``."""

    def __init__(self, config: FetchConfig, resolver: AbstractResolver | None = None) -> None:
        """Touch nothing before the first download; ``resolver`` replaces the machine's name lookup in tests."""
        self._config = config
        self._web = GuardedFetcher(config, resolver)
        self._readers: dict[tuple[str, str], BucketReader] = {}

    def check_url(self, url: str) -> None:
        """Refuse at submit time what can be refused without asking anybody; ``fetch`` checks again.

        Raises:
            UrlNotAllowed: it would never be fetched.
        """
        if CLOUD.match(url):
            self._parse(url)
        else:
            self._web.check_url(url)

    async def fetch(self, url: str, directory: Path, etag: str | None = None) -> FetchedFile | None:
        """Download to a new file; see :meth:`GuardedFetcher.fetch`.

        Raises:
            UrlNotAllowed: the bucket is not among those that were opened.
            InvalidInput: the bucket has no such object.
        """
        if not CLOUD.match(url):
            return await self._web.fetch(url, directory, etag)
        scheme, bucket, name = self._parse(url)
        reader, shown = self._reader(scheme, bucket), url[:200]
        try:
            head = await reader.head(name, shown)
            if head.etag == etag:
                return None
            with IncomingFile(directory, shown, self._config.max_bytes) as incoming:
                incoming.check_length(head.size_bytes)
                async with contextlib.aclosing(reader.read(name, shown, 0, head.size_bytes, head.etag)) as chunks:
                    async for chunk in chunks:
                        incoming.add(chunk)
                return incoming.finish(head.etag)
        except FileNotFound:
            raise InvalidInput(f"{shown} is not there: check the name of the object") from None

    def _parse(self, url: str) -> tuple[str, str, str]:
        found = OBJECT.fullmatch(url)
        if found is None:
            raise UrlNotAllowed("the URL of an object is written s3://bucket/name or gs://bucket/name, with the bucket in lower case")
        scheme, bucket = found["scheme"], found["bucket"]
        if bucket not in getattr(self._config.buckets, scheme):
            setting = f"ATELIER_FETCH__BUCKETS__{scheme.upper()}"
            raise UrlNotAllowed(f"no inputs are read from {scheme}://{bucket} here: have the operator name the bucket in {setting}")
        return scheme, bucket, found["name"]

    def _reader(self, scheme: str, bucket: str) -> BucketReader:
        place = (scheme, bucket)
        if place not in self._readers:
            self._readers[place] = self._connect(scheme, bucket)
        return self._readers[place]

    def _connect(self, scheme: str, bucket: str) -> BucketReader:
        if scheme == "gs":
            return GcsReader(GcsClient(GcsConfig(bucket=bucket, **self._config.gs.model_dump())))
        return S3Reader(S3Client(S3Config(bucket=bucket, **self._config.s3.model_dump()), None), bucket)
