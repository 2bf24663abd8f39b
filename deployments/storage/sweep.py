"""The sweep for orphans: files that nobody will read or remove any more, because the process that made them was killed.

Every worker sweeps its own machine. What was found is counted in a metric and in a ledger beside the work folders, which ``GET /health``
shows: ``{"last_sweep": <seconds since the epoch>, "files_removed": 3, "bytes_removed": 4096}``, since ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from deployments.jobs.logs import fields, get_logger
from deployments.jobs.ports import Metrics

log = get_logger(__name__)

LEDGER = ".sweeps.json"


class SweepConfig(BaseModel):
    """How often orphans are looked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    interval_s: float = Field(300.0, gt=0, description="between two looks for orphans")
    max_age_s: float = Field(3600.0, gt=0, description="a file of a process that may still live is an orphan once unchanged for so long")


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Swept) -> Swept:
        return Swept(self.files + other.files, self.bytes + other.bytes)


Sweep = Callable[[], Swept]  # blocking


class Sweeper:
    """Sweeps the places of one machine, again and again."""

    def __init__(self, config: SweepConfig, root: Path, places: Mapping[str, Sweep], metrics: Metrics) -> None:
        """Prepare.

        Args:
            config: how often.
            root: of the work folders, where the ledger lies.
            places: what sweeps each.
            metrics: counts by place.
        """
        self._config = config
        self._ledger = root / LEDGER
        self._places = places
        self._metrics = metrics

    async def run(self) -> None:
        """Sweep for ever. A place that cannot be swept now is tried again at the next turn."""
        while True:
            await self.sweep()
            await asyncio.sleep(self._config.interval_s)

    async def sweep(self) -> Swept:
        """Sweep once."""
        total = Swept()
        for place, sweep in self._places.items():
            try:
                swept = await asyncio.to_thread(sweep)
            except OSError as error:
                log.warning("sweep failed", extra=fields(action="sweep_failed", place=place, reason=str(error)))
                continue
            total += swept
            if swept.files:
                self._metrics.count("orphans_removed", swept.files, place=place)
                self._metrics.count("orphan_bytes_removed", swept.bytes, place=place)
                log.info("orphans removed", extra=fields(action="orphans_removed", place=place, files=swept.files, bytes=swept.bytes))
        await asyncio.to_thread(_note, self._ledger, total)
        return total


def read_ledger(root: Path) -> Mapping[str, float]:
    """Return what the sweeps of this machine have removed since ever; empty before the first."""
    try:
        found = json.loads((root / LEDGER).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remove_old(paths: Iterable[Path], max_age_s: float) -> Swept:
    """Remove the files that have not changed for longer than ``max_age_s``."""
    total, now = Swept(), time.time()
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # its owner was faster
            stat = path.stat()
            if now - stat.st_mtime > max_age_s:
                path.unlink()
                total += Swept(1, stat.st_size)
    return total


def _note(ledger: Path, swept: Swept) -> None:
    ledger.parent.mkdir(parents=True, exist_ok=True)
    with ledger.with_suffix(".lock").open("w") as lock:  # of the workers of this machine; unlocked when it is closed
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = read_ledger(ledger.parent)
        sums = {
            "last_sweep": time.time(),
            "files_removed": known.get("files_removed", 0) + swept.files,
            "bytes_removed": known.get("bytes_removed", 0) + swept.bytes,
        }
        half = ledger.with_name(f"{ledger.name}.{os.getpid()}")
        half.write_text(json.dumps(sums), "utf-8")
        half.replace(ledger)
