"""Samplers with no model behind them.

They paint: shapes and colours follow from the seed and the texts, the step count from its input, the time from the configuration.
What an encoded picture brings shows through as far as ``denoise`` leaves it.
"""

from __future__ import annotations

import hashlib
from functools import partial

import cv2
import numpy as np

from deployments.fake_comfyui.comfy_node import Input, NodeClass, NodeContext
from deployments.fake_comfyui.nodes_latent import Latent
from deployments.fake_comfyui.nodes_model import Conditioning, Model
from deployments.fake_comfyui.pictures import Picture, Pictures

SAMPLERS = (
    "euler",
    "euler_ancestral",
    "heun",
    "dpm_2",
    "dpm_2_ancestral",
    "lms",
    "dpmpp_2s_ancestral",
    "dpmpp_sde",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_3m_sde",
    "ddpm",
    "lcm",
    "ipndm",
    "deis",
    "res_multistep",
    "er_sde",
    "ddim",
    "uni_pc",
    "uni_pc_bh2",
)
SCHEDULERS = ("simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal", "linear_quadratic", "kl_optimal")
SHAPES = 9


def sample(
    model: Model,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    context: NodeContext,
    denoise: float = 1.0,
) -> tuple[Latent]:
    """Paint from noise to picture in ``steps`` steps."""
    recipe = (model, seed, cfg, sampler_name, scheduler, positive, negative)
    return (_Sampling(latent_image, recipe, denoise).run(range(steps), steps, context),)


def sample_part(
    model: Model,
    add_noise: str,
    noise_seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    start_at_step: int,
    end_at_step: int,
    return_with_leftover_noise: str,
    context: NodeContext,
) -> tuple[Latent]:
    """Paint the steps from ``start_at_step`` to ``end_at_step``; those before count as done by another sampler."""
    last = min(steps, end_at_step)
    denoise = 1.0 if add_noise == "enable" else 1 - start_at_step / max(1, steps)
    sampling = _Sampling(latent_image, (model, noise_seed, cfg, sampler_name, scheduler, positive, negative), max(0.0, denoise))
    done = sampling.run(range(start_at_step, last), steps, context)
    return (done if return_with_leftover_noise == "disable" else Latent(sampling.at(last / steps)),)


class _Sampling:
    """One painting: the noise that it begins with and the picture that it ends with."""

    def __init__(self, latent: Latent, recipe: tuple[object, ...], denoise: float) -> None:
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(repr(recipe).encode()).digest()[:8]))
        shape = latent.pictures.shape
        empty = not latent.pictures.any()
        self._noise = rng.integers(0, 256, (shape[1], shape[2], 3), np.uint8)
        painted = np.stack([_paint(rng, shape[1], shape[2]) for _ in range(shape[0])])
        weight = 1.0 if empty else denoise
        self._target = (
            painted
            if weight == 1.0
            else np.stack([cv2.addWeighted(new, weight, old, 1 - weight, 0) for new, old in zip(painted, latent.pictures, strict=True)])
        )

    def run(self, steps: range, total: int, context: NodeContext) -> Latent:
        """Take the steps' time and report each."""
        for step in steps:
            context.wait(context.site.config.step_s)
            context.report(step + 1, total, partial(self._mix, self._target[0], (step + 1) / total))
        return Latent(self._target)

    def at(self, done: float) -> Pictures:
        """Return the pictures as they are after the fraction ``done`` of the work."""
        return np.stack([self._mix(picture, done) for picture in self._target])

    def _mix(self, picture: Picture, done: float) -> Picture:
        return np.asarray(cv2.addWeighted(picture, done, self._noise, 1 - done, 0), np.uint8)


def _paint(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Paint a gradient and a few discs."""
    top, bottom = rng.integers(40, 216, (2, 3))
    slope = np.linspace(0, 1, height)[:, None, None]
    picture = np.repeat((top * (1 - slope) + bottom * slope).astype(np.uint8), width, axis=1)
    for _ in range(SHAPES):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        radius = int(rng.integers(1, max(2, min(height, width) // 4)))
        cv2.circle(picture, centre, radius, rng.integers(0, 256, 3).tolist(), -1, cv2.LINE_AA)
    return picture


SEED = {"default": 0, "min": 0, "max": 0xFFFFFFFFFFFFFFFF, "control_after_generate": True}
STEPS = {"default": 20, "min": 1, "max": 10000}
CFG = {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}


NODE_CLASSES = (
    NodeClass(
        "KSampler",
        sample,
        (
            Input("model", "MODEL", {}),
            Input("seed", "INT", SEED),
            Input("steps", "INT", STEPS),
            Input("cfg", "FLOAT", CFG),
            Input("sampler_name", SAMPLERS, {}),
            Input("scheduler", SCHEDULERS, {}),
            Input("positive", "CONDITIONING", {}),
            Input("negative", "CONDITIONING", {}),
            Input("latent_image", "LATENT", {}),
            Input("denoise", "FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
        ),
        ("LATENT",),
        category="sampling",
        display_name="KSampler",
    ),
    NodeClass(
        "KSamplerAdvanced",
        sample_part,
        (
            Input("model", "MODEL"),
            Input("add_noise", ("enable", "disable")),
            Input("noise_seed", "INT", SEED),
            Input("steps", "INT", STEPS),
            Input("cfg", "FLOAT", CFG),
            Input("sampler_name", SAMPLERS),
            Input("scheduler", SCHEDULERS),
            Input("positive", "CONDITIONING"),
            Input("negative", "CONDITIONING"),
            Input("latent_image", "LATENT"),
            Input("start_at_step", "INT", {"default": 0, "min": 0, "max": 10000}),
            Input("end_at_step", "INT", {"default": 10000, "min": 0, "max": 10000}),
            Input("return_with_leftover_noise", ("disable", "enable")),
        ),
        ("LATENT",),
        category="sampling",
        display_name="KSampler (Advanced)",
    ),
)
