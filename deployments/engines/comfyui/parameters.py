"""The inputs of a graph that a person may want to change, as the web page shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from deployments.engines.comfyui.graph import PromptGraph, is_link, title_of
from deployments.engines.comfyui.media_inputs import media_kind
from deployments.engines.comfyui.object_info import MediaKind, ObjectInfo
from deployments.engines.comfyui.places import Place, input_info
from deployments.engines.comfyui.seeds import LARGEST_SEED, is_seed_at
from deployments.engines.comfyui.values import Wanted

ParameterKind = Literal["string", "integer", "number", "boolean", "choice", "any"]
MAX_PARAMETERS = 5000


@dataclass(frozen=True, slots=True)
class Parameter:
    """One input with a value of its own, and what is known of it."""

    place: str  # "<node id>.<input>", as overrides take it
    comfy_node: str
    title: str  # of the node
    class_type: str
    name: str
    type: ParameterKind  # any: neither a scalar nor described
    value: Any  # JSON, as in the graph
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[Any, ...] | None = None
    multiline: bool = False
    media: MediaKind | None = None  # takes a file of this kind
    is_seed: bool = False  # takes -1 for a random one


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of an input of ComfyUI's own nodes without asking a server."""

    type: ParameterKind
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    multiline: bool = False


_SIZE = _Known("integer", 16, 16384, 8)
_SEED = _Known("integer", 0, LARGEST_SEED)
_SAMPLER = {
    "seed": _SEED,
    "noise_seed": _SEED,
    "steps": _Known("integer", 1, 10000),
    "cfg": _Known("number", 0.0, 100.0, 0.1),
    "sampler_name": _Known("choice"),
    "scheduler": _Known("choice"),
    "denoise": _Known("number", 0.0, 1.0, 0.01),
}
_LATENT = {"width": _SIZE, "height": _SIZE, "batch_size": _Known("integer", 1, 4096)}
_KNOWN_INPUTS: dict[str, dict[str, _Known]] = {
    "CLIPTextEncode": {"text": _Known("string", multiline=True)},
    "KSampler": _SAMPLER,
    "KSamplerAdvanced": _SAMPLER,
    "EmptyLatentImage": _LATENT,
    "EmptySD3LatentImage": _LATENT,
    "CheckpointLoaderSimple": {"ckpt_name": _Known("choice")},
    "SaveImage": {"filename_prefix": _Known("string")},
}


def find_parameters(graph: PromptGraph, info: ObjectInfo | None = None) -> tuple[Parameter, ...]:
    """Return every input that holds a value instead of a link, in the order of the graph, at most ``MAX_PARAMETERS``.

    Types and bounds come from the server's description, without one from what is known of ComfyUI's own nodes, else from the value.
    """
    return tuple(parameter for _, parameter in zip(range(MAX_PARAMETERS), _parameters(graph, info), strict=False))


def _parameters(graph: PromptGraph, info: ObjectInfo | None) -> Iterator[Parameter]:
    for node_id, node in graph.items():
        for name, value in node["inputs"].items():
            if not is_link(value):
                yield _parameter(graph, Place(node_id, name), value, info)


def _parameter(graph: PromptGraph, place: Place, value: Any, info: ObjectInfo | None) -> Parameter:  # noqa: ANN401 -- a JSON value
    class_type = graph[place.comfy_node]["class_type"]
    described = input_info(graph, place, info)
    known = _KNOWN_INPUTS.get(class_type, {}).get(place.input) or _Known(_type_of(value))
    media = media_kind(graph, place, info)
    details: dict[str, Any] = {  # Any: fields of Parameter
        "type": known.type,
        "minimum": known.minimum,
        "maximum": known.maximum,
        "step": known.step,
        "multiline": known.multiline,
    }
    if described is not None:
        details = {
            "type": Wanted.by(described).type,
            "default": described.default,
            "minimum": described.minimum,
            "maximum": described.maximum,
            "step": described.step,
            "choices": None if described.media else described.choices,  # whose files lie on a server is nobody's business
            "multiline": described.multiline,
        }
    return Parameter(
        place=str(place),
        comfy_node=place.comfy_node,
        title=title_of(graph, place.comfy_node),
        class_type=class_type,
        name=place.input,
        value=value,
        media=media,
        is_seed=is_seed_at(graph, place, info),
        **details,
    )


def _type_of(value: object) -> ParameterKind:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case _:
            return "any"
