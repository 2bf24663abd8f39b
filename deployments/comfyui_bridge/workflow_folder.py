"""The workflow files of a folder, as they are now.

The folder is looked at again before each use, at most once a second: a file that is dropped in appears without a restart, a broken one
is reported and hides none of the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from deployments.engines.comfyui.workflow_file import FileProblem, WorkflowFile, load_workflow_folder
from deployments.jobs.logs import fields, get_logger

log = get_logger(__name__)

LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class FolderContent:
    """What a look found. The same object as long as nothing has changed."""

    files: dict[str, WorkflowFile] = field(default_factory=dict)  # by name
    problems: tuple[FileProblem, ...] = ()


class WorkflowFolder:
    """Looks at a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = FolderContent()
        self._seen: frozenset[tuple[str, int, int]] | None = None
        self._looked_at = -LOOK_S
        self._lock = asyncio.Lock()

    async def look(self) -> FolderContent:
        """Return the workflows and the files that could not be read."""
        async with self._lock:  # whoever comes during the first look must not find an empty folder
            if time.monotonic() - self._looked_at >= LOOK_S:
                seen = await asyncio.to_thread(_fingerprint, self._path)
                if seen != self._seen:
                    self._content = await self._load()
                    self._seen = seen
                self._looked_at = time.monotonic()
            return self._content

    async def _load(self) -> FolderContent:
        files, problems = await asyncio.to_thread(load_workflow_folder, self._path)
        log.info("workflows read", extra=fields(action="workflows_read", workflows=len(files), problems=len(problems)))
        for problem in problems:
            log.warning("workflow left out", extra=fields(action="workflow_left_out", file=problem.file, reason=problem.reason))
        return FolderContent({file.name: file for file in files}, problems)


def _fingerprint(folder: Path) -> frozenset[tuple[str, int, int]]:
    """Return what tells whether a folder has changed: names, times and sizes."""
    if not folder.is_dir():
        return frozenset()
    found = []
    for path in folder.iterdir():
        if path.suffix in {".json", ".yaml"}:
            with contextlib.suppress(FileNotFoundError):  # removed in between
                status = path.stat()
                found.append((path.name, status.st_mtime_ns, status.st_size))
    return frozenset(found)
