"""One life of the server, from start to stop or crash: its queue, cache and sockets die with it."""

from __future__ import annotations

from collections.abc import Callable

from deployments.fake_comfyui.comfy_node import Site
from deployments.fake_comfyui.dice import Dice
from deployments.fake_comfyui.executor import Executor, Tally
from deployments.fake_comfyui.graph import JsonObject
from deployments.fake_comfyui.interrupt import Interrupt
from deployments.fake_comfyui.messages import Message, encode_json
from deployments.fake_comfyui.node_library import NODE_CLASSES
from deployments.fake_comfyui.prompt_queue import PromptQueue
from deployments.fake_comfyui.socket_hub import SocketHub
from deployments.fake_comfyui.worker import Worker


class Backend:
    """What the routes work on."""

    def __init__(self, site: Site, dice: Dice, tally: Tally, die: Callable[[], object]) -> None:
        hazards = site.config.hazards
        self.site = site
        self.classes = NODE_CLASSES
        self.features: JsonObject = {"supports_preview_metadata": True, "max_upload_size": site.config.max_upload_bytes}
        self.hub = SocketHub(hazards, dice, self.features)
        interrupt = Interrupt()
        self.queue = PromptQueue(interrupt, self._announce, lambda: dice.hits("silent_pending_delete", hazards.silent_pending_delete))
        self._executor = Executor(self.classes, site, self.hub, interrupt, tally, die)
        self.worker = Worker(self.queue, self._executor)

    @property
    def status(self) -> JsonObject:
        """How many prompts remain, as ``GET /prompt`` and the status messages say it."""
        return _status(self.queue.remaining)

    def greet(self, client_id: str) -> list[Message]:
        """Return the first messages of a new socket; the owner of the running prompt is told where it is."""
        messages: list[Message] = [encode_json("status", {"status": self.status, "sid": client_id})]
        if self._executor.client_id == client_id and self._executor.current_node is not None:
            messages.append(encode_json("executing", {"node": self._executor.current_node}))
        return messages

    async def end(self, *, abruptly: bool) -> None:
        """Stop the worker and close the sockets."""
        self.worker.end()
        await self.hub.close(abruptly=abruptly)

    def _announce(self, remaining: int) -> None:
        self.hub.post(encode_json("status", {"status": _status(remaining)}), None)


def _status(remaining: int) -> JsonObject:
    return {"exec_info": {"queue_remaining": remaining}}
