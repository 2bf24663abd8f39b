# ruff: noqa: INP001, T201 -- a command that prints, not a package
"""Captures what the tests need of a ComfyUI server's ``/object_info``: names, types, defaults, limits and flags.

    python scripts/capture_object_info.py http://127.0.0.1:8188

Texts, and the names of files that happen to lie on the server, are left out: they belong to others and to that machine.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import httpx

OUT = Path(__file__).resolve().parents[1] / "tests" / "data" / "object_info_min.json"

KEPT = ("input", "input_order", "output", "output_node")
SECTIONS = ("required", "optional")
FLAGS = frozenset({
    "forceInput", "control_after_generate", "image_upload", "audio_upload", "video_upload", "file_upload", "multiline",
    "socketless", "widgetType", "multiselect", "dynamicPrompts", "lazy", "rawLink",
})  # fmt: skip
NUMBERS = frozenset({"min", "max", "step"})
MAX_TEXT = 48  # a longer default is a text of somebody
MAX_CHOICES = 60  # samplers are 44; longer lists are catalogues
FILE_NAME = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,11}$")

Json = Any  # whatever the server answers


def main() -> None:
    """Capture and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="of the ComfyUI server")
    parser.add_argument("--out", type=Path, default=OUT, help="file to write (default: %(default)s)")
    arguments = parser.parse_args()
    answer = httpx.get(f"{arguments.url.rstrip('/')}/object_info", timeout=60)
    classes = answer.raise_for_status().json()
    lines = [f"{json.dumps(name)}:{json.dumps(minimal(classes[name]), separators=(',', ':'))}" for name in sorted(classes)]
    arguments.out.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{len(lines)} classes, {arguments.out.stat().st_size // 1024} KiB: {arguments.out}")


def minimal(described: Json) -> Json:
    """Keep of a class what converting and checking a workflow needs."""
    kept = {name: described[name] for name in KEPT if name in described}
    kept["input"] = sections(described["input"])
    kept["input_order"] = {name: described["input_order"][name] for name in SECTIONS if name in described["input_order"]}
    kept["output"] = [[] if isinstance(output, list) else output for output in described["output"]]
    return kept


def sections(described: Json) -> Json:
    """Keep the required and the optional inputs; the server fills hidden ones itself."""
    return {section: {name: spec(one) for name, one in described[section].items()} for section in SECTIONS if described.get(section)}


def spec(described: Json) -> Json:
    """Reduce ``[type, options]``; the type of an old combo is its list of choices."""
    kind = choices(described[0]) if isinstance(described[0], list) else described[0]
    options = described[1] if len(described) > 1 and isinstance(described[1], dict) else None
    return [kind] if options is None else [kind, reduced(options)]


def reduced(options: Json) -> Json:
    """Keep numbers, flags, short defaults, choices and what dynamic inputs bring along."""
    kept = {name: value for name, value in options.items() if name in NUMBERS or (name in FLAGS and value)}
    if "default" in options and not is_text(options["default"]):
        kept["default"] = options["default"]
    if isinstance(options.get("options"), list):
        kept["options"] = choices(options["options"])
    if isinstance(options.get("template"), dict):
        kept["template"] = template(options["template"])
    return kept


def template(described: Json) -> Json:
    """Keep what an autogrow input repeats, and how it names the copies."""
    kept = {name: described[name] for name in ("prefix", "names", "min", "max") if name in described}
    return {**kept, "input": sections(described.get("input") or {})}


def choices(listed: list[Json]) -> list[Json]:
    """Keep choices that mean the same on every server; those of a dynamic combo with their inputs."""
    kept = []
    for one in listed[:MAX_CHOICES]:
        if isinstance(one, dict):
            kept.append({"key": one.get("key"), "inputs": sections(one.get("inputs") or {})})
        elif not is_text(one):
            kept.append(one)
    return kept


def is_text(value: Json) -> bool:
    """Whether a string is prose or the name of a file."""
    return isinstance(value, str) and (len(value) > MAX_TEXT or "\n" in value or bool(FILE_NAME.search(value)))


if __name__ == "__main__":
    main()
