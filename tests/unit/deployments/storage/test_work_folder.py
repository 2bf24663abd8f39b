"""Folders of living processes stay, those of dead ones go."""

from __future__ import annotations

from contextlib import closing

from deployments.storage.work_folder import WorkFolder, remove_dead


def test_a_dead_process_leaves_nothing_behind(tmp_path):
    dead = tmp_path / "dead"
    (dead / "job-1").mkdir(parents=True)
    (dead / "job-1" / "half.mp4").write_bytes(b"x")
    (dead / ".lock").touch()
    with closing(WorkFolder(tmp_path, "me")) as folder:
        assert remove_dead(tmp_path).files == 1
        assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder.path]


def test_a_living_process_keeps_its_folder(tmp_path):
    with closing(WorkFolder(tmp_path, "other")) as other:
        (other.path / "job-1").mkdir()
        remove_dead(tmp_path)
        assert (other.path / "job-1").is_dir()


def test_a_folder_without_a_lock_is_a_process_that_is_just_starting_or_gone(tmp_path):
    (tmp_path / "old-layout").mkdir()
    remove_dead(tmp_path)
    assert not (tmp_path / "old-layout").exists()
