"""ComfyUI graphs for tests, what a run of one yields, and a registry of fake backends."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

from PIL import Image

from deployments.jobs.model import BackendHold, BackendSpec
from deployments.jobs.ports import OutputFile, PreviewPicture, RunFacts


class Registry:
    """Holds what it is told to; remembers what was reported."""

    def __init__(self, *fakes, in_flight=2, tags=()):
        self.specs = {
            f"fake{n}": BackendSpec(f"fake{n}", fake.url, tags[n] if tags else (), in_flight=in_flight) for n, fake in enumerate(fakes)
        }
        self.draining, self.surrendered, self.released, self.health = set(), set(), [], {}

    async def hold_backends(self, owner, health, released):
        self.health |= dict(health)
        self.released += released
        return tuple(
            BackendHold(spec, name in self.draining, name in self.surrendered) for name, spec in self.specs.items() if name not in released
        )


def pixel(path, place=(1, 1)):
    """Read one pixel of a picture."""
    with Image.open(path) as picture:
        return picture.convert("RGB").getpixel(place)


async def collect(engine, task):
    """Run a job to its end and sort what it yields."""
    found = SimpleNamespace(files=[], progress=[], previews=[], facts={})
    async with contextlib.aclosing(engine.run(task)) as items:
        async for item in items:
            match item:
                case OutputFile():
                    found.files.append(item)
                case PreviewPicture():
                    found.previews.append(item)
                case RunFacts():
                    found.facts |= item.values
                case _:
                    found.progress.append(item)
    return found


def text_to_image(steps=4, seed=1, size=64, ckpt="fake_sd15.safetensors"):
    """A small sampler graph."""
    return {
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": ckpt}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": size, "height": size, "batch_size": 1}},
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": seed, "steps": steps, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
                "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
            },
        },
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}, "_meta": {"title": "Save"}},
    }  # fmt: skip


def empty_image(color=0, size=32, **more):
    """A graph without a model."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": size, "height": size, "batch_size": 1, "color": color}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "e"}},
        **more,
    }
