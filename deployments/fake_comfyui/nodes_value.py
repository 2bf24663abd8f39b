"""Node classes that hold a value."""

from __future__ import annotations

import sys

from deployments.fake_comfyui.comfy_node import Input, NodeClass, Options

BOUNDS = {"min": -sys.maxsize, "max": sys.maxsize}  # as ComfyUI sets them, for floats too


def keep(value: str | float) -> tuple[str | float]:
    """Return the value."""
    return (value,)


def _primitive(name: str, kind: str, display_name: str, options: Options) -> NodeClass:
    return NodeClass(name, keep, (Input("value", kind, options),), (kind,), category="utils/primitive", display_name=display_name)


NODE_CLASSES = (
    _primitive("PrimitiveString", "STRING", "String", {"multiline": False}),
    _primitive("PrimitiveStringMultiline", "STRING", "String (Multiline)", {"multiline": True}),
    _primitive("PrimitiveInt", "INT", "Int", BOUNDS | {"control_after_generate": True}),
    _primitive("PrimitiveFloat", "FLOAT", "Float", BOUNDS),
    _primitive("PrimitiveBoolean", "BOOLEAN", "Boolean", {}),
)
