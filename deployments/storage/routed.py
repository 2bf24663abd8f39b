"""Several stores as one: a job may choose where its results lie, among those that the operator offers.

The key says which: ``@gcs/artifacts/…`` lies in the store named gcs, under what follows. A key without such a beginning is the first
store's, where uploads and the results of jobs that choose nothing are.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from deployments.jobs.errors import FileNotFound, Unavailable, UploadFailed
from deployments.jobs.keys import ROUTE
from deployments.jobs.ports import ClientUpload, StoredObject, UploadToken
from deployments.storage.base import ObjectStore, uri_of


class RoutedStore:
    """Implements :class:`deployments.storage.base.ObjectStore` over others."""

    def __init__(self, first: ObjectStore, others: Mapping[str, ObjectStore]) -> None:
        """Take the stores; ``others`` are those that a key may name."""
        self._first = first
        self._others = others

    async def check(self, expected: str | None = None) -> str:
        """See the port: all are checked, and all are the identity."""
        found = [await self._first.check(), *[f"{name} {await store.check()}" for name, store in sorted(self._others.items())]]
        identity = hashlib.sha256("\n".join(found).encode()).hexdigest()[:32]
        if expected not in {None, identity}:
            raise Unavailable("this machine does not see the stores of the others: give all machines the same storage settings")
        return identity

    async def begin(self, key: str, media_type: str) -> UploadToken:
        """See the port."""
        store, bare = self._place(key)
        return replace(await store.begin(bare, media_type), key=key)

    async def put_part(self, token: UploadToken, number: int, data: bytes) -> None:
        """See the port."""
        store, bare = self._place(token.key)
        await store.put_part(replace(token, key=bare), number, data)

    async def complete(self, token: UploadToken, parts: int, sha256: str) -> StoredObject:
        """See the port."""
        store, bare = self._place(token.key)
        return _shown(await store.complete(replace(token, key=bare), parts, sha256), token.key)

    async def put(self, key: str, media_type: str, data: bytes, sha256: str) -> StoredObject:
        """See the port."""
        store, bare = self._place(key)
        return _shown(await store.put(bare, media_type, data, sha256), key)

    async def abort(self, token: UploadToken) -> None:
        """See the port."""
        store, bare = self._place(token.key)
        await store.abort(replace(token, key=bare))

    async def delete(self, key: str) -> None:
        """See the port."""
        store, bare = self._place(key)
        await store.delete(bare)

    async def open_to_client(self, key: str, media_type: str, size_bytes: int, seconds: int) -> ClientUpload | None:
        """See the port."""
        store, bare = self._place(key)
        return await store.open_to_client(bare, media_type, size_bytes, seconds)

    async def copy(self, source: str, target: str, media_type: str) -> None:
        """See the port; within one store."""
        (store, bare), (other, there) = self._place(source), self._place(target)
        if store is not other:
            raise UploadFailed("objects are copied within one store: upload it again")
        await store.copy(bare, there, media_type)

    async def size(self, key: str) -> int:
        """See :class:`deployments.jobs.ports.ObjectReader`."""
        store, bare = self._place(key)
        return await store.size(bare)

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """See :class:`deployments.jobs.ports.ObjectReader`."""
        store, bare = self._place(key)
        async with contextlib.aclosing(store.read(bare, start, end)) as chunks:  # type: ignore[type-var]  # all of ours are generators
            async for chunk in chunks:
                yield chunk

    async def link(self, key: str, seconds: int, media_type: str, disposition: str) -> str | None:
        """See :class:`deployments.jobs.ports.ObjectReader`."""
        store, bare = self._place(key)
        return await store.link(bare, seconds, media_type, disposition)

    async def sweep(self, older_than_s: float) -> int:
        """See the port."""
        return sum([await store.sweep(older_than_s) for store in (self._first, *self._others.values())])

    def _place(self, key: str) -> tuple[ObjectStore, str]:
        if not key.startswith(ROUTE):
            return self._first, key
        name, _, bare = key.removeprefix(ROUTE).partition("/")
        if name not in self._others:  # it was offered once
            raise FileNotFound(key)
        return self._others[name], bare


def _shown(stored: StoredObject, key: str) -> StoredObject:
    return replace(stored, key=key, uri=uri_of(stored.uri.partition("://")[0], key))
