"""What a finished prompt has made: the files and texts in its outputs, and the nodes behind them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from deployments.engines.comfyui.graph import PromptGraph, is_link, topological_order
from deployments.engines.comfyui.places import copy_graph
from deployments.jobs.model import JsonObject

MAX_OUTPUTS = 1000  # of one job
MAX_TEXT = 2**20  # characters of a text output
MAX_PATH = 1000  # characters of a file name or a subfolder

OutputKind = Literal["image", "video", "audio", "latent", "3d", "text", "file"]
OutputFolder = Literal["output", "temp", "input"]

FOLDERS: tuple[OutputFolder, ...] = ("output", "temp", "input")

KIND_BY_EXTENSION: dict[str, OutputKind] = {
    **dict.fromkeys(("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif", "svg", "exr", "apng"), "image"),
    **dict.fromkeys(("mp4", "webm", "mov", "mkv", "avi", "m4v"), "video"),
    **dict.fromkeys(("wav", "mp3", "flac", "ogg", "opus", "m4a", "aac"), "audio"),
    **dict.fromkeys(("latent",), "latent"),
    **dict.fromkeys(("glb", "gltf", "obj", "ply", "stl", "fbx", "usdz", "splat", "ksplat", "spz"), "3d"),
    **dict.fromkeys(("txt", "json", "csv", "srt", "vtt", "md"), "text"),
}
OTHER_EXTENSIONS = frozenset({"zip", "safetensors", "npy", "npz", "pdf"})
UNKNOWN_EXTENSION = "bin"

_DRIVE = re.compile(r"[A-Za-z]:")
_UNSAFE_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class OutputPlace:
    """One output of one node: a file of the backend, or a text."""

    comfy_node: str
    index: int  # among the outputs of the node
    filename: str  # empty for a text
    subfolder: str
    type: OutputFolder  # temp: a preview
    kind: OutputKind
    text: str | None = None


def list_outputs(outputs: JsonObject, graph: PromptGraph) -> tuple[OutputPlace, ...]:
    """Read ``outputs`` of a history entry, or of ``executed`` messages by node.

    Files may stand under any key: every list of objects with a ``filename`` counts, and the extension tells what it is. The order is
    that of the graph, then of the keys' names, so that a job and its repetition number their files alike. What has another shape,
    or a path that leads out of the backend's folders, is left out.
    """
    position = {node_id: n for n, node_id in enumerate(graph)}
    order = sorted(outputs, key=lambda node_id: (position.get(node_id, len(position)), node_id))
    return tuple(islice((place for node_id in order for place in _of_node(node_id, outputs[node_id])), MAX_OUTPUTS))


def count_refused(outputs: JsonObject) -> int:
    """Count the files that :func:`list_outputs` leaves out: those whose path leads out of the backend's folders, and those over the limit.

    A job that lacks one must not end as if it had all.
    """
    entries = [
        entry
        for raw in outputs.values()
        for listed in (raw.values() if isinstance(raw, dict) else ())
        for entry in (listed if isinstance(listed, list) else ())
        if isinstance(entry, dict) and "filename" in entry
    ]
    return sum(_file("", entry) is None for entry in entries) + max(0, len(entries) - MAX_OUTPUTS)


def output_kind(filename: str) -> OutputKind:
    """Tell what a file is by its extension."""
    return KIND_BY_EXTENSION.get(_extension(filename), "file")


def output_name(job_id: str, comfy_node: str, n: int, filename: str) -> str:
    """Return the name by which clients know an output: unique, and safe as a file's."""
    extension = _extension(filename)
    known = extension in KIND_BY_EXTENSION or extension in OTHER_EXTENSIONS
    return f"{_safe(job_id)}_{_safe(comfy_node)}_{n}.{extension if known else UNKNOWN_EXTENSION}"


def needed_nodes(graph: PromptGraph, roots: Iterable[str]) -> frozenset[str]:
    """Return some nodes and all that they depend on; links to nowhere are passed over."""
    waiting = [node_id for node_id in roots if node_id in graph]
    found = set(waiting)
    while waiting:
        for value in graph[waiting.pop()]["inputs"].values():
            if is_link(value) and value[0] in graph and value[0] not in found:
                found.add(value[0])
                waiting.append(value[0])
    return frozenset(found)


def websocket_output_nodes(graph: PromptGraph) -> tuple[str, ...]:
    """Return the nodes whose pictures come by the WebSocket alone and stand in no history."""
    return tuple(node_id for node_id, node in graph.items() if node["class_type"] == "SaveImageWebsocket")


def fresh_prefix(graph: PromptGraph, comfy_nodes: Collection[str], token: str) -> tuple[PromptGraph, tuple[str, ...]]:
    """Make some nodes save again although nothing that they depend on has changed.

    A server that has a prompt's results in its cache names the files of the first run. Were they deleted, a new prefix makes it run
    the node that saves, and only that.

    Returns:
        A copy with another ``filename_prefix`` at these nodes, and those of them that have none to change.
    """
    copy = copy_graph(graph)
    without: list[str] = []
    for node_id in comfy_nodes:
        prefix = copy[node_id]["inputs"].get("filename_prefix") if node_id in copy else None
        if isinstance(prefix, str):
            copy[node_id]["inputs"]["filename_prefix"] = f"{prefix}_{token}"
        else:
            without.append(node_id)
    return copy, tuple(without)


def checkpoint_of(graph: PromptGraph) -> str | None:
    """Return the file name of the model that the first sampler uses; it is worth running where that is loaded. None without one."""
    seen: set[str] = set()  # nodes that lead to no model
    for node_id in topological_order(graph):
        inputs = graph[node_id]["inputs"]
        if {"latent_image", "sampler", "sampler_name"} & set(inputs):
            roots = [inputs[name][0] for name in ("model", "guider") if is_link(inputs.get(name))]
            name = _nearest_model(graph, roots, seen)
            if name is not None:
                return name
    return next((name for node_id in graph if (name := _model(graph, node_id)) is not None), None)


def required_classes(graph: PromptGraph) -> frozenset[str]:
    """Return the node classes that a backend has to have."""
    return frozenset(node["class_type"] for node in graph.values())


def _nearest_model(graph: PromptGraph, roots: Iterable[str], seen: set[str]) -> str | None:
    waiting = deque(roots)
    while waiting:
        node_id = waiting.popleft()
        if node_id in seen:
            continue
        seen.add(node_id)
        name = _model(graph, node_id)
        if name is not None:
            return name
        waiting += [value[0] for value in graph[node_id]["inputs"].values() if is_link(value)]
    return None


def _model(graph: PromptGraph, node_id: str) -> str | None:
    names = [graph[node_id]["inputs"].get(name) for name in ("ckpt_name", "unet_name")]
    return next((name for name in names if isinstance(name, str)), None)


def _of_node(node_id: str, raw: object) -> Iterator[OutputPlace]:
    seen: set[OutputPlace] = set()
    n = 0
    for key, listed in sorted(raw.items()) if isinstance(raw, dict) else []:
        for entry in listed if isinstance(listed, list) else []:
            place = _text(node_id, entry) if key == "text" and isinstance(entry, str) else _file(node_id, entry)
            if place is not None and (place.text is not None or place not in seen):  # some nodes name a file under two keys
                yield replace(place, index=n)
                n += 1
                seen.add(place)


def _text(node_id: str, entry: str) -> OutputPlace:
    return OutputPlace(node_id, 0, "", "", "output", "text", entry[:MAX_TEXT])


def _file(node_id: str, entry: object) -> OutputPlace | None:
    if not isinstance(entry, dict):
        return None
    filename, subfolder, folder = entry.get("filename"), entry.get("subfolder") or "", entry.get("type", "output")
    if not _is_inside(filename) or not (subfolder == "" or _is_inside(subfolder)) or folder not in FOLDERS:
        return None
    return OutputPlace(node_id, 0, str(filename), str(subfolder), folder, output_kind(str(filename)))


def _is_inside(path: object) -> bool:
    if not isinstance(path, str) or not 0 < len(path) <= MAX_PATH or not path.isprintable():
        return False
    parts = path.replace("\\", "/").split("/")  # a backend may run on Windows
    return bool(parts[0]) and not _DRIVE.match(path) and ".." not in parts


def _extension(filename: str) -> str:
    stem, dot, extension = filename.rpartition(".")
    return extension.lower() if stem and dot else ""


def _safe(text: str) -> str:
    return _UNSAFE_IN_NAMES.sub("-", text)
