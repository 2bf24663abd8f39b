"""Inputs of a graph that take a picture, a mask, sound or a video, and what a client may put there.

Only in these places is a URL a reference to media; in a prompt or any other text it stays text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from deployments.engines.comfyui.graph import PromptGraph, is_link
from deployments.engines.comfyui.object_info import MediaKind, ObjectInfo
from deployments.engines.comfyui.places import Place, copy_graph, input_info
from deployments.jobs.model import JsonObject

# Of nodes that no server has described (yet): (class, input) -> what it takes.
KNOWN_MEDIA_INPUTS: dict[tuple[str, str], MediaKind] = {
    ("LoadImage", "image"): "image",
    ("LoadImageMask", "image"): "mask",
    ("LoadAudio", "audio"): "audio",
    ("LoadVideo", "file"): "video",
    ("VHS_LoadVideo", "video"): "video",
}

REFERENCE_SCHEMES = ("http://", "https://", "data:", "s3://", "gs://")
REFERENCE_FIELDS = ("url", "file_id", "base64")
FOLDER_MARK = " [input]"  # after a name, ComfyUI's clients say so in which folder it lies
TO_BE_UPLOADED = ""  # stands in the graph until the media are on the backend and have a name there


class MediaPlace(NamedTuple):
    """An input that takes media."""

    comfy_node: str
    input: str
    kind: MediaKind


@dataclass(frozen=True, slots=True)
class MediaBinding:
    """Media that a job brings for one input."""

    comfy_node: str
    input: str
    reference: JsonObject  # {"url"}, {"file_id"} or {"base64", "media_type"}


def media_places(graph: PromptGraph, info: ObjectInfo | None = None) -> tuple[MediaPlace, ...]:
    """Return the inputs of a graph that take media and hold a value, in the order of the graph."""
    return tuple(
        MediaPlace(node_id, name, kind)
        for node_id, node in graph.items()
        for name, value in node["inputs"].items()
        if not is_link(value) and (kind := media_kind(graph, Place(node_id, name), info))
    )


def media_kind(graph: PromptGraph, place: Place, info: ObjectInfo | None = None) -> MediaKind | None:
    """Return which kind of media an input takes; None when it takes none."""
    described = input_info(graph, place, info)
    if described is not None and described.media is not None:
        return described.media
    return KNOWN_MEDIA_INPUTS.get((graph[place.comfy_node]["class_type"], place.input))


def is_reference(value: object) -> bool:
    """Whether a value at a media place refers to media, rather than being the name of a file that the backend has."""
    return reference_of(value) is not None


def reference_of(value: object) -> JsonObject | None:
    """Return a reference as an object, also of a URL; None when the value is none."""
    if isinstance(value, str):
        return {"url": value} if value[:8].lower().startswith(REFERENCE_SCHEMES) else None
    if isinstance(value, dict) and sum(isinstance(value.get(field), str) for field in REFERENCE_FIELDS) == 1:
        return value
    return None


def take_references(graph: PromptGraph, info: ObjectInfo | None = None) -> tuple[PromptGraph, dict[str, MediaBinding]]:
    """Take the references out of the media places of a graph.

    Returns:
        A copy of the graph without them, and the references by role, which is ``"<node id>.<input>"``.
    """
    values = {place: graph[place.comfy_node]["inputs"][place.input] for place in media_places(graph, info)}
    return _taken(graph, {place: reference for place, value in values.items() if (reference := reference_of(value)) is not None})


def file_names(graph: PromptGraph, info: ObjectInfo | None = None) -> tuple[str, ...]:
    """Return the names of files that stand in the media places of a graph, each once, in the order of the graph."""
    return tuple(dict.fromkeys(plain for place in media_places(graph, info) if (plain := _file_name(graph, place))))


def take_files(graph: PromptGraph, known: Mapping[str, str], info: ObjectInfo | None = None) -> tuple[PromptGraph, dict[str, MediaBinding]]:
    """Take the names of known files out of the media places of a graph; the other names stay: the backend may know them.

    Args:
        graph: not modified.
        known: file ids by name.
        info: of the backends.

    Returns:
        As :func:`take_references`.
    """
    return _taken(
        graph, {place: {"file_id": known[name]} for place in media_places(graph, info) if (name := _file_name(graph, place)) in known}
    )


def _file_name(graph: PromptGraph, place: MediaPlace) -> str:
    value = graph[place.comfy_node]["inputs"][place.input]
    return value.removesuffix(FOLDER_MARK) if isinstance(value, str) and not is_reference(value) else ""


def _taken(graph: PromptGraph, references: Mapping[MediaPlace, JsonObject]) -> tuple[PromptGraph, dict[str, MediaBinding]]:
    copy = copy_graph(graph)
    media: dict[str, MediaBinding] = {}
    for (comfy_node, name, _), reference in references.items():
        media[str(Place(comfy_node, name))] = MediaBinding(comfy_node, name, reference)
        copy[comfy_node]["inputs"][name] = TO_BE_UPLOADED
    return copy, media
