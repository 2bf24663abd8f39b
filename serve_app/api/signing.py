"""Links to files that end: whoever has one reads the file until then, and needs nothing else."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Callable, Sequence

from deployments.jobs.errors import LinkRefused

KEYS_NAME = "ATELIER_LINK_KEYS"
KEY_CHARACTERS = 32  # 16 random bytes in hex, which nobody guesses


class LinkSigner:
    """Signs links with the first of its keys and knows those of all: a new key is put in front, and the old one removed after a while."""

    def __init__(self, keys: Sequence[str], lifetime_s: int, clock: Callable[[], float] = time.time) -> None:
        """Take the keys.

        Args:
            keys: at least one.
            lifetime_s: how long a link is good for at least; it is at most twice that.
            clock: seconds since the epoch.
        """
        self._keys = [key.encode() for key in keys]
        self._lifetime_s = lifetime_s
        self._clock = clock

    def sign(self, file_id: str) -> str:
        """Return the query of a file's link.

        The end is a multiple of the lifetime: a link asked for again is the same for a while, and a browser finds the file in its cache.
        """
        expires = (int(self._clock()) // self._lifetime_s + 2) * self._lifetime_s
        return f"expires={expires}&signature={_signature(self._keys[0], file_id, expires)}"

    def check(self, file_id: str, expires: int | None, signature: str | None) -> None:
        """Let a good link pass.

        Raises:
            LinkRefused: not signed, changed, or ended.
        """
        if expires is None or signature is None:
            raise LinkRefused("files are read by signed links here: take the url that the job or the upload was answered with")
        # Compared as bytes: a signature with other than ASCII in it is wrong, and no error of ours.
        if not any(hmac.compare_digest(_signature(key, file_id, expires).encode(), signature.encode()) for key in self._keys):
            raise LinkRefused("the link was changed: take it whole from the job's answer")
        if expires <= self._clock():
            raise LinkRefused("the link has ended: ask for the job again, its answer has a new one")


def read_keys() -> tuple[str, ...]:
    """Read the keys from this process' environment: what is bound to a deployment is stored in the cluster's metadata.

    Raises:
        ValueError: there is none, or one is too short; none is shown.
    """
    keys = tuple(filter(None, (key.strip() for key in os.environ.get(KEYS_NAME, "").split(","))))  # noqa: TID251 -- see above
    if not keys or any(len(key) < KEY_CHARACTERS for key in keys):
        raise ValueError(
            f"signed links need {KEYS_NAME} in the environment: keys of at least {KEY_CHARACTERS} characters, separated by commas, "
            "such as `openssl rand -hex 32` prints"
        )
    return keys


def _signature(key: bytes, file_id: str, expires: int) -> str:
    return hmac.new(key, f"{file_id}\n{expires}".encode(), hashlib.sha256).hexdigest()
