"""Which input of a graph takes the sketch."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from deployments.engines.comfyui.graph import PromptGraph, title_of
from deployments.engines.comfyui.media_inputs import media_places
from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.engines.comfyui.workflow_file import ParameterSpec, WorkflowMeta
from deployments.jobs.errors import InvalidInput

PARAMETER = "sketch"
NAMED_FOR_IT = re.compile(r"sketch|drawing|scribble|草图|草稿|线稿|手绘", re.IGNORECASE)


def with_sketch(graph: PromptGraph, meta: WorkflowMeta, info: ObjectInfo | None) -> WorkflowMeta:
    """Return a description that has a parameter ``sketch`` with its place.

    The description may set it. Otherwise it is the picture input whose node is titled, or whose file is named, for a sketch; else the
    only one.

    Raises:
        InvalidInput: there is none, or several could be meant.
    """
    declared = meta.parameters.get(PARAMETER)
    if declared is not None and declared.bind:
        if declared.type != "image":
            raise InvalidInput(f"the parameter sketch is of type {declared.type}: it has to be image")
        return meta
    spec = ParameterSpec(type="image", bind=(_find(graph, info),), description="the sketch")
    return meta.model_copy(update={"parameters": {**meta.parameters, PARAMETER: spec}})


def _find(graph: PromptGraph, info: ObjectInfo | None) -> str:
    places = [place for place in media_places(graph, info) if place.kind == "image"]
    if not places:
        raise InvalidInput("the workflow has no input for a picture: add a LoadImage node")
    named = [place for place in places if NAMED_FOR_IT.search(title_of(graph, place.comfy_node)) or _file_is_named(graph, place)]
    chosen = named or places
    if len(chosen) > 1:
        nodes = ", ".join(place.comfy_node for place in chosen)
        raise InvalidInput(f"the nodes {nodes} could all take the sketch: title one of them Sketch, or set parameters.sketch in the yaml")
    return f"{chosen[0].comfy_node}.{chosen[0].input}"


def _file_is_named(graph: PromptGraph, place: tuple[str, str, object]) -> bool:
    value = graph[place[0]]["inputs"].get(place[1])
    return isinstance(value, str) and NAMED_FOR_IT.search(PurePosixPath(value).stem) is not None
