"""A fake backend as the work of a whole process."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence

from deployments.fake_comfyui.config import FakeConfig, Hazards
from deployments.fake_comfyui.server import FakeComfyUI


async def serve_fake(config: FakeConfig) -> None:
    """Serve until SIGTERM or Ctrl-C. Says so on standard output once it listens, in ComfyUI's words: others wait for them.

    Raises:
        OSError: the port is taken.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with FakeComfyUI(config) as fake:
        sys.stdout.write(f"To see the GUI go to: {fake.url}\n")
        sys.stdout.flush()
        await stop.wait()


def parse_hazards(pairs: Sequence[str]) -> Hazards:
    """Return hazards from pairs such as ``late_history_s=0.2``; a name alone switches on.

    Raises:
        ValidationError: an unknown name or a value out of range.
    """
    return Hazards.model_validate({name: value or "true" for name, _, value in (pair.partition("=") for pair in pairs)})
