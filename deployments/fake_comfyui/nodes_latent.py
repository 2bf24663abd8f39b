"""Node classes of latents, which are the pictures themselves here. SaveLatent writes safetensors: a length, a JSON header, the numbers."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

import cv2
import numpy as np

from deployments.fake_comfyui.comfy_node import HIDDEN, MAX_SIDE_PX, Input, NodeClass, NodeContext, Shown
from deployments.fake_comfyui.graph import JsonObject
from deployments.fake_comfyui.nodes_model import Model
from deployments.fake_comfyui.pictures import LABEL, Pictures

LATENT_CHANNELS = 4
LATENT_SCALE = 8  # pixels a latent cell

BATCH = {"default": 1, "min": 1, "max": 4096}


@dataclass(frozen=True, slots=True)
class Latent:
    """Stands for a batch of latent pictures: the pictures themselves, at full size."""

    pictures: Pictures


def make_latent(width: int, height: int, batch_size: int = 1) -> tuple[Latent]:
    """Make empty latents; sides are cut down to multiples of 8."""
    return (Latent(np.zeros((batch_size, height // 8 * 8, width // 8 * 8, 3), np.uint8)),)


def encode_pictures(pixels: Pictures, vae: Model) -> tuple[Latent]:  # noqa: ARG001 -- ComfyUI's input names
    """Keep the pictures, sides cut down to multiples of 8."""
    height, width = (max(8, side // 8 * 8) for side in pixels.shape[1:3])
    return (Latent(pixels[:, :height, :width]),)


def decode_latents(samples: Latent, vae: Model) -> tuple[Pictures]:  # noqa: ARG001 -- ComfyUI's input names
    """Return the pictures."""
    return (samples.pictures,)


def save_latent(samples: Latent, context: NodeContext, filename_prefix: str = "latents/ComfyUI") -> Shown:
    """Save latents of the shape that a real VAE gives: the pictures, eight times smaller."""
    place = context.site.files.place(filename_prefix, "output")
    name = f"{place.stem}_{place.counter:05}_.latent"
    (place.folder / name).write_bytes(_encode_safetensors(_to_tensor(samples), {"prompt": json.dumps(context.graph), "software": LABEL}))
    return Shown({"latents": [{"filename": name, "subfolder": place.subfolder, "type": "output"}]})


def _to_tensor(samples: Latent) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    batch, height, width = samples.pictures.shape[:3]
    tensor = np.zeros((batch, LATENT_CHANNELS, height // LATENT_SCALE, width // LATENT_SCALE), np.float32)
    for index, picture in enumerate(samples.pictures):
        small = cv2.resize(picture, (tensor.shape[3], tensor.shape[2]), interpolation=cv2.INTER_AREA)
        tensor[index, :3] = np.asarray(small, np.float32).transpose(2, 0, 1) / 127.5 - 1
    return tensor


def _encode_safetensors(tensor: np.ndarray[tuple[int, ...], np.dtype[np.float32]], metadata: dict[str, str]) -> bytes:
    data = tensor.tobytes()
    header: JsonObject = {
        "__metadata__": metadata,
        "latent_tensor": {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [0, len(data)]},
        "latent_format_version_0": {"dtype": "F32", "shape": [0], "data_offsets": [len(data), len(data)]},
    }
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


def _latent_side(default: int, step: int) -> dict[str, object]:
    return {"default": default, "min": 16, "max": MAX_SIDE_PX, "step": step}


NODE_CLASSES = (
    NodeClass(
        "EmptyLatentImage",
        make_latent,
        (
            Input("width", "INT", _latent_side(512, 8)),
            Input("height", "INT", _latent_side(512, 8)),
            Input("batch_size", "INT", BATCH),
        ),
        ("LATENT",),
        category="latent",
        display_name="Empty Latent Image",
    ),
    NodeClass(
        "EmptySD3LatentImage",
        make_latent,
        (
            Input("width", "INT", _latent_side(1024, 16)),
            Input("height", "INT", _latent_side(1024, 16)),
            Input("batch_size", "INT", BATCH),
        ),
        ("LATENT",),
        category="latent/sd3",
    ),
    NodeClass(
        "VAEEncode",
        encode_pictures,
        (Input("pixels", "IMAGE"), Input("vae", "VAE")),
        ("LATENT",),
        category="latent",
        display_name="VAE Encode",
    ),
    NodeClass(
        "VAEDecode",
        decode_latents,
        (Input("samples", "LATENT", {}), Input("vae", "VAE", {})),
        ("IMAGE",),
        category="latent",
        display_name="VAE Decode",
    ),
    NodeClass(
        "SaveLatent",
        save_latent,
        (Input("samples", "LATENT"), Input("filename_prefix", "STRING", {"default": "latents/ComfyUI"})),
        hidden=HIDDEN,
        category="_for_testing",
        is_output=True,
    ),
)
