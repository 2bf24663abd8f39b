"""One prompt on one backend, from POST to its end.

Events are hints. What counts is read from the server, in an order that leaves no gap: a prompt that is in the queue has not ended; one
that is not has an entry in the history (the server moves it from one to the other in one step), unless the server has forgotten it. So
the history is read after the queue, and twice, before a prompt counts as lost. Reading the history first, the other way round, reports
jobs as gone that end between the two reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from uuid import uuid4

from deployments.comfyui_bridge.backend import Backend
from deployments.comfyui_bridge.config import ComfyConfig
from deployments.comfyui_bridge.watch import PromptWatch
from deployments.comfyui_client.http import HistoryEntry, PromptRefused
from deployments.comfyui_client.messages import Picture
from deployments.engines.comfyui.refusals import problems_of_answer
from deployments.jobs.errors import BackendLost, WorkflowInvalid
from deployments.jobs.model import JsonObject, Progress, Stage
from deployments.jobs.ports import PreviewPicture

EAGER_S = 0.02  # first pause after a hint that came before the end; doubles, up to ``ComfyConfig.poll_s``


class PromptRun:
    """Sends a prompt and follows it. ``prompt_id`` is made here, before anything is sent, and never used again."""

    def __init__(self, backend: Backend, graph: JsonObject, config: ComfyConfig, *, previews: bool, allow_node_errors: bool) -> None:
        self.prompt_id = str(uuid4())  # the canonical form: newer servers refuse any other
        self.pictures: list[tuple[str, Picture]] = []
        self._backend = backend
        self._graph = graph
        self._config = config
        self._previews = previews
        self._allow_node_errors = allow_node_errors
        self._sent = False
        self._entry: HistoryEntry | None = None
        # What is sent while the socket still connects is heard by nobody.
        self._watch = PromptWatch(self.prompt_id, graph, backend.socket.generation if backend.socket.connected else -1)
        self._pause_s = EAGER_S
        self._unreachable_since: float | None = None

    @property
    def entry(self) -> HistoryEntry:
        """How it ended; there once ``follow`` has ended by itself."""
        assert self._entry is not None, "follow() comes first"
        return self._entry

    @property
    def socket_nodes(self) -> frozenset[str]:
        """The nodes whose pictures come over the WebSocket alone."""
        return self._watch.socket_nodes

    @property
    def heard_all(self) -> bool:
        """Whether every picture that was sent over the WebSocket alone has arrived: the socket was read to the prompt's end."""
        return self._backend.hears(self._watch) and self._watch.over and not self._watch.overflowed

    async def follow(self) -> AsyncGenerator[Progress | PreviewPicture, None]:
        """Send it and yield what happens until it has ended. Closing the generator stops the prompt on the server, and no other.

        Raises:
            WorkflowInvalid: the server refuses it, or would leave out an output and that was not allowed.
            BackendLost: the server has forgotten it, or does not answer.
        """
        self._backend.watch(self._watch)
        try:
            await self._submit()
            async for item in self._until_ended():
                yield item
            await self._hear_the_rest()
            self.pictures = self._watch.pictures
        finally:
            self._backend.unwatch(self.prompt_id)
            if self._sent and self._entry is None:
                await self._backend.cancel(self.prompt_id)

    async def _submit(self) -> None:
        extra = {"preview_method": "auto" if self._previews else "none"}
        self._sent = True  # whatever becomes of the answer: it may run, and lack outputs that the answer would have named
        try:
            accepted = await self._backend.http.submit(self._graph, self.prompt_id, self._backend.socket.client_id, extra)
        except PromptRefused as refused:
            self._sent = False
            problems = problems_of_answer(refused.body, self._graph)
            raise WorkflowInvalid("ComfyUI refuses the workflow: see the nodes", problems) from None
        if accepted.node_errors and not self._allow_node_errors:
            problems = problems_of_answer({"node_errors": accepted.node_errors}, self._graph)
            raise WorkflowInvalid("ComfyUI would leave out an output of the workflow: see the nodes", problems)

    async def _until_ended(self) -> AsyncGenerator[Progress | PreviewPicture, None]:
        shown: Progress | None = None
        while True:
            should_look = await self._wait()
            if self._watch.preview is not None:
                picture, self._watch.preview = self._watch.preview, None
                yield PreviewPicture(picture.media_type, picture.data, picture.comfy_node or self._watch.current)
            if should_look and await self._has_ended():
                return
            progress = self._progress()
            if progress != shown:
                shown = progress
                yield progress

    async def _wait(self) -> bool:
        """Wait for news, or until there has been none for too long; return whether the server should be asked."""
        if self._watch.hint:
            await asyncio.sleep(self._pause_s if self._pause_s > EAGER_S else 0)  # looked at before, and found running
            return True
        heard = await self._hear()
        self._pause_s = EAGER_S
        return not heard or self._watch.hint

    async def _hear(self) -> bool:
        """Wait for news; return whether there was any before the server should be asked all the same."""
        news, longest = self._watch.news, self._config.watchdog_s if self._backend.hears(self._watch) else self._config.poll_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await news.wait()
        heard = news.is_set()
        news.clear()
        return heard

    async def _has_ended(self) -> bool:
        hints = self._watch.hints
        try:
            ended = await self._look()
        except _Forgotten:
            raise
        except BackendLost:
            now = time.monotonic()
            self._unreachable_since = now if self._unreachable_since is None else self._unreachable_since
            if now - self._unreachable_since > self._config.unreachable_s:
                raise
            await asyncio.sleep(self._config.poll_s)
            return False
        self._unreachable_since = None
        # A hint is followed for a while, with longer and longer pauses: it may have come early, or have been about another prompt.
        fresh = self._watch.hints != hints
        self._pause_s = EAGER_S if fresh else min(self._pause_s * 2, self._config.poll_s)
        self._watch.hint = fresh or (self._watch.hint and self._pause_s < self._config.poll_s)
        return ended

    async def _look(self) -> bool:
        http = self._backend.http
        self._entry = await http.history(self.prompt_id)  # an entry is the truth whenever it is there
        if self._entry is None:
            if self.prompt_id in await http.queue():
                return False
            self._entry = await http.history(self.prompt_id)
        if self._entry is None:
            await asyncio.sleep(self._config.settle_s)
            self._entry = await http.history(self.prompt_id)
        if self._entry is None:
            raise _Forgotten(f"backend {self._backend.spec.name} has forgotten the prompt: it was restarted, or somebody removed it")
        return True

    async def _hear_the_rest(self) -> None:
        """Wait for pictures that are on their way: the history may be there long before a stalled socket was read to the end."""
        watch = self._watch
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.watchdog_s):
                while watch.socket_nodes and self._backend.hears(watch) and not watch.over:
                    watch.news.clear()
                    await watch.news.wait()

    def _progress(self) -> Progress:
        known, silent_s = self._watch.progress, time.monotonic() - self._watch.heard_at
        # Progress that never changes would be taken for a stall, and the server has just said that it is at it.
        silence = f", silent for {silent_s:.0f} s" if silent_s >= self._config.watchdog_s else ""
        return Progress(
            Stage.COMPUTING,
            known.fraction,
            message=f"{known.title or 'waiting at the backend'}{silence}",
            comfy_node=known.comfy_node,
            comfy_node_title=known.title,
            step=known.step,
            steps=known.steps,
        )


class _Forgotten(BackendLost):
    """A look that is sure: no use in looking again."""
