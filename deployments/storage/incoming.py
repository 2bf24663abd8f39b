"""A download under way: its bytes go to a file, are counted, hashed and looked at, and are never whole in memory."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from deployments.jobs.errors import MediaTooLarge, UnsupportedMedia
from deployments.jobs.media_types import SCRIPTABLE, SNIFF_BYTES, sniff


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A finished download. The file is the caller's to move or remove."""

    path: Path
    media_type: str  # by content
    sha256: str
    size_bytes: int
    etag: str | None


class IncomingFile:
    """A new file in a folder; removed at the end of the ``with`` unless it was finished."""

    def __init__(self, directory: Path, shown: str, max_bytes: int) -> None:
        """Open the file.

        Args:
            directory: where.
            shown: what is downloaded, for messages: without what may be a secret.
            max_bytes: of the whole.
        """
        descriptor, name = tempfile.mkstemp(prefix="fetch-", dir=directory)
        self._path = Path(name)
        self._file = os.fdopen(descriptor, "wb")
        self._finished = False
        self._max_bytes = max_bytes
        self.shown = shown
        self.restart()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if not self._finished:
            self._path.unlink(missing_ok=True)

    @property
    def size_bytes(self) -> int:
        """How much has come."""
        return self._size_bytes

    def restart(self) -> None:
        """Forget what has come."""
        self._digest = hashlib.sha256()
        self._head, self._size_bytes = b"", 0
        self._media_type: str | None = None
        self._file.seek(0)
        self._file.truncate()

    def check_length(self, size_bytes: int) -> None:
        """Refuse a whole that is announced as too long.

        Raises:
            MediaTooLarge: it is.
        """
        if size_bytes > self._max_bytes:
            raise MediaTooLarge(f"{self.shown} is longer than {self._max_bytes / 2**20:g} MiB: shorten or compress the media")

    def add(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            MediaTooLarge: the whole is too long.
            UnsupportedMedia: it begins as no picture, video or sound does.
        """
        self._size_bytes += len(chunk)
        self.check_length(self._size_bytes)
        if self._media_type is None:
            self._head += chunk[:SNIFF_BYTES]
            self._media_type = self._type_of_head() if len(self._head) >= SNIFF_BYTES else None
        self._digest.update(chunk)  # in the loop: a chunk costs less than handing it to a thread
        self._file.write(chunk)

    def finish(self, etag: str | None) -> FetchedFile:
        """Close the file and give it away.

        Raises:
            UnsupportedMedia: as :meth:`add`, of one that is short.
        """
        media_type = self._media_type or self._type_of_head()
        self._file.close()
        self._finished = True
        return FetchedFile(self._path, media_type, self._digest.hexdigest(), self._size_bytes, etag)

    def _type_of_head(self) -> str:
        found = sniff(self._head)
        if found == "text/html":
            raise UnsupportedMedia(f"{self.shown} answered a web page, not media: use the direct link to the file")
        if found is None or found in SCRIPTABLE or not found.startswith(("image/", "video/", "audio/")):
            raise UnsupportedMedia(
                f"{self.shown} answered {found or 'bytes of no known type'}: give the URL of a picture, video or audio file"
            )
        return found
