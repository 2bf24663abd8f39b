"""What marks a file carries: a client's upload, or one that is kept here."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from deployments.jobs.errors import MediaTooLarge

AT_ONCE = 2  # files on this machine's disk, and threads that read them


@dataclass(frozen=True, slots=True)
class ManifestFound:
    """What a C2PA manifest says, and whether it is to be believed."""

    state: str  # Invalid, Valid (unchanged since it was signed), Trusted (and the signer is known), Unreadable
    generator: str | None
    signer: str | None
    source_types: tuple[str, ...]  # such as trainedAlgorithmicMedia
    ingredients: tuple[str, ...]  # titles
    problems: tuple[str, ...]  # codes of C2PA


@dataclass(frozen=True, slots=True)
class MarksFound:
    """What a file carries."""

    media_type: str
    aigc: tuple[dict[str, str], ...]  # labels; a file should have one
    manifest: ManifestFound | None
    manifest_looked_for: bool  # False: this installation cannot read manifests, or the file is broken
    problem: str | None = None  # why the file could not be read to its end


InspectFile = Callable[[BinaryIO], MarksFound]


class Verification:
    """Looks into files, a few at a time."""

    def __init__(self, inspect: InspectFile, folder: Path, max_bytes: int) -> None:
        """Take the parts.

        Args:
            inspect: reads a file; blocks.
            folder: where a file lies meanwhile, without a name: nothing is left of it however this process ends.
            max_bytes: of one file.
        """
        self._inspect = inspect
        self._folder = folder
        self._max_bytes = max_bytes
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def verify(self, chunks: AsyncIterator[bytes]) -> MarksFound:
        """Look into a file that arrives in pieces.

        Raises:
            MediaTooLarge: longer than is looked into.
            UnsupportedMedia: of no type that we know.
        """
        async with self._turns:
            file = await asyncio.to_thread(self._open)
            with file:
                size = 0
                async for chunk in chunks:
                    size += len(chunk)
                    if size > self._max_bytes:
                        raise MediaTooLarge(f"a file to be verified may have {self._max_bytes} bytes")
                    await asyncio.to_thread(file.write, chunk)
                return await asyncio.to_thread(self._inspect, file)

    def _open(self) -> BinaryIO:
        self._folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=self._folder)
