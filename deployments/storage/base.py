"""What all object stores share: the protocol they fulfil together and the rule for keys."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from deployments.jobs.errors import InvalidInput
from deployments.jobs.ports import ObjectReader, Uploader

MAX_KEY_CHARACTERS = 512  # S3 takes 1024 bytes, a file system 255 a segment
CACHED_BY_ANY = "public, max-age=31536000, immutable"  # a key never gets other bytes; seen where the bucket is public alone
CACHED_BY_READER = "private, max-age=86400, immutable"
_SEGMENT = re.compile(r"[A-Za-z0-9_=+@][A-Za-z0-9._=+@ -]{0,199}")  # no leading dot: neither "..", nor a hidden or half-written file


@dataclass(frozen=True, slots=True)
class Head:
    """What a bucket says of an object."""

    size_bytes: int
    etag: str


class ObjectStore(Uploader, ObjectReader, Protocol):
    """A configured place for bytes."""

    async def check(self, expected: str | None = None) -> str:
        """Write a marker and read it back, at start.

        Args:
            expected: what this call returned on another machine.

        Returns:
            The store's identity: the same from every machine that sees the same store.

        Raises:
            Unavailable: the store cannot be used, or is not the one that the other machine sees.
        """

    async def sweep(self, older_than_s: float) -> int:
        """Drop uploads that were begun and never completed, untouched for that long; return how many."""


def check_key(key: str) -> str:
    """Return a key that is safe as a path below a folder and as an object's name in every cloud.

    Raises:
        InvalidInput: empty, too long, or with a segment that is hidden, empty or holds other than letters, digits and ``._=+@ -``.
    """
    if len(key) > MAX_KEY_CHARACTERS or not all(_SEGMENT.fullmatch(segment) for segment in key.split("/")):
        raise InvalidInput("the name of a stored file has letters, digits and ._=+@- only: choose another name")
    return key


def uri_of(provider: str, key: str) -> str:
    """Return ``<provider>://<key>``."""
    return f"{provider}://{key}"
