"""The one thread that executes prompts, one after the other."""

from __future__ import annotations

import threading

from deployments.fake_comfyui.executor import Executor
from deployments.fake_comfyui.interrupt import ServerGone
from deployments.fake_comfyui.messages import encode_json
from deployments.fake_comfyui.prompt_queue import PromptQueue, QueuedPrompt
from deployments.jobs.logs import fields, get_logger

JOIN_TIMEOUT_S = 5.0  # a node that computes cannot be stopped, only left behind: the thread is a daemon

log = get_logger(__name__)


class Worker:
    """Takes prompts from the queue until the server is gone."""

    def __init__(self, queue: PromptQueue, executor: Executor) -> None:
        self._queue = queue
        self._executor = executor
        self._free_asked = False
        self._thread = threading.Thread(target=self._work, name="fake-comfyui", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def free(self) -> None:
        """Forget all cached results before the next prompt."""
        self._free_asked = True
        self._queue.wake()

    def end(self) -> None:
        """Stop at the next look at the interrupt."""
        self._executor.interrupt.end()
        self._queue.wake()

    def join(self) -> None:
        """Wait for the thread's end."""
        self._thread.join(JOIN_TIMEOUT_S)

    def _work(self) -> None:
        try:
            while not self._executor.interrupt.server_is_gone:
                prompt = self._queue.take()
                if self._free_asked:
                    self._free_asked = False
                    self._executor.cache.clear()
                if prompt is not None:
                    self._serve(prompt)
        except ServerGone:
            return

    def _serve(self, prompt: QueuedPrompt) -> None:
        site = self._executor.site
        outcome = self._executor.execute(prompt)
        self._executor.interrupt.wait_for_end(site.dice.up_to("late_history_s", site.config.hazards.late_history_s))
        self._queue.finish(prompt, outcome)
        client_id = self._executor.client_id
        if client_id is not None and not outcome.silenced:
            self._executor.hub.post(encode_json("executing", {"node": None, "prompt_id": prompt.prompt_id}), client_id)
        log.info("prompt executed", extra=fields(action="prompt_executed", prompt_id=prompt.prompt_id, succeeded=outcome.succeeded))
