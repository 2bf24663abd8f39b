"""Progress of work that tells none of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

from deployments.jobs.model import Progress, Stage

SIGN_OF_LIFE_S = 5.0  # between two of them: far below what counts as a stall


async def signs_of_life(work: asyncio.Task[Any], fraction: float, message: str) -> AsyncGenerator[Progress, None]:
    """Yield progress while a transfer takes its time, or the job would be taken for stalled; stop it when nobody waits any more."""
    began = time.monotonic()
    try:
        while not (await asyncio.wait({work}, timeout=SIGN_OF_LIFE_S))[0]:
            yield Progress(Stage.COMPUTING, fraction, message=f"{message}, {time.monotonic() - began:.0f} s")
    finally:
        if not work.done():
            work.cancel()
            await asyncio.wait({work})
