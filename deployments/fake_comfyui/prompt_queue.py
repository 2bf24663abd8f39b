"""Prompts that wait and run, and the history of those that ended. In memory only, shared between the loop and the worker's thread."""

from __future__ import annotations

import copy
import threading
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from deployments.fake_comfyui.graph import Graph, JsonObject
from deployments.fake_comfyui.interrupt import Interrupt

HISTORY_LENGTH = 10_000


@dataclass(frozen=True, slots=True)
class QueuedPrompt:
    """A prompt that was accepted."""

    number: float  # smaller runs earlier
    prompt_id: str
    graph: Graph
    extra_data: JsonObject  # without secrets
    outputs: list[str]  # ids of the output nodes that are valid and wanted

    def to_json(self) -> list[object]:
        """Return the prompt as queue and history show it."""
        return [self.number, self.prompt_id, self.graph, self.extra_data, self.outputs]

    @property
    def rank(self) -> tuple[float, str]:
        """Its place in the queue."""
        return self.number, self.prompt_id


@dataclass(slots=True)
class Outcome:
    """What an execution left behind."""

    outputs: JsonObject = field(default_factory=dict)  # by node id
    meta: JsonObject = field(default_factory=dict)
    messages: list[list[object]] = field(default_factory=list)  # [event, data]
    succeeded: bool = True
    silenced: bool = False  # by a hazard: the client is not told of its end


class PromptQueue:
    """One lock over all.

    ``announce`` is called, with how many remain, whenever that number may have changed. ``vanishes`` is asked when a prompt's turn
    comes: a hazard may make it disappear, which nobody is told.
    """

    def __init__(self, interrupt: Interrupt, announce: Callable[[int], None], vanishes: Callable[[], bool]) -> None:
        self._interrupt = interrupt
        self._announce = announce
        self._vanishes = vanishes
        self._changed = threading.Condition(threading.RLock())
        self._waiting: list[QueuedPrompt] = []
        self._running: list[QueuedPrompt] = []
        self._history: dict[str, JsonObject] = {}
        self._counter = 0

    @property
    def remaining(self) -> int:
        """How many wait or run."""
        with self._changed:
            return len(self._waiting) + len(self._running)

    def take_number(self, *, front: bool) -> float:
        """Return the number of a prompt whose sender named none: counted up, and negative to get to the front."""
        with self._changed:
            number = self._counter
            self._counter += 1
        return -number if front else number

    def put(self, prompt: QueuedPrompt) -> bool:
        """Append a prompt; return whether another one of the same number and id was waiting already."""
        with self._changed:
            twin = any(other.rank == prompt.rank for other in self._waiting)
            insort(self._waiting, prompt, key=lambda queued: queued.rank)
            self._announce(self.remaining)
            self._changed.notify_all()
        return twin

    def take(self) -> QueuedPrompt | None:
        """Wait for the next prompt and mark it as running; return None when woken for another reason."""
        with self._changed:
            if not self._waiting and not self._interrupt.server_is_gone:
                self._changed.wait()
            if not self._waiting or self._interrupt.server_is_gone:
                return None
            prompt = self._waiting.pop(0)
            if self._vanishes():
                return None
            self._running.append(prompt)
            self._interrupt.clear()
            self._announce(self.remaining)
            return prompt

    def finish(self, prompt: QueuedPrompt, outcome: Outcome) -> None:
        """Move a prompt from the running ones to the history."""
        entry = {
            "prompt": prompt.to_json(),
            "outputs": outcome.outputs,
            "status": {
                "status_str": "success" if outcome.succeeded else "error",
                "completed": outcome.succeeded,
                "messages": outcome.messages,
            },
            "meta": outcome.meta,
        }
        with self._changed:
            self._running.remove(prompt)
            if len(self._history) > HISTORY_LENGTH:
                del self._history[next(iter(self._history))]
            self._history[prompt.prompt_id] = entry
            self._announce(self.remaining)

    def wake(self) -> None:
        """Let ``take`` return."""
        with self._changed:
            self._changed.notify_all()

    def snapshot(self) -> tuple[list[QueuedPrompt], list[QueuedPrompt]]:
        """Return the running and the waiting prompts."""
        with self._changed:
            return list(self._running), list(self._waiting)

    def clear(self) -> None:
        """Delete all that wait."""
        with self._changed:
            self._waiting.clear()
            self._announce(self.remaining)

    def delete(self, prompt_id: str) -> bool:
        """Delete a waiting prompt; return whether there was one."""
        with self._changed:
            for prompt in self._waiting:
                if prompt.prompt_id == prompt_id:
                    self._waiting.remove(prompt)
                    self._announce(self.remaining)
                    return True
        return False

    def interrupt(self, prompt_id: str | None = None) -> bool:
        """Interrupt what runs, or only if it is ``prompt_id``; return whether something was interrupted."""
        with self._changed:
            if not any(prompt_id in {None, prompt.prompt_id} for prompt in self._running):
                return False
            self._interrupt.interrupt()
            return True

    def history(self, max_items: int | None = None, offset: int | None = None) -> JsonObject:
        """Return entries by prompt id, oldest first: the newest ``max_items``, or those from ``offset`` on."""
        with self._changed:
            start = offset if offset is not None and offset >= 0 else max(0, len(self._history) - (max_items or len(self._history)))
            stop = None if max_items is None else start + max_items
            return dict(islice(self._history.items(), start, stop))

    def find_history(self, prompt_id: str) -> JsonObject | None:
        """Return a copy of one entry."""
        with self._changed:
            return copy.copy(self._history.get(prompt_id))

    def delete_history(self, prompt_id: str) -> None:
        """Forget one entry; an unknown one is no error."""
        with self._changed:
            self._history.pop(prompt_id, None)

    def clear_history(self) -> None:
        """Forget all that ended."""
        with self._changed:
            self._history.clear()
