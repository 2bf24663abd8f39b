"""Node classes in the form of ``/object_info``."""

from __future__ import annotations

from collections.abc import Mapping

from deployments.fake_comfyui.comfy_node import NodeClass, Site
from deployments.fake_comfyui.graph import JsonObject

PYTHON_MODULE = "fake_comfyui"


def describe_classes(classes: Mapping[str, NodeClass], site: Site) -> JsonObject:
    """Return every class under its name."""
    return {name: describe_class(node_class, site) for name, node_class in classes.items()}


def describe_class(node_class: NodeClass, site: Site) -> JsonObject:
    """Return one class; the choices of files are read from the disk at each call, as ComfyUI does."""
    inputs = _inputs(node_class, site)
    return {
        "input": inputs,
        "input_order": {group: list(members) for group, members in inputs.items()},
        "output": list(node_class.outputs),
        "output_is_list": [False] * len(node_class.outputs),
        "output_name": list(node_class.output_names or node_class.outputs),
        "name": node_class.name,
        "display_name": node_class.display_name or node_class.name,
        "description": node_class.description,
        "python_module": PYTHON_MODULE,
        "category": node_class.category,
        "output_node": node_class.is_output,
    }


def _inputs(node_class: NodeClass, site: Site) -> JsonObject:
    groups: JsonObject = {"required": {}}
    for spec in node_class.inputs:
        groups.setdefault("optional" if spec.optional else "required", {})[spec.name] = spec.describe(site)
    if node_class.hidden:
        groups["hidden"] = dict(node_class.hidden)
    return groups
