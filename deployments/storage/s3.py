"""Objects in a bucket of S3, R2, MinIO, Ceph or another server that speaks S3.

An object is whole or absent: a small one is put in one request, a larger one is a multipart upload that appears when it is completed. All
state of an upload is with the server and in the token, so any process may take any part. TLS protects each part on its way, over plain
HTTP its MD5 does; which parts there are, and how long, is checked before they are joined. S3 does not tell the SHA-256 of what it has
joined: whoever reads an input back compares it with the one that the job store holds.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from deployments.jobs.errors import FileNotFound, Unavailable, UploadFailed
from deployments.jobs.ports import INCOMING, PART_BYTES, ClientUpload, StoredObject, UploadToken
from deployments.storage.base import CACHED_BY_ANY, CACHED_BY_READER, check_key, uri_of
from deployments.storage.s3_client import GONE, S3Client, S3Config, code_of
from deployments.storage.s3_reader import S3Reader

MAX_PARTS = 10_000  # of S3: 78 GiB


class S3Store:
    """Uploader and reader over a bucket."""

    def __init__(self, config: S3Config, provider: str = "s3", key_names: tuple[str, str] | None = None) -> None:
        """See :class:`S3Client`."""
        self._config = config
        self._provider = provider
        self._client = S3Client(config, key_names)
        self._reader = S3Reader(self._client, config.bucket)

    async def check(self, expected: str | None = None) -> str:
        """See :class:`deployments.storage.base.ObjectStore`. The bucket is its own identity."""
        key, mark = f"{self._config.prefix}markers/{uuid.uuid4().hex}", uuid.uuid4().bytes
        bucket = self._config.bucket
        await self._client.run("stored", lambda s3: s3.put_object(Bucket=bucket, Key=key, Body=mark))
        found = await self._client.run("read", lambda s3: s3.get_object(Bucket=bucket, Key=key)["Body"].read(len(mark) + 1))
        await self._client.run("deleted", lambda s3: s3.delete_object(Bucket=bucket, Key=key))
        place = f"{self._config.endpoint or 'aws'} {bucket} {self._config.prefix}"
        identity = hashlib.sha256(place.encode()).hexdigest()[:32]
        if found != mark or expected not in {None, identity}:
            raise Unavailable("this machine does not see the bucket of the others: give all machines the same storage settings")
        return identity

    async def begin(self, key: str, media_type: str) -> UploadToken:
        """See the port. A repeated call opens another upload; ``sweep`` drops the one that nobody completes."""
        ours = uuid.uuid4().hex
        place = self._place(key)
        answer = await self._client.run(
            "begun", lambda s3: s3.create_multipart_upload(**place, **_headers(media_type), Metadata={"upload": ours})
        )
        return UploadToken(key, f"{ours}.{answer['UploadId']}", media_type)

    async def put_part(self, token: UploadToken, number: int, data: bytes) -> None:
        """See the port."""
        if not (0 <= number < MAX_PARTS and len(data) <= PART_BYTES):
            raise UploadFailed(
                f"part {number} of {len(data)} bytes is none: at most {MAX_PARTS} parts of {PART_BYTES} bytes make an object"
            )
        _, upload_id = _ids_of(token)
        place = self._place(token.key)

        def send(s3: Any) -> None:  # noqa: ANN401 -- boto3 makes its classes while it runs
            s3.upload_part(**place, UploadId=upload_id, PartNumber=number + 1, Body=data, **self._checked(data))

        await self._client.run("stored", send)

    async def complete(self, token: UploadToken, parts: int, sha256: str) -> StoredObject:
        """See the port. Repeated after success it finds the object in place and answers the same."""
        ours, upload_id = _ids_of(token)
        place = self._place(token.key)

        def complete(s3: Any) -> int:  # noqa: ANN401 -- same
            try:
                found = list(_parts(s3, place, upload_id))
                size_bytes = _check_parts(found, parts)
                joined = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in found]
                s3.complete_multipart_upload(**place, UploadId=upload_id, MultipartUpload={"Parts": joined})
            except ClientError as error:
                if code_of(error) not in GONE:
                    raise
                return _completed_before(s3, place, ours)
            return size_bytes

        return StoredObject(token.key, uri_of(self._provider, token.key), await self._client.run("completed", complete), sha256)

    async def put(self, key: str, media_type: str, data: bytes, sha256: str) -> StoredObject:
        """See the port."""
        if hashlib.sha256(data).hexdigest() != sha256:
            raise UploadFailed("the bytes do not have the announced sha256: upload again")
        place = self._place(key)

        def put(s3: Any) -> None:  # noqa: ANN401 -- same
            s3.put_object(**place, **_headers(media_type), Body=data, **self._checked(data), Metadata={"sha256": sha256})

        await self._client.run("stored", put)
        return StoredObject(key, uri_of(self._provider, key), len(data), sha256)

    async def abort(self, token: UploadToken) -> None:
        """See the port."""
        _, upload_id = _ids_of(token)
        place = self._place(token.key)
        await self._client.run("dropped", lambda s3: _abort(s3, place, upload_id))

    async def delete(self, key: str) -> None:
        """See the port."""
        place = self._place(key)
        await self._client.run("deleted", lambda s3: s3.delete_object(**place))

    async def open_to_client(self, key: str, media_type: str, size_bytes: int, seconds: int) -> ClientUpload:
        """See the port: a presigned PUT of just that length. A browser's page needs a CORS rule of the bucket that allows it."""
        params = {**self._place(key), "ContentType": media_type, "ContentLength": size_bytes}
        url = await self._client.run(
            "opened", lambda s3: str(s3.generate_presigned_url("put_object", Params=params, ExpiresIn=seconds, HttpMethod="PUT"))
        )
        return ClientUpload(url, {"Content-Type": media_type, "Content-Length": str(size_bytes)})

    async def copy(self, source: str, target: str, media_type: str) -> None:
        """See the port; larger ones than 5 GiB are copied in parts by boto3."""
        found, place = self._place(source), self._place(target)
        extra = {**_headers(media_type), "MetadataDirective": "REPLACE"}

        def copy(s3: Any) -> None:  # noqa: ANN401 -- same
            try:
                s3.copy(found, place["Bucket"], place["Key"], ExtraArgs=extra)
            except ClientError as error:
                if code_of(error) in GONE:
                    raise FileNotFound(source) from None
                raise

        await self._client.run("copied", copy)

    async def size(self, key: str) -> int:
        """See :class:`deployments.jobs.ports.ObjectReader`."""
        return (await self._reader.head(self._place(key)["Key"], key)).size_bytes

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """See :class:`deployments.jobs.ports.ObjectReader`; yields up to 1 MiB at a time, and goes on when a connection has broken."""
        end = await self.size(key) if end is None else end
        async with contextlib.aclosing(self._reader.read(self._place(key)["Key"], key, start, end)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def link(self, key: str, seconds: int, media_type: str, disposition: str) -> str:
        """See :class:`deployments.jobs.ports.ObjectReader`: a presigned GET, made here and not asked for."""
        shown = {"ResponseContentType": media_type, "ResponseContentDisposition": disposition, "ResponseCacheControl": CACHED_BY_READER}
        params = {**self._place(key), **shown}
        return await self._client.run("linked", lambda s3: str(s3.generate_presigned_url("get_object", Params=params, ExpiresIn=seconds)))

    async def sweep(self, older_than_s: float) -> int:
        """See :class:`deployments.storage.base.ObjectStore`."""
        before = datetime.now(UTC) - timedelta(seconds=older_than_s)
        bucket, prefix = self._config.bucket, self._config.prefix

        def sweep(s3: Any) -> int:  # noqa: ANN401 -- same
            stale = [upload for upload in _open_uploads(s3, bucket, prefix) if upload["Initiated"] <= before]
            for upload in stale:
                _abort(s3, {"Bucket": bucket, "Key": upload["Key"]}, upload["UploadId"])
            listed = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}{INCOMING}/")
            left = [found["Key"] for page in listed for found in page.get("Contents", ()) if found["LastModified"] <= before]
            for key in left:  # sent by clients that did not complete them
                s3.delete_object(Bucket=bucket, Key=key)
            return len(stale) + len(left)

        return await self._client.run("swept", sweep)

    def _checked(self, data: bytes) -> dict[str, str]:
        """Return what lets the server check a body that nothing else protects: TLS does already, and an MD5 costs a tenth of an upload."""
        if not (self._config.endpoint or "").startswith("http://"):
            return {}
        return {"ContentMD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()}

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self._config.bucket, "Key": self._config.prefix + check_key(key)}


def _ids_of(token: UploadToken) -> tuple[str, str]:
    ours, _, upload_id = token.upload_id.partition(".")
    if not upload_id:
        raise UploadFailed("the upload token is not of this store: begin the upload again")
    return ours, upload_id


def _headers(media_type: str) -> dict[str, str]:
    return {"ContentType": media_type, "CacheControl": CACHED_BY_ANY}


def _parts(s3: Any, place: Mapping[str, str], upload_id: str) -> list[dict[str, Any]]:  # noqa: ANN401 -- same
    pages = s3.get_paginator("list_parts").paginate(**place, UploadId=upload_id)
    return sorted((part for page in pages for part in page.get("Parts", ())), key=lambda part: int(part["PartNumber"]))


def _check_parts(found: list[dict[str, Any]], announced: int) -> int:
    """Return the length of all parts together; each but the last is as long as a part is."""
    if [part["PartNumber"] for part in found] != list(range(1, announced + 1)):
        raise UploadFailed(f"{announced} parts were announced, but {len(found)} have come: send the missing ones again")
    if any(part["Size"] != PART_BYTES for part in found[:-1]):
        raise UploadFailed("a part came short: upload again")
    return sum(int(part["Size"]) for part in found)


def _completed_before(s3: Any, place: Mapping[str, str], ours: str) -> int:  # noqa: ANN401 -- same
    try:
        head = s3.head_object(**place)
    except ClientError as error:
        if code_of(error) not in GONE:
            raise
    else:
        if {name.lower(): value for name, value in head["Metadata"].items()}.get("upload") == ours:  # some servers change the case
            return int(head["ContentLength"])
    raise UploadFailed("the upload was aborted or has gone stale: begin again")


def _open_uploads(s3: Any, bucket: str, prefix: str) -> list[dict[str, Any]]:  # noqa: ANN401 -- same
    try:
        return [
            upload
            for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
            for upload in page.get("Uploads", ())
        ]
    except ClientError as error:
        if code_of(error) not in GONE:  # rclone says so of a bucket that never had one
            raise
        return []


def _abort(s3: Any, place: Mapping[str, str], upload_id: str) -> None:  # noqa: ANN401 -- same
    try:
        s3.abort_multipart_upload(**place, UploadId=upload_id)
    except ClientError as error:
        if code_of(error) not in GONE:
            raise
