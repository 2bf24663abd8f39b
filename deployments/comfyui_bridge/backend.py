"""One ComfyUI server that this replica drives: its connection, its health, and the prompts that it has from us.

Exactly one replica drives a server (a lease in the job store), so what the server's queue holds under our client ids and we do not know
was left by a replica that died: it is cancelled, because its jobs run elsewhere by now.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from deployments.comfyui_bridge.config import ComfyConfig
from deployments.comfyui_bridge.watch import PromptWatch
from deployments.comfyui_client.http import ComfyHttp, ServerInfo, ServerQueue
from deployments.comfyui_client.messages import Message, Picture
from deployments.comfyui_client.socket import EventSocket
from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.jobs.errors import BackendLost, ServiceError
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import BackendHealth, BackendSpec, JsonObject

log = get_logger(__name__)

STUCK = "a cancelled prompt does not stop"


class Changed(Protocol):
    """Hears that a backend may be another than before."""

    def __call__(self, *, worth_a_look: bool) -> None:
        """Take note."""


class Backend:
    """Hears its server and tells how it is. Implements :class:`deployments.comfyui_client.socket.Listener`."""

    def __init__(self, spec: BackendSpec, config: ComfyConfig, changed: Changed, live: set[str]) -> None:
        """Prepare; ``start`` connects.

        Args:
            spec: which server.
            config: patience.
            live: ids of all prompts that this replica follows, this server's and others'.
            changed: called when its health may have changed; with ``worth_a_look`` when only a look can tell.
        """
        self.spec = spec
        self.http = ComfyHttp(spec.name, spec.url, config.client)
        self.socket = EventSocket(spec.name, spec.url, config.client_id_prefix, config.client, self)
        self.draining = False
        self.surrendering = False
        self.used = 0  # prompts sent, or about to be
        self.chosen_at = 0.0
        self.model: str | None = None  # the checkpoint that was used last
        self.uploaded: dict[str, str] = {}  # inputs that lie on the server: our name -> the one that nodes load it by
        self._config = config
        self._changed = changed
        self._live = live
        self._watched: dict[str, PromptWatch] = {}
        self._trouble = "not looked at yet"
        self._info: ServerInfo | None = None
        self._descriptions: tuple[float, ObjectInfo] | None = None
        self._remaining: int | None = None
        self._idle_since: float | None = None  # since when prompts wait there and none runs
        self._speaks_of: str | None = None  # the prompt of the newest message that named one
        self._stuck: set[str] = set()  # prompts that were cancelled and do not leave
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect; needs a running event loop."""
        self.socket.start()

    async def close(self) -> None:
        """Disconnect. What still runs there goes on, and nobody of ours hears of it."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        await self.socket.close()
        await self.http.close()

    # Room.

    @property
    def healthy(self) -> bool:
        """Whether it answers, is heard, and its queue moves."""
        return not self._trouble

    @property
    def usable(self) -> bool:
        """Whether it may be sent another job, when there is room."""
        return self.healthy and not self.draining and not self.surrendering

    @property
    def has_room(self) -> bool:
        """Whether it may be sent another job now."""
        return self.usable and self.used < self.spec.in_flight

    def distrust(self, reason: str) -> None:
        """Send it nothing until it has been looked at again: it has just lost a prompt."""
        self._trouble = self._trouble or reason
        self._changed(worth_a_look=True)

    # What the socket hears.

    def on_message(self, message: Message) -> None:
        """See :class:`Listener`."""
        if message.type == "status":
            self._on_status(message.data)
            return
        if message.prompt_id is not None and message.prompt_id != self._speaks_of:
            self._end_of(self._speaks_of)
            self._speaks_of = message.prompt_id
        watch = self._watched.get(message.prompt_id or "")
        if watch is not None:
            watch.hear(message)

    def _end_of(self, prompt_id: str | None) -> None:
        """It speaks of another prompt: it runs one at a time, so nothing more comes about the one before."""
        watch = self._watched.get(prompt_id or "")
        if watch is not None and watch.current is not None:
            watch.end()

    def on_picture(self, picture: Picture) -> None:
        """See :class:`Listener`."""
        # Where the server does not say whose it is, it is of the prompt that it spoke of last, ours or not: it runs one at a time and
        # sends in order, and the pictures of a prompt without a client id go to every socket.
        watch = self._watched.get(picture.prompt_id or self._speaks_of or "")
        if watch is not None:
            watch.see(picture)

    def on_connection(self, *, connected: bool) -> None:
        """See :class:`Listener`."""
        log.info("backend socket", extra=fields(action="backend_socket", backend=self.spec.name, connected=connected))
        self._speaks_of = None
        self._descriptions = None  # it may have been restarted with other nodes or models
        self.uploaded.clear()
        if not connected:
            self._trouble = self._trouble or "the WebSocket is not connected"
        for watch in self._watched.values():
            watch.suspect()
        self._changed(worth_a_look=True)

    def _on_status(self, data: JsonObject) -> None:
        status = data.get("status")
        info = status.get("exec_info") if isinstance(status, dict) else None
        remaining = info.get("queue_remaining") if isinstance(info, dict) else None
        before, self._remaining = self._remaining, remaining if isinstance(remaining, int) else None
        if before is not None and self._remaining is not None and self._remaining < before:
            for watch in self._watched.values():  # something ended: told to every socket, so it is heard when an event of ours is lost
                if watch.current is not None:
                    watch.suspect()

    # Prompts.

    def watch(self, watch: PromptWatch) -> None:
        """Deliver to a watch what is heard of its prompt."""
        self._watched[watch.prompt_id] = watch
        self._live.add(watch.prompt_id)

    def unwatch(self, prompt_id: str) -> None:
        """Deliver no more."""
        self._watched.pop(prompt_id, None)
        self._live.discard(prompt_id)

    def hears(self, watch: PromptWatch) -> bool:
        """Whether events of this prompt can still arrive."""
        return self.socket.connected and self.socket.generation == watch.generation

    async def cancel(self, prompt_id: str) -> None:
        """Stop a prompt and wait until it has left the server's queue.

        One that does not leave makes the backend unhealthy until it does.
        """
        try:
            async with asyncio.timeout(self._config.interrupt_s):
                await self.http.cancel(prompt_id)
                pause_s = 0.02
                while prompt_id in await self.http.queue():
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, 0.5)
        except TimeoutError:
            self._stuck.add(prompt_id)
            self._trouble = STUCK
            log.warning("prompt stuck", extra=fields(action="prompt_stuck", backend=self.spec.name))
        except BackendLost:
            return  # a server that is gone computes nothing; one that comes back is cleaned before it is used

    # Health.

    def health(self) -> BackendHealth:
        """Return what was seen at the last look."""
        info = self._info
        return BackendHealth(
            healthy=self.healthy,
            reason=self._trouble,
            version=info.version if info else None,
            fake=bool(info and info.fake),
            in_flight=self.used,
            queue_remaining=self._remaining,
            model=self.model,
            checked_at=time.time(),
        )

    def look_soon(self) -> None:
        """Check its health, unless that is going on already; ``changed`` is called at the end."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look(), name=f"comfyui-look-{self.spec.name}")

    async def _look(self) -> None:
        """Check HTTP, WebSocket and whether the queue moves."""
        try:
            queue = await self.http.queue()
            if self._info is None or not self.healthy:
                self._info = await self.http.info()
            await self._cancel_left_behind(queue)
            trouble = self._trouble_of(queue)
        except ServiceError as error:
            trouble = str(error)
        if trouble != self._trouble:
            log.info("backend health", extra=fields(action="backend_health", backend=self.spec.name, healthy=not trouble, reason=trouble))
        self._trouble = trouble
        self._changed(worth_a_look=False)

    def _trouble_of(self, queue: ServerQueue) -> str:
        now = time.monotonic()
        self._stuck = {prompt_id for prompt_id in self._stuck if prompt_id in queue}
        waits_idle = bool(queue.pending) and not queue.running
        self._idle_since = (self._idle_since or now) if waits_idle else None
        if self._stuck:
            return STUCK
        if self._idle_since is not None and now - self._idle_since > self._config.stuck_s:
            return "prompts wait and none runs: its worker thread is dead, restart it"
        if not self.socket.connected:
            return "the WebSocket is not connected"
        return ""

    async def _cancel_left_behind(self, queue: ServerQueue) -> None:
        """Cancel what carries our name and nobody follows: left by a replica that died, or taken by the server after we had given up."""
        ours = f"{self._config.client_id_prefix}-"
        for prompt in (*queue.pending, *queue.running):  # in this order: one that waits would begin when the running one stops
            if (prompt.client_id or "").startswith(ours) and prompt.prompt_id not in self._live:
                log.info("prompt that nobody follows", extra=fields(action="prompt_left_behind", backend=self.spec.name))
                await (self.http.cancel(prompt.prompt_id) if prompt.prompt_id in self._stuck else self.cancel(prompt.prompt_id))

    async def descriptions(self, *, fresh: bool = False) -> ObjectInfo:
        """Return what nodes the server has, read again when it is old.

        Raises:
            BackendLost: the server does not answer.
        """
        now = time.monotonic()
        if fresh or self._descriptions is None or now - self._descriptions[0] > self._config.info_fresh_s:
            self._descriptions = (now, await asyncio.to_thread(ObjectInfo.of, await self.http.object_info()))
        return self._descriptions[1]
