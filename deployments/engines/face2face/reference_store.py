"""Prepared references on a machine's disk, shared by its worker processes: the second audio on a clip starts at once.

::

    <root>/<format>-<sha256 of the clip>[-<place of the face>].npz     only ever put here by a rename
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np

from deployments.engines.face2face.mouth_interior import Donor
from deployments.engines.face2face.reference import Reference
from deployments.engines.faces.following import Place

FORMAT = 2  # rises when what is derived from a clip changes: entries of another number are never read


class ReferenceStore:
    """Keeps references by the content of their file. Threads and processes may share one folder."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        """Make the folder.

        Args:
            root: on a disk of this machine.
            max_bytes: above which the entries unused for longest are removed.
        """
        root.mkdir(parents=True, exist_ok=True)
        self._root = root
        self._max_bytes = max_bytes

    def load(self, sha256: str, place: Place | None) -> Reference | None:
        """Return what is known of a file; None when it was never looked at, or is forgotten."""
        path = self._path(sha256, place)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                found = _from_arrays({name: stored[name] for name in stored.files})
            os.utime(path)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None  # not there, or half of it after a crash of the machine: it is made again
        return found

    def save(self, sha256: str, place: Place | None, reference: Reference) -> None:
        """Keep a reference; an older one of the same file is replaced."""
        descriptor, name = tempfile.mkstemp(prefix=".partial-", dir=self._root)
        try:
            with os.fdopen(descriptor, "wb") as file:
                np.savez(file, allow_pickle=False, **_to_arrays(reference))
            Path(name).replace(self._path(sha256, place))
        finally:
            Path(name).unlink(missing_ok=True)
        self._evict()

    def _path(self, sha256: str, place: Place | None) -> Path:
        where = "" if place is None else f"-{place[0]:.3f}-{place[1]:.3f}"
        return self._root / f"{FORMAT}-{sha256}{where}.npz"

    def _evict(self) -> None:
        entries = []
        for path in self._root.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process evicts too
                entries.append((path.stat().st_mtime, path.stat().st_size, path))
        excess = sum(size for _, size, _ in entries) - self._max_bytes
        for _, size, path in sorted(entries):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size


def _to_arrays(reference: Reference) -> dict[str, np.ndarray]:
    donors = reference.donors
    return {
        "numbers": np.array([*reference.size, reference.first, reference.seen, reference.covered, reference.whole], np.int64),
        "fps": np.array([reference.fps.numerator, reference.fps.denominator], np.int64),
        "landmarks": reference.landmarks,
        "rest": reference.rest,
        "patches": np.stack([donor.patch for donor in donors]) if donors else np.zeros((0, 1, 1, 3), np.uint8),
        "donors": np.array([(donor.openness, donor.light) for donor in donors], np.float64).reshape(-1, 2),
    }


def _from_arrays(arrays: dict[str, np.ndarray]) -> Reference:
    width, height, first, seen, covered, whole = (int(number) for number in arrays["numbers"])
    pairs = zip(arrays["patches"], arrays["donors"], strict=True)
    return Reference(
        size=(width, height),
        fps=Fraction(*(int(part) for part in arrays["fps"])),
        first=first,
        landmarks=arrays["landmarks"],
        rest=arrays["rest"],
        donors=tuple(Donor(patch, float(openness), float(light)) for patch, (openness, light) in pairs),
        seen=seen,
        covered=covered,
        whole=bool(whole),
    )
