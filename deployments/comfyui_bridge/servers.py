"""What the ComfyUI servers say when a client asks all of them: joined, and without what is nobody's business."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from deployments.comfyui_bridge.descriptions import Descriptions
from deployments.comfyui_client.config import ClientConfig
from deployments.comfyui_client.http import ComfyHttp
from deployments.engines.comfyui.object_info import without_files
from deployments.jobs.errors import BackendLost, BackendUnavailable
from deployments.jobs.model import BackendState, JsonObject

Answer = TypeVar("Answer")

ASK_S = 5.0  # a busy server takes a tenth of it
PROBE_S = 2.0  # a client waits for it before it is told that nobody is there

# Never argv, which names folders and options, nor anything else that a custom node may add.
SYSTEM_KEYS = ("os", "ram_total", "ram_free", "comfyui_version", "python_version", "pytorch_version", "embedded_python")
DEVICE_KEYS = ("name", "type", "index", "vram_total", "vram_free", "torch_vram_total", "torch_vram_free")


@dataclass(frozen=True, slots=True)
class ServerStats:
    """What one server says of its machine."""

    name: str
    healthy: bool  # as the bridge replica that drives it sees it
    system: JsonObject  # of SYSTEM_KEYS; empty when it does not answer
    devices: tuple[JsonObject, ...]  # of DEVICE_KEYS
    error: str | None = None


class ComfyServers:
    """Asks every server at once. One that is slow or away is left out, after ``ASK_S`` at the latest."""

    def __init__(self, descriptions: Descriptions, client: ClientConfig, *, starts_own: bool = False) -> None:
        """Take the parts.

        Args:
            descriptions: knows the servers.
            client: time-outs.
            starts_own: replicas start servers for themselves, so that there need not be one now.
        """
        self._descriptions = descriptions
        self._client = client
        self._starts_own = starts_own

    async def system_stats(self) -> tuple[ServerStats, ...]:
        """Return what each server says of its machine."""
        return tuple(_to_stats(state, answer) for state, answer in await self._ask(ComfyHttp.system_stats))

    async def object_info(self) -> JsonObject:
        """Return ComfyUI's own description of its nodes, of the first server that answers, without the names of input files.

        Raises:
            BackendUnavailable: none does.
        """
        states = await self._descriptions.backends()
        for state in sorted(states, key=lambda state: (not _is_healthy(state), state.draining, state.spec.name)):
            answer = await self._ask_one(state, ComfyHttp.object_info, ASK_S)
            if answer is not None:
                return without_files(answer)
        raise _nobody()

    async def model_folders(self) -> tuple[str, ...]:
        """Return the folders of models, over all servers.

        Raises:
            BackendUnavailable: none answers.
        """
        return await self._names(ComfyHttp.model_folders)

    async def models(self, folder: str) -> tuple[str, ...] | None:
        """Return the models of a folder, over all servers that have it; None when none has.

        Raises:
            BackendUnavailable: none answers.
        """
        if folder not in await self.model_folders():  # so that nothing of a client's becomes a path
            return None
        return await self._names(lambda http: http.models(folder))

    async def embeddings(self) -> tuple[str, ...]:
        """Return the embeddings, over all servers.

        Raises:
            BackendUnavailable: none answers.
        """
        return await self._names(ComfyHttp.embeddings)

    async def free(self, *, unload_models: bool, free_memory: bool) -> int:
        """Have all servers let go of models or results; return how many took it.

        Raises:
            BackendUnavailable: none did.
        """

        async def tell(http: ComfyHttp) -> bool:
            await http.free(unload_models=unload_models, free_memory=free_memory)
            return True

        return len(_answered(await self._ask(tell)))

    async def reachable(self, patience_s: float) -> bool:
        """Whether a job that is accepted now may be expected to run.

        So it may while a server is healthy, or was within ``patience_s``, or would be started for it.
        """
        states = await self._descriptions.backends()
        if not states:
            return self._starts_own
        if any(_is_healthy(state) or state.unhealthy_s < patience_s for state in states):
            return True
        # What nobody has looked at is asked here: a pool that has just started or has scaled to zero reports nothing.
        not_seen = [state for state in states if state.health is None or state.health.version is None]
        return any(answer is not None for _, answer in await self._ask(ComfyHttp.info, not_seen, PROBE_S))

    async def _names(self, question: Callable[[ComfyHttp], Awaitable[tuple[str, ...]]]) -> tuple[str, ...]:
        return tuple(sorted(set[str]().union(*_answered(await self._ask(question)))))

    async def _ask(
        self, question: Callable[[ComfyHttp], Awaitable[Answer]], states: Iterable[BackendState] | None = None, patience_s: float = ASK_S
    ) -> list[tuple[BackendState, Answer | None]]:
        asked = list(await self._descriptions.backends() if states is None else states)
        answers = await asyncio.gather(*(self._ask_one(state, question, patience_s) for state in asked))
        return list(zip(asked, answers, strict=True))

    async def _ask_one(self, state: BackendState, question: Callable[[ComfyHttp], Awaitable[Answer]], patience_s: float) -> Answer | None:
        http = ComfyHttp(state.spec.name, state.spec.url, self._client)
        try:
            async with asyncio.timeout(patience_s):
                return await question(http)
        except (BackendLost, TimeoutError):
            return None
        finally:
            await http.close()


def _answered(answers: Iterable[tuple[BackendState, Answer | None]]) -> list[Answer]:
    found = [answer for _, answer in answers if answer is not None]
    if not found:
        raise _nobody()
    return found


def _nobody() -> BackendUnavailable:
    return BackendUnavailable("no ComfyUI server answers now: try again later")


def _is_healthy(state: BackendState) -> bool:
    return bool(state.health and state.health.healthy)


def _to_stats(state: BackendState, answer: JsonObject | None) -> ServerStats:
    name, healthy = state.spec.name, _is_healthy(state)
    if answer is None:
        return ServerStats(name, healthy, {}, (), "does not answer")
    devices = answer.get("devices")
    shown = tuple(_picked(device, DEVICE_KEYS) for device in devices) if isinstance(devices, list) else ()
    return ServerStats(name, healthy, _picked(answer.get("system"), SYSTEM_KEYS), shown)


def _picked(values: object, keys: tuple[str, ...]) -> JsonObject:
    given = values if isinstance(values, dict) else {}
    return {key: given[key] for key in keys if isinstance(given.get(key), str | int | float | bool)}
