import shutil
from typing import NamedTuple

import pytest

from deployments.jobs.errors import DiskFull
from deployments.storage.disk import DiskFloor


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_below_the_floor_is_refused_with_both_numbers(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10 * 2**30, 0, 100 * 2**20))
    with pytest.raises(DiskFull, match=r"100 MiB free, 200 MiB are kept"):
        DiskFloor(tmp_path, 200 * 2**20).check()
    DiskFloor(tmp_path, 100 * 2**20).check()
    DiskFloor(tmp_path, 0).check()


def test_a_folder_that_is_not_there_yet_is_on_the_disk_of_its_parent(monkeypatch, tmp_path):
    asked = []

    def usage(path):
        asked.append(path)
        return Usage(1, 0, 1)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    DiskFloor(tmp_path / "a" / "b", 1).check()
    assert asked == [tmp_path]
