"""Pictures in Cloudflare Images, and everything else in a store beside it.

Cloudflare Images holds pictures alone, up to limits of size. What it does not hold lies in the other store: video, audio, documents,
whatever comes in parts (uploads of clients, results above 8 MiB), and pictures that it would give back changed. The key says where to
look: a key that does not end as a picture's is never asked for at Cloudflare, any other is looked for in the other store first, because
that costs no call of Cloudflare's limit. A picture's id is its key, so a second upload of it is refused with 409: with our SHA-256 in its
metadata that is success. Cloudflare may keep a large picture re-encoded, which would lose its marks: what was stored is read back and
compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from cloudflare import APIStatusError, AsyncCloudflare, ConflictError, NotFoundError
from cloudflare.types.images import Image as StoredPicture
from PIL import Image

from deployments.jobs.errors import Conflict, FileNotFound, Unavailable, UploadFailed
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.ports import ClientUpload, StoredObject, UploadToken
from deployments.storage.base import ObjectStore, check_key, uri_of
from deployments.storage.cf_images_client import NO_SUCH_ACCOUNT, NO_SUCH_TOKEN, CfImagesClient, codes_of
from deployments.storage.cloud_configs import CfImagesConfig

log = get_logger(__name__)

PROVIDER = "cf_images"
SUFFIXES: Mapping[str, frozenset[str]] = {
    "image/png": frozenset({".png"}),
    "image/jpeg": frozenset({".jpg", ".jpeg"}),
    "image/gif": frozenset({".gif"}),
    "image/webp": frozenset({".webp"}),
}
PICTURES = frozenset().union(*SUFFIXES.values())
# Limits of Cloudflare Images for hosted pictures, as its documentation has them.
MAX_BYTES = 10_000_000
MAX_SIDE = 12_000
MAX_AREA = 100_000_000
MAX_ANIMATED_AREA = 50_000_000  # of all frames together: above, it is delivered unchanged or not at all
REFUSED = frozenset({400, 413, 415, 422})  # the picture, for whatever reason: it is whole beside, so no job fails for it
VARIANT = "public"  # that every account has


class CfImagesStore:
    """Uploader and reader over an account, and over the store that holds the rest."""

    def __init__(self, config: CfImagesConfig, beside: ObjectStore) -> None:
        self._config = config
        self._account = config.account_id
        self._client = CfImagesClient(config)
        self._beside = beside

    async def check(self, expected: str | None = None) -> str:
        """See :class:`deployments.storage.base.ObjectStore`. Account and other store are the identity."""
        beside = await self._beside.check()
        key, data = f"markers/{uuid.uuid4().hex}.png", _tiny_picture()
        await self._upload(key, data, _sha256(data))
        found = await self._blob(key)
        await self._remove(key)
        place = f"{self._config.endpoint or 'cloudflare'} {self._account} {beside}"
        identity = hashlib.sha256(place.encode()).hexdigest()[:32]
        if found != data or expected not in {None, identity}:
            raise Unavailable("this machine does not see the stores of the others: give all machines the same storage settings")
        return identity

    async def begin(self, key: str, media_type: str) -> UploadToken:
        """See the port: what comes in parts goes to the other store."""
        return await self._beside.begin(key, media_type)

    async def put_part(self, token: UploadToken, number: int, data: bytes) -> None:
        """See the port."""
        await self._beside.put_part(token, number, data)

    async def complete(self, token: UploadToken, parts: int, sha256: str) -> StoredObject:
        """See the port."""
        return await self._beside.complete(token, parts, sha256)

    async def abort(self, token: UploadToken) -> None:
        """See the port."""
        await self._beside.abort(token)

    async def put(self, key: str, media_type: str, data: bytes, sha256: str) -> StoredObject:
        """See the port.

        Raises:
            Conflict: the key has a picture with other content.
        """
        check_key(key)
        if await asyncio.to_thread(_sha256, data) != sha256:
            raise UploadFailed("the bytes do not have the announced sha256: upload again")
        if _suffix(key) not in SUFFIXES.get(media_type, frozenset()) or not await asyncio.to_thread(fits, data):
            return await self._beside.put(key, media_type, data, sha256)
        created = await self._upload(key, data, sha256)
        if created is None:
            log.warning(
                "picture refused by Cloudflare Images and stored beside", extra=fields(action="stored_beside", size_bytes=len(data))
            )
            return await self._beside.put(key, media_type, data, sha256)
        if await asyncio.to_thread(_sha256, await self._blob(key)) != sha256:
            await self._remove(key)
            log.info("picture changed by Cloudflare Images and stored beside", extra=fields(action="stored_beside", size_bytes=len(data)))
            return await self._beside.put(key, media_type, data, sha256)
        return StoredObject(key, uri_of(PROVIDER, key), len(data), sha256, created)

    async def delete(self, key: str) -> None:
        """See the port."""
        if _is_picture(check_key(key)):
            await self._remove(key)
        await self._beside.delete(key)

    async def open_to_client(self, key: str, media_type: str, size_bytes: int, seconds: int) -> ClientUpload | None:
        """See the port: what clients send themselves goes to the other store."""
        return await self._beside.open_to_client(key, media_type, size_bytes, seconds)

    async def copy(self, source: str, target: str, media_type: str) -> None:
        """See the port: what is copied was sent by a client, so it is in the other store."""
        await self._beside.copy(source, target, media_type)

    async def size(self, key: str) -> int:
        """See :class:`deployments.jobs.ports.ObjectReader`."""
        try:
            return await self._beside.size(key)
        except FileNotFound:
            if not _is_picture(key):
                raise
        return int(_ours(await self._details(key)).get("size_bytes", 0)) or len(await self._blob(key))

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """See :class:`deployments.jobs.ports.ObjectReader`. A picture comes in one piece: Cloudflare gives no ranges."""
        if not _is_picture(key) or await self._is_beside(key):
            async for chunk in self._beside.read(key, start, end):
                yield chunk
            return
        if data := (await self._blob(key))[start:end]:
            yield data

    async def link(self, key: str, seconds: int, media_type: str, disposition: str) -> str | None:
        """See :class:`deployments.jobs.ports.ObjectReader`.

        A picture has an address of its own, which never ends, only where the operator has named the domain that delivers: what comes from
        there is made for the reader's browser, without the marks of the file.
        """
        if not _is_picture(key) or await self._is_beside(key):
            return await self._beside.link(key, seconds, media_type, disposition)
        if self._config.delivery_domain is None:
            return None
        return delivery_url(self._config.delivery_domain, await self._details(key))

    async def sweep(self, older_than_s: float) -> int:
        """See :class:`deployments.storage.base.ObjectStore`: a picture is stored in one call, so only the other store has open uploads."""
        return await self._beside.sweep(older_than_s)

    async def _upload(self, key: str, data: bytes, sha256: str) -> bool | None:
        """Return whether this call has stored the picture, or found it; None where Cloudflare does not take it."""
        ours = json.dumps({"sha256": sha256, "size_bytes": len(data)})  # as text: the client would spread an object over several fields

        async def upload(sdk: AsyncCloudflare) -> bool | None:
            try:
                name = PurePosixPath(key).name
                await sdk.images.v1.create(account_id=self._account, id=key, file=(name, data), metadata=ours)
            except ConflictError:
                return False
            except APIStatusError as error:
                if error.status_code not in REFUSED or codes_of(error) & (NO_SUCH_ACCOUNT | NO_SUCH_TOKEN):
                    raise
                return None
            return True

        created = await self._client.run("stored", upload)
        if created is False:
            await self._check_same(key, sha256)
        return created

    async def _check_same(self, key: str, sha256: str) -> None:
        try:
            found = _ours(await self._details(key)).get("sha256")
        except FileNotFound:
            raise UploadFailed(f"{key} was removed while it was stored: upload again") from None
        if found != sha256:
            raise Conflict(f"{key} is stored already, with other content, and stays: choose another name")

    async def _details(self, key: str) -> StoredPicture:
        async def details(sdk: AsyncCloudflare) -> StoredPicture:
            with _or_not_found(key):
                return await sdk.images.v1.get(key, account_id=self._account)

        return await self._client.run("read", details)

    async def _blob(self, key: str) -> bytes:
        async def blob(sdk: AsyncCloudflare) -> bytes:
            with _or_not_found(key):
                return await (await sdk.images.v1.blobs.get(key, account_id=self._account)).read()

        return await self._client.run("read", blob)

    async def _remove(self, key: str) -> None:
        async def remove(sdk: AsyncCloudflare) -> None:
            with contextlib.suppress(FileNotFound), _or_not_found(key):
                await sdk.images.v1.delete(key, account_id=self._account)

        await self._client.run("deleted", remove)

    async def _is_beside(self, key: str) -> bool:
        try:
            await self._beside.size(key)
        except FileNotFound:
            return False
        return True


def fits(data: bytes) -> bool:
    """Say whether a picture is within Cloudflare's limits. What cannot be read as a picture is not."""
    if len(data) > MAX_BYTES:
        return False
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "GIF", "WEBP")) as picture:
            width, height, frames = *picture.size, int(getattr(picture, "n_frames", 1))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return False
    area = width * height
    return max(width, height) <= MAX_SIDE and area <= MAX_AREA and (frames == 1 or area * frames <= MAX_ANIMATED_AREA)


def delivery_url(domain: str, picture: StoredPicture) -> str | None:
    """Return where a domain of the account delivers a picture; None where Cloudflare names no variant."""
    variants = picture.variants or []
    found = next((url for url in variants if url.endswith(f"/{VARIANT}")), variants[0] if variants else None)
    return None if found is None else f"https://{domain}/cdn-cgi/imagedelivery{quote(urlsplit(found).path, safe='/%')}"


@contextlib.contextmanager
def _or_not_found(key: str) -> Iterator[None]:
    try:
        yield
    except NotFoundError as error:
        if codes_of(error) & NO_SUCH_ACCOUNT:
            raise
        raise FileNotFound(key) from None


def _ours(picture: StoredPicture) -> Mapping[str, Any]:
    return picture.meta if isinstance(picture.meta, dict) else {}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _suffix(key: str) -> str:
    return PurePosixPath(key).suffix.lower()


def _is_picture(key: str) -> bool:
    return _suffix(key) in PICTURES


def _tiny_picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    return file.getvalue()
