"""Orphans are found, counted and told; what is somebody's stays."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import closing
from functools import partial

from deployments.storage.sweep import SweepConfig, Sweeper, Swept, read_ledger, remove_old
from deployments.storage.work_folder import WorkFolder, remove_dead


class Counts:
    """Metrics that remember."""

    def __init__(self) -> None:
        self.counts = {}

    def count(self, name, value=1.0, **tags):
        self.counts[name, tags["place"]] = self.counts.get((name, tags["place"]), 0) + value


def broken() -> Swept:
    raise PermissionError("not ours")


async def test_every_place_is_swept_counted_and_added_up(tmp_path):
    metrics = Counts()
    places = {"work": lambda: Swept(2, 10), "closed": broken, "inputs": lambda: Swept(1, 5)}
    sweeper = Sweeper(SweepConfig(), tmp_path, places, metrics)
    assert await sweeper.sweep() == Swept(3, 15)
    assert metrics.counts == {
        ("orphans_removed", "work"): 2,
        ("orphan_bytes_removed", "work"): 10,
        ("orphans_removed", "inputs"): 1,
        ("orphan_bytes_removed", "inputs"): 5,
    }
    await sweeper.sweep()
    ledger = read_ledger(tmp_path)
    assert (ledger["files_removed"], ledger["bytes_removed"]) == (6, 30)


async def test_two_workers_of_a_machine_share_the_ledger(tmp_path):
    sweepers = [Sweeper(SweepConfig(), tmp_path, {"work": lambda: Swept(1, 1)}, Counts()) for _ in range(2)]
    await asyncio.gather(*(sweeper.sweep() for sweeper in sweepers for _ in range(20)))
    assert read_ledger(tmp_path)["files_removed"] == 40


def test_before_the_first_sweep_nothing_is_told(tmp_path):
    assert read_ledger(tmp_path) == {}
    (tmp_path / ".sweeps.json").write_text("{half")
    assert read_ledger(tmp_path) == {}


async def test_a_killed_workers_files_go_at_the_next_turn_and_a_living_ones_stay(tmp_path):
    with closing(WorkFolder(tmp_path, "living")) as living:
        (living.path / "job").mkdir()
        (living.path / "job" / "half.mp4").write_bytes(b"123")
        dead = WorkFolder(tmp_path, "dead")
        (dead.path / "job").mkdir()
        (dead.path / "job" / "half.mp4").write_bytes(b"12345")
        dead.close()  # as the kernel does for a process that was killed
        sweeper = Sweeper(SweepConfig(), tmp_path, {"work": partial(remove_dead, tmp_path)}, Counts())
        assert await sweeper.sweep() == Swept(1, 5)
        assert (living.path / "job" / "half.mp4").exists()
        assert not dead.path.exists()
        assert json.loads((tmp_path / ".sweeps.json").read_text())["bytes_removed"] == 5


def test_a_file_is_old_when_it_has_not_changed(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"1234")
    new.write_bytes(b"1")
    os.utime(old, (1, 1))
    assert remove_old([old, new, tmp_path / "gone"], 3600.0) == Swept(1, 4)
    assert (old.exists(), new.exists()) == (False, True)
