"""The hashed lock files: what may stand in them, and that they agree with one another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements-cpu.lock", "requirements-gpu.lock", "requirements-dev.lock"]


def pins(name: str) -> set[str]:
    """Return ``name==version ; marker`` of every package."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return {line.removesuffix("\\").strip() for line in text.splitlines() if line and line[0] not in "# "}


def packages(name: str) -> set[str]:
    return {pin.split("==")[0] for pin in pins(name)}


@pytest.mark.parametrize("name", LOCKS)
def test_lock_pins_and_hashes_every_package(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 100
    assert [entry for entry in entries if not re.match(r"[a-z0-9-]+==\S+", entry) or "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", [*LOCKS, "tests/dialects/newman/package-lock.json"])
def test_lock_names_no_host(name):
    assert "://" not in (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "runtime"),
    [("requirements-cpu.lock", "onnxruntime"), ("requirements-gpu.lock", "onnxruntime-gpu"), ("requirements-dev.lock", "onnxruntime")],
)
def test_lock_installs_one_onnxruntime_and_one_cv2(name, runtime):
    assert {package for package in packages(name) if package.startswith(("onnxruntime", "opencv"))} == {runtime, "opencv-python-headless"}


def test_locks_agree_on_every_version():
    dev = pins("requirements-dev.lock")
    assert pins("requirements-cpu.lock") <= dev
    only_gpu = {pin.split("==")[0] for pin in pins("requirements-gpu.lock") - dev}
    assert only_gpu == {"onnxruntime-gpu"} | {package for package in only_gpu if package.startswith("nvidia-")}
