"""All node classes of the fake backend, by name."""

from __future__ import annotations

from deployments.fake_comfyui import (
    nodes_audio,
    nodes_fault,
    nodes_image,
    nodes_latent,
    nodes_model,
    nodes_output,
    nodes_sampler,
    nodes_value,
    nodes_video,
)

_MODULES = (nodes_image, nodes_output, nodes_model, nodes_latent, nodes_sampler, nodes_video, nodes_audio, nodes_value, nodes_fault)

NODE_CLASSES = {node_class.name: node_class for module in _MODULES for node_class in module.NODE_CLASSES}
