"""A small description of a server and the graph that every page on ComfyUI begins with."""

from __future__ import annotations

import copy

import pytest

from deployments.engines.comfyui.object_info import ObjectInfo

SAMPLERS = ["euler", "heun", "dpmpp_2m"]

RAW_INFO = {
    "CheckpointLoaderSimple": {
        "input": {"required": {"ckpt_name": [["tiny.safetensors", "big.safetensors"]]}},
        "output": ["MODEL", "CLIP", "VAE"],
    },
    "CLIPTextEncode": {"input": {"required": {"text": ["STRING", {"multiline": True}], "clip": ["CLIP"]}}, "output": ["CONDITIONING"]},
    "EmptyLatentImage": {
        "input": {
            "required": {
                "width": ["INT", {"default": 512, "min": 16, "max": 16384, "step": 8}],
                "height": ["INT", {"default": 512, "min": 16, "max": 16384, "step": 8}],
                "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}],
            }
        },
        "output": ["LATENT"],
    },
    "KSampler": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "seed": ["INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}],
                "steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
                "cfg": ["FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1}],
                "sampler_name": [SAMPLERS],
                "scheduler": ["COMBO", {"options": ["simple", "normal"]}],
                "positive": ["CONDITIONING"],
                "negative": ["CONDITIONING"],
                "latent_image": ["LATENT"],
                "denoise": ["FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}],
            }
        },
        "output": ["LATENT"],
    },
    "VAEDecode": {"input": {"required": {"samples": ["LATENT"], "vae": ["VAE"]}}, "output": ["IMAGE"]},
    "VAEEncode": {"input": {"required": {"pixels": ["IMAGE"], "vae": ["VAE"]}}, "output": ["LATENT"]},
    "SaveImage": {
        "input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING", {"default": "ComfyUI"}]}},
        "output": [],
        "output_node": True,
    },
    "PreviewAny": {"input": {"required": {"source": ["*", {}]}}, "output": [], "output_node": True},
    "LoadImage": {"input": {"required": {"image": [["example.png"], {"image_upload": True}]}}, "output": ["IMAGE", "MASK"]},
    "LoadImageMask": {
        "input": {"required": {"image": [["example.png"], {"image_upload": True}], "channel": [["alpha", "red"]]}},
        "output": ["MASK"],
    },
    "LoadAudio": {"input": {"required": {"audio": [[], {"audio_upload": True}]}}, "output": ["AUDIO"]},
    "LoadVideo": {"input": {"required": {"file": ["COMBO", {"options": [], "video_upload": True}]}}, "output": ["VIDEO"]},
    "StudioClip": {"input": {"required": {"clip": ["COMBO", {"options": [], "video_upload": True}]}}, "output": ["IMAGE"]},  # a custom node
    "PrimitiveInt": {
        "input": {"required": {"value": ["INT", {"min": -100, "max": 100, "control_after_generate": True}]}},
        "output": ["INT"],
    },
    "PrimitiveBoolean": {"input": {"required": {"value": ["BOOLEAN", {}]}}, "output": ["BOOLEAN"]},
    "ImageResize": {
        "input": {
            "required": {
                "image": ["IMAGE"],
                "resize_type": [
                    "COMFY_DYNAMICCOMBO_V3",
                    {
                        "options": [
                            {
                                "key": "by size",
                                "inputs": {"required": {"width": ["INT", {"min": 1, "max": 8192}], "height": ["INT", {"min": 1}]}},
                            },
                            {"key": "by factor", "inputs": {"required": {"factor": ["FLOAT", {"min": 0.01}]}}},
                        ]
                    },
                ],
            },
            "optional": {"method": [["area", "bilinear"], {"default": "area"}]},
        },
        "output": ["IMAGE"],
    },
    "Stack": {
        "input": {
            "required": {"images": ["COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"image": ["IMAGE"]}}, "prefix": "image"}}]}
        },
        "output": ["IMAGE"],
    },
    "Union": {"input": {"required": {"number": ["INT,FLOAT", {}], "thing": ["MYSTERY", {}]}}, "output": ["MYSTERY"]},
}

TEXT_TO_IMAGE = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["4", 0],
            "seed": 1,
            "steps": 20,
            "cfg": 7.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
            "denoise": 1.0,
        },
        "_meta": {"title": "Sampler"},
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}, "_meta": {"title": "Prompt"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}, "_meta": {"title": "Negative v1.5"}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "cat"}},
}


@pytest.fixture
def raw_info():
    return copy.deepcopy(RAW_INFO)


@pytest.fixture
def info():
    return ObjectInfo.of(RAW_INFO)


@pytest.fixture
def text_to_image():
    return copy.deepcopy(TEXT_TO_IMAGE)
