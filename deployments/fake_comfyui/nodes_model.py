"""Node classes of models and texts, with no model behind them: they hand on names."""

from __future__ import annotations

from dataclasses import dataclass, replace

from deployments.fake_comfyui.comfy_node import Input, NodeClass

CLIP_TYPES = (
    "stable_diffusion",
    "stable_cascade",
    "sd3",
    "stable_audio",
    "mochi",
    "ltxv",
    "pixart",
    "cosmos",
    "lumina2",
    "wan",
    "hidream",
    "chroma",
    "ace",
    "omnigen2",
    "qwen_image",
    "hunyuan_image",
)
WEIGHT_TYPES = ("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")
STRENGTH = {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01}


@dataclass(frozen=True, slots=True)
class Model:
    """Stands for MODEL, CLIP or VAE: the names of what was loaded, in order."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conditioning:
    """Stands for an encoded text."""

    text: str
    names: tuple[str, ...]


def load_checkpoint(ckpt_name: str) -> tuple[Model, Model, Model]:
    """Pretend to load a model, its text encoder and its VAE."""
    return Model((ckpt_name,)), Model((ckpt_name,)), Model((ckpt_name,))


def load_unet(unet_name: str, weight_dtype: str) -> tuple[Model]:
    """Pretend to load a diffusion model."""
    return (Model((unet_name, weight_dtype)),)


def load_clip(clip_name: str, type: str, device: str = "default") -> tuple[Model]:  # noqa: A002, ARG001 -- ComfyUI's input names
    """Pretend to load a text encoder."""
    return (Model((clip_name, type)),)


def load_vae(vae_name: str) -> tuple[Model]:
    """Pretend to load a VAE."""
    return (Model((vae_name,)),)


def load_lora(model: Model, clip: Model, lora_name: str, strength_model: float, strength_clip: float) -> tuple[Model, Model]:
    """Pretend to apply a LoRA; a strength of 0 changes nothing."""
    return _with_lora(model, lora_name, strength_model), _with_lora(clip, lora_name, strength_clip)


def shift_sampling(model: Model, shift: float) -> tuple[Model]:
    """Pass a model through; the shift becomes part of its name."""
    return (Model((*model.names, f"shift {shift:g}")),)


def encode_text(text: str, clip: Model) -> tuple[Conditioning]:
    """Keep the text."""
    return (Conditioning(text, clip.names),)


def _with_lora(model: Model, name: str, strength: float) -> Model:
    return replace(model, names=(*model.names, f"{name} {strength:g}")) if strength else model


NODE_CLASSES = (
    NodeClass(
        "CheckpointLoaderSimple",
        load_checkpoint,
        (Input("ckpt_name", lambda site: list(site.config.checkpoints), {}),),
        ("MODEL", "CLIP", "VAE"),
        category="loaders",
        display_name="Load Checkpoint",
    ),
    NodeClass(
        "UNETLoader",
        load_unet,
        (Input("unet_name", lambda site: list(site.config.diffusion_models)), Input("weight_dtype", WEIGHT_TYPES)),
        ("MODEL",),
        category="advanced/loaders",
        display_name="Load Diffusion Model",
    ),
    NodeClass(
        "CLIPLoader",
        load_clip,
        (
            Input("clip_name", lambda site: list(site.config.text_encoders)),
            Input("type", CLIP_TYPES),
            Input("device", ("default", "cpu"), {"advanced": True}, optional=True),
        ),
        ("CLIP",),
        category="advanced/loaders",
        display_name="Load CLIP",
    ),
    NodeClass(
        "VAELoader",
        load_vae,
        (Input("vae_name", lambda site: [*site.config.vaes, "pixel_space"]),),
        ("VAE",),
        category="loaders",
        display_name="Load VAE",
    ),
    NodeClass(
        "LoraLoader",
        load_lora,
        (
            Input("model", "MODEL", {}),
            Input("clip", "CLIP", {}),
            Input("lora_name", lambda site: list(site.config.loras), {}),
            Input("strength_model", "FLOAT", STRENGTH),
            Input("strength_clip", "FLOAT", STRENGTH),
        ),
        ("MODEL", "CLIP"),
        category="loaders",
        display_name="Load LoRA",
    ),
    NodeClass(
        "ModelSamplingAuraFlow",
        shift_sampling,
        (Input("model", "MODEL"), Input("shift", "FLOAT", {"default": 1.73, "min": 0.0, "max": 100.0, "step": 0.01})),
        ("MODEL",),
        category="advanced/model",
    ),
    NodeClass(
        "CLIPTextEncode",
        encode_text,
        (Input("text", "STRING", {"multiline": True, "dynamicPrompts": True}), Input("clip", "CLIP", {})),
        ("CONDITIONING",),
        category="conditioning",
        display_name="CLIP Text Encode (Prompt)",
    ),
)
