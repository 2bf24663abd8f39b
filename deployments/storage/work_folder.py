"""The folder that a worker process writes in while it computes, and the end of those whose process was killed.

::

    <root>/<owner>/         one a process, locked as long as it lives
    <root>/<owner>/.lock
    <root>/<owner>/<job>…   one an attempt, removed by the runner at its end
"""

from __future__ import annotations

import fcntl
import re
import shutil
from pathlib import Path
from typing import IO

LOCK = ".lock"


class WorkFolder:
    """A locked folder; the kernel frees the lock with the process, however it ends."""

    def __init__(self, root: Path, owner: str) -> None:
        """Make the folder and remove those of dead processes.

        Args:
            root: on a disk of this machine, shared by its workers.
            owner: unique among living processes.
        """
        self.path = root / re.sub(r"[^A-Za-z0-9._-]", "_", owner)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _try_lock(self.path)
        for other in root.iterdir():
            _remove_if_dead(other)

    def close(self) -> None:
        """Unlock; the folder is then the next process's to remove."""
        if self._lock is not None:
            self._lock.close()


def _remove_if_dead(folder: Path) -> None:
    lock = _try_lock(folder)
    if lock is not None:
        with lock:
            shutil.rmtree(folder, ignore_errors=True)


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
