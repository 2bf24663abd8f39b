"""The folder that a worker process writes in while it computes, and the end of those whose process was killed.

::

    <root>/.lock            held while a folder is made or folders are removed: one without a lock of its own is nobody's then
    <root>/<owner>/         one a process, locked as long as it lives
    <root>/<owner>/.lock
    <root>/<owner>/<job>…   one an attempt, removed by the runner at its end
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from deployments.storage.sweep import Swept

LOCK = ".lock"


class WorkFolder:
    """A locked folder; the kernel frees the lock with the process, however it ends."""

    def __init__(self, root: Path, owner: str) -> None:
        """Make the folder.

        Args:
            root: on a disk of this machine, shared by its workers.
            owner: unique among living processes.
        """
        self.path = root / re.sub(r"[^A-Za-z0-9._-]", "_", owner)
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root):
            self.path.mkdir(exist_ok=True)
            self._lock = _try_lock(self.path)

    def close(self) -> None:
        """Unlock; the folder is then the next process's to remove."""
        if self._lock is not None:
            self._lock.close()


def remove_dead(root: Path) -> Swept:
    """Remove the folders of dead processes; the sweep of each worker does, at its start and from time to time."""
    total = Swept()
    with _locked(root):
        for folder in root.iterdir():
            lock = _try_lock(folder) if folder.is_dir() else None
            if lock is not None:
                with lock:
                    total += _weighed(folder)
                    shutil.rmtree(folder, ignore_errors=True)
    return total


def _weighed(folder: Path) -> Swept:
    total = Swept()
    for path in folder.rglob("*"):
        if path.name != LOCK and path.is_file() and not path.is_symlink():
            total += Swept(1, path.stat().st_size)
    return total


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    with (root / LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _try_lock(folder: Path) -> IO[bytes] | None:
    try:
        file = (folder / LOCK).open("ab")
    except OSError:
        return None  # no folder, or removed meanwhile by another worker that started
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
