"""The folders of a server: input, output and temp. Names are looked up as ComfyUI does, and never outside their folder."""

from __future__ import annotations

import hashlib
import mimetypes
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from deployments.fake_comfyui.graph import JsonObject

FOLDERS = ("input", "output", "temp")

_ANNOTATED = re.compile(r"(?P<name>.*) \[(?P<folder>input|output|temp)\]")


class OutsideFolder(Exception):
    """A name leads out of its folder."""


@dataclass(frozen=True, slots=True)
class SavePlace:
    """Where a node may write: ``<folder>/<subfolder>/<stem>_<counter>_.<suffix>``."""

    folder: Path
    subfolder: str
    stem: str
    counter: int

    def name(self, index: int, suffix: str) -> str:
        """Return the file name of the ``index``-th file of a batch."""
        return f"{self.stem.replace('%batch_num%', str(index))}_{self.counter + index:05}_.{suffix}"


class FileStore:
    """The files below one base directory."""

    def __init__(self, base_dir: Path) -> None:
        self.base_dir = base_dir.resolve()
        for name in FOLDERS:
            self.folder(name).mkdir(parents=True, exist_ok=True)

    def folder(self, name: str) -> Path:
        """Return the folder ``input``, ``output`` or ``temp``.

        Raises:
            KeyError: there is no such folder.
        """
        if name not in FOLDERS:
            raise KeyError(name)
        return self.base_dir / name

    def wipe_temp(self) -> None:
        """Empty the folder of temporary files, as a starting server does."""
        shutil.rmtree(self.folder("temp"), ignore_errors=True)
        self.folder("temp").mkdir(parents=True)

    def input_names(self, *kinds: str) -> list[str]:
        """Return the files directly in the input folder whose media type begins with one of ``kinds``; all of them without kinds."""
        names = [path.name for path in self.folder("input").iterdir() if path.is_file()]
        return sorted(name for name in names if not kinds or (mimetypes.guess_type(name)[0] or "").partition("/")[0] in kinds)

    def locate(self, name: str, default_folder: str = "input") -> Path:
        """Return the path of a name such as ``sub/in.png`` or ``in.png [output]``, whether it exists or not.

        Raises:
            OutsideFolder: it leads out of the folder.
        """
        plain, folder = split_annotation(name)
        return self.inside(folder or default_folder, "", plain)

    def inside(self, folder: str, subfolder: str, name: str) -> Path:
        """Join a folder, a subfolder and a name.

        Raises:
            OutsideFolder: the result lies elsewhere.
            KeyError: there is no such folder.
        """
        root = self.folder(folder)
        path = (root / subfolder / name).resolve()
        if not path.is_relative_to(root):
            raise OutsideFolder(name)
        return path

    def has_input(self, name: str) -> bool:
        """Tell whether ``locate`` would find a file."""
        try:
            return self.locate(name).is_file()
        except OutsideFolder:
            return False

    def fingerprint(self, name: str) -> str:
        """Return the SHA-256 of an input file."""
        return hashlib.sha256(self.locate(name).read_bytes()).hexdigest()

    def delete_shown(self, ui: JsonObject) -> list[Path]:
        """Delete every file that an output names; return those that were there."""
        entries = [entry for value in ui.values() for entry in value if isinstance(entry, dict) and "filename" in entry]
        paths = [self.inside(entry["type"], entry["subfolder"], entry["filename"]) for entry in entries]
        found = [path for path in paths if path.is_file()]
        for path in found:
            path.unlink()
        return found

    def place(self, prefix: str, folder: str, width: int = 0, height: int = 0) -> SavePlace:
        """Find the next free number for files that begin with ``prefix``, which may hold folders and ``%width%``, ``%year%`` ...

        Raises:
            OutsideFolder: the prefix leads out of the folder.
        """
        path = self.inside(folder, "", _fill_in(prefix, width, height))
        path.parent.mkdir(parents=True, exist_ok=True)
        subfolder = path.parent.relative_to(self.folder(folder)).as_posix()
        return SavePlace(path.parent, "" if subfolder == "." else subfolder, path.name, _next_counter(path))


def split_annotation(name: str) -> tuple[str, str | None]:
    """Split ``in.png [input]`` into its name and its folder."""
    match = _ANNOTATED.fullmatch(name)
    return (match["name"], match["folder"]) if match else (name, None)


def _fill_in(prefix: str, width: int, height: int) -> str:
    if "%" not in prefix:
        return prefix
    values = {"width": str(width), "height": str(height)}
    values |= {
        name: time.strftime(code) for name, code in zip(("year", "month", "day", "hour", "minute", "second"), _TIME_CODES, strict=True)
    }
    for name, value in values.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix


_TIME_CODES = ("%Y", "%m", "%d", "%H", "%M", "%S")


def _next_counter(path: Path) -> int:
    taken = re.compile(re.escape(path.name) + r"_(\d+)")
    numbers = (match for match in map(taken.match, (entry.name for entry in path.parent.iterdir())) if match)
    return max((int(match[1]) for match in numbers), default=0) + 1
