"""Node classes that no ComfyUI has: they wait, fail or hang on request, and say so in their names."""

from __future__ import annotations

from typing import NoReturn

from deployments.fake_comfyui.comfy_node import Input, NodeClass, NodeContext
from deployments.fake_comfyui.pictures import Pictures

LOOK_S = 3600.0  # FakeHang waits in such pieces, for ever


class FakeFailure(Exception):
    """What FakeFail raises."""


def delay(image: Pictures, seconds: float, context: NodeContext) -> tuple[Pictures]:
    """Pass a picture through after a while."""
    context.wait(seconds)
    return (image,)


def fail(image: Pictures, message: str) -> NoReturn:  # noqa: ARG001 -- the link puts it behind other nodes
    """Raise."""
    raise FakeFailure(message)


def hang(image: Pictures, context: NodeContext) -> NoReturn:  # noqa: ARG001 -- the link puts it behind other nodes
    """Never return, except by an interrupt."""
    while True:
        context.wait(LOOK_S)


NODE_CLASSES = (
    NodeClass(
        "FakeDelay",
        delay,
        (Input("image", "IMAGE"), Input("seconds", "FLOAT", {"default": 1.0, "min": 0.0, "max": 3600.0, "step": 0.01})),
        ("IMAGE",),
        category="fake",
    ),
    NodeClass(
        "FakeFail",
        fail,
        (Input("image", "IMAGE"), Input("message", "STRING", {"default": "failed on request"})),
        ("IMAGE",),
        category="fake",
    ),
    NodeClass("FakeHang", hang, (Input("image", "IMAGE"),), ("IMAGE",), category="fake"),
)
