"""What nodes the backends have, as the ingress needs it to check and convert a workflow before anything is queued."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from deployments.comfyui_client.config import ClientConfig
from deployments.comfyui_client.http import ComfyHttp
from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.jobs.errors import BackendLost
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import BackendState
from deployments.jobs.ports import BackendRegistry

log = get_logger(__name__)

LIST_FRESH_S = 1.0  # how long the list of backends is trusted: every submit asks for it
READ_S = 5.0  # a busy server takes a tenth of it
FAILURE_FRESH_S = 5.0  # how long a backend that did not answer is not asked again: a submit must not wait for it each time


class Descriptions:
    """Reads ``/object_info`` of the backends and keeps it for a while. A backend that is slow or away costs nobody more than ``READ_S``."""

    def __init__(self, registry: BackendRegistry, client: ClientConfig, fresh_s: float) -> None:
        self._registry = registry
        self._client = client
        self._fresh_s = fresh_s
        self._listed: tuple[float, tuple[BackendState, ...]] = (-LIST_FRESH_S, ())
        self._known: dict[str, _Known] = {}  # by URL

    async def backends(self) -> tuple[BackendState, ...]:
        """Return all backends, of at most a second ago."""
        now = time.monotonic()
        if now - self._listed[0] > LIST_FRESH_S:
            self._listed = (now, await self._registry.backends())
            urls = {state.spec.url for state in self._listed[1]}
            self._known = {url: known for url, known in self._known.items() if url in urls}
        return self._listed[1]

    async def info(self, tags: Sequence[str] = ()) -> ObjectInfo | None:
        """Return what a backend with these tags has; None when none answers.

        Healthy ones are asked first. Backends with the same tags are taken to have the same nodes; their models may differ, and the one
        that is chosen in the end has the last word.
        """
        fitting = [state for state in await self.backends() if set(tags) <= set(state.spec.tags)]
        fitting.sort(key=lambda state: (not (state.health and state.health.healthy), state.draining, state.spec.name))
        for state in fitting:
            found = await self._of(state)
            if found is not None:
                return found
        return None

    async def _of(self, state: BackendState) -> ObjectInfo | None:
        known = self._known.setdefault(state.spec.url, _Known())
        async with known.lock:  # so that a burst of submits reads it once
            if time.monotonic() >= known.read_again_at:
                found = await self._read(state)
                # What was known stays, when the backend only stalls: nodes seldom change.
                known.info = found or known.info
                known.read_again_at = time.monotonic() + (self._fresh_s if found else FAILURE_FRESH_S)
            return known.info

    async def _read(self, state: BackendState) -> ObjectInfo | None:
        http = ComfyHttp(state.spec.name, state.spec.url, self._client)
        try:
            async with asyncio.timeout(READ_S):
                return await asyncio.to_thread(ObjectInfo.of, await http.object_info())
        except (BackendLost, TimeoutError) as error:
            log.info("backend not described", extra=fields(action="backend_not_described", backend=state.spec.name, reason=repr(error)))
            return None
        finally:
            await http.close()


@dataclass(slots=True)
class _Known:
    """What one backend is known to have."""

    info: ObjectInfo | None = None
    read_again_at: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
