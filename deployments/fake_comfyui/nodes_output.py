"""Node classes that save or show pictures and values."""

from __future__ import annotations

import json

from deployments.fake_comfyui.comfy_node import HIDDEN, Input, NodeClass, NodeContext, Shown
from deployments.fake_comfyui.graph import JsonObject
from deployments.fake_comfyui.pictures import Pictures, encode_png


def save_images(images: Pictures, context: NodeContext, filename_prefix: str = "ComfyUI") -> Shown:
    """Save each picture as PNG in the output folder."""
    return Shown({"images": _save(images, context, filename_prefix, "output", compress_level=4)})


def preview_images(images: Pictures, context: NodeContext) -> Shown:
    """Save each picture as PNG in the folder of temporary files."""
    prefix = f"ComfyUI_temp_{context.site.temp_suffix}"
    return Shown({"images": _save(images, context, prefix, "temp", compress_level=1)})


def send_images(images: Pictures, context: NodeContext) -> Shown:
    """Send each picture over the WebSocket and keep none."""
    for index, picture in enumerate(images):
        context.send_picture(picture, index, len(images))
    return Shown()


def preview_any(source: object = None) -> Shown:
    """Show a value as text."""
    if source is None or isinstance(source, str | int | float):
        return Shown({"text": [str(source)]})
    try:
        return Shown({"text": [json.dumps(source)]})
    except TypeError:
        return Shown({"text": [str(source)]})


def _save(pictures: Pictures, context: NodeContext, prefix: str, folder: str, compress_level: int) -> list[JsonObject]:
    height, width = pictures.shape[1:3]
    place = context.site.files.place(prefix, folder, width, height)
    entries = []
    for index, picture in enumerate(pictures):
        name = place.name(index, "png")
        data = encode_png(picture, context.graph, context.extra_data.get("extra_pnginfo"), compress_level)
        (place.folder / name).write_bytes(data)
        entries.append({"filename": name, "subfolder": place.subfolder, "type": folder})
    return entries


NODE_CLASSES = (
    NodeClass(
        "SaveImage",
        save_images,
        (Input("images", "IMAGE", {}), Input("filename_prefix", "STRING", {"default": "ComfyUI"})),
        hidden=HIDDEN,
        display_name="Save Image",
        description="Saves pictures in the output folder.",
        is_output=True,
    ),
    NodeClass(
        "PreviewImage",
        preview_images,
        (Input("images", "IMAGE"),),
        hidden=HIDDEN,
        display_name="Preview Image",
        description="Saves pictures for a while.",
        is_output=True,
    ),
    NodeClass(
        "SaveImageWebsocket",
        send_images,
        (Input("images", "IMAGE"),),
        category="api/image",
        is_output=True,
        fingerprint=lambda **_: "",  # runs each time
    ),
    NodeClass("PreviewAny", preview_any, (Input("source", "*", {}),), category="utils", display_name="Preview Any", is_output=True),
)
