"""A floor under the free space of a disk: a full one breaks databases and half-written videos, a refused job breaks nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

from deployments.jobs.errors import DiskFull

MIB = 2**20


class DiskFloor:
    """Watches the disk of one folder."""

    def __init__(self, folder: Path, min_free_bytes: int) -> None:
        """Take the folder, which need not exist yet; 0 watches nothing."""
        self._folder = folder
        self._min_free_bytes = min_free_bytes

    def check(self) -> None:
        """Refuse what would need space.

        Raises:
            DiskFull: less is free than the floor.
        """
        if not self._min_free_bytes:
            return
        place = next((path for path in (self._folder, *self._folder.absolute().parents) if path.exists()), Path("/"))
        free = shutil.disk_usage(place).free
        if free < self._min_free_bytes:
            raise DiskFull(free // MIB, self._min_free_bytes // MIB)
