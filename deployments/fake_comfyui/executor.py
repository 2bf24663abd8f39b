"""Executes one prompt: its nodes in order, each unless cached, telling the client all the way. Runs in the worker's thread."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.fake_comfyui.comfy_node import NodeClass, Shown, Site
from deployments.fake_comfyui.graph import ExecutionOrder, Graph, JsonObject, is_link
from deployments.fake_comfyui.interrupt import Interrupt, Interrupted, ServerGone
from deployments.fake_comfyui.messages import PictureFormat, encode_json, encode_picture, encode_text
from deployments.fake_comfyui.node_cache import CachedResult, NodeCache
from deployments.fake_comfyui.pictures import Picture, encode_png
from deployments.fake_comfyui.progress import PromptProgress
from deployments.fake_comfyui.prompt_queue import Outcome, QueuedPrompt
from deployments.fake_comfyui.socket_hub import SocketHub


@dataclass(slots=True)
class Tally:
    """What was executed since the server object was made, over all restarts."""

    prompt_ids: list[str] = field(default_factory=list)  # in the order of their execution
    by_class: Counter[str] = field(default_factory=Counter)  # nodes that ran, cached ones not


class Executor:
    """Keeps the cache and the position between prompts. ``die`` is what the hazard ``crash_on_prompt`` calls."""

    def __init__(
        self,
        classes: Mapping[str, NodeClass],
        site: Site,
        hub: SocketHub,
        interrupt: Interrupt,
        tally: Tally,
        die: Callable[[], object],
    ) -> None:
        self.classes = classes
        self.site = site
        self.hub = hub
        self.interrupt = interrupt
        self.tally = tally
        self.die = die
        self.cache = NodeCache()
        self.client_id: str | None = None  # of the last prompt, also after its end
        self.current_node: str | None = None

    def execute(self, queued: QueuedPrompt) -> Outcome:
        """Execute a prompt to its end, good or bad.

        Raises:
            ServerGone: the server went away meanwhile.
        """
        self.client_id = queued.extra_data.get("client_id")
        self.tally.prompt_ids.append(queued.prompt_id)
        try:
            return _Execution(self, queued).run()
        finally:
            self.current_node = None


class _Execution:
    """One prompt on its way through the executor."""

    def __init__(self, executor: Executor, queued: QueuedPrompt) -> None:
        self._executor = executor
        self._queued = queued
        self._graph = queued.graph
        self._cache = executor.cache
        self._executed: list[str] = []
        self._outcome = Outcome()
        method = queued.extra_data.get("preview_method") or executor.site.config.preview_method
        self._progress = PromptProgress(executor.hub, queued.prompt_id, executor.client_id, previews=method != "none")

    def run(self) -> Outcome:
        self._tell("execution_start", {})
        self._cache.open(self._graph, self._fingerprint)
        self._tell("execution_cached", {"nodes": [node_id for node_id in self._graph if self._is_cached(node_id)]})
        self._maybe_crash()
        order = ExecutionOrder(self._graph, self._queued.outputs, self._is_cached, self._is_output)
        while (node_id := order.next()) is not None:
            if not self._run_node(node_id):
                self._outcome.succeeded = False
                break
            order.done(node_id)
        else:
            self._tell_success()
        self._collect_outputs()
        return self._outcome

    def _run_node(self, node_id: str) -> bool:
        """Execute a node, or tell of its cached result; return whether the prompt may go on."""
        cached = self._cache.get(node_id)
        if cached is not None:
            self._maybe_lose_files(cached)
            self._tell_owner("executed", node_id, output=cached.ui)
            self._progress.finish(node_id)
            return True
        inputs: JsonObject = {}
        try:
            self._progress.begin(node_id)
            inputs = self._gather_inputs(node_id)
            self._executor.current_node = node_id
            self._tell_owner("executing", node_id)
            self._executor.interrupt.check()
            self._compute(node_id, inputs)
        except ServerGone:
            raise
        except Interrupted:
            self._tell_interrupted(node_id)
            return False
        except Exception as error:  # noqa: BLE001 -- whatever a node raises ends its prompt, not the server
            self._tell_error(node_id, error, inputs)
            return False
        self._progress.finish(node_id)
        self._executed.append(node_id)
        return True

    def _compute(self, node_id: str, inputs: JsonObject) -> None:
        node_class = self._class_of(node_id)
        if node_class.wants_context:
            inputs = inputs | {"context": _Context(self._executor, self._queued, self._progress, node_id)}
        self._executor.tally.by_class[node_class.name] += 1
        result = node_class.run(**inputs)
        ui = result.ui if isinstance(result, Shown) else {}
        self._cache.put(node_id, CachedResult(() if isinstance(result, Shown) else result, ui or None))
        if ui:
            self._tell_owner("executed", node_id, output=ui)

    def _gather_inputs(self, node_id: str) -> JsonObject:
        """Return the inputs that the class knows, links replaced by what they bring."""
        given = self._graph[node_id]["inputs"]
        inputs: JsonObject = {}
        for name in self._class_of(node_id).by_name:
            if name in given:
                value = given[name]
                inputs[name] = self._value_of(value) if is_link(value) else value
        return inputs

    def _value_of(self, link: list[Any]) -> object:  # [node id, slot], validated
        result = self._cache.get(link[0])
        assert result is not None, "the order runs sources first"
        return result.values[int(link[1])]

    def _fingerprint(self, node_id: str) -> str | None:
        """Return what distinguishes a node beyond its inputs; None if it must run each time or cannot be read."""
        node_class = self._executor.classes.get(self._graph[node_id].get("class_type"))
        if node_class is None or node_class.fingerprint is None:
            return node_id if node_class is not None and "unique_id" in node_class.hidden else ""
        try:
            return node_class.fingerprint(site=self._executor.site, **self._gather_values(node_id)) or None
        except (OSError, TypeError):  # the file is missing or a link stands where a name should: not an input to cache by
            return None

    def _gather_values(self, node_id: str) -> JsonObject:
        known = self._class_of(node_id).by_name
        return {name: value for name, value in self._graph[node_id]["inputs"].items() if name in known and not is_link(value)}

    def _collect_outputs(self) -> None:
        """Put into the outcome what each node shows, cached and earlier ones of a failed prompt included."""
        for node_id in self._graph:
            cached = self._cache.get(node_id)
            if cached is not None and cached.ui is not None:
                self._outcome.outputs[node_id] = cached.ui
                self._outcome.meta[node_id] = {
                    "node_id": node_id,
                    "display_node": node_id,
                    "parent_node": None,
                    "real_node_id": node_id,
                }

    def _class_of(self, node_id: str) -> NodeClass:
        return self._executor.classes[self._graph[node_id]["class_type"]]

    def _is_cached(self, node_id: str) -> bool:
        return self._cache.get(node_id) is not None

    def _is_output(self, node_id: str) -> bool:
        return self._class_of(node_id).is_output

    def _maybe_crash(self) -> None:
        if self._executor.site.dice.hits("crash_on_prompt", self._executor.site.config.hazards.crash_on_prompt):
            self._executor.die()
            raise ServerGone

    def _maybe_lose_files(self, cached: CachedResult) -> None:
        site = self._executor.site
        if cached.ui is not None and site.dice.hits("cached_outputs_missing", site.config.hazards.cached_outputs_missing):
            site.files.delete_shown(cached.ui)

    def _tell_owner(self, event: str, node_id: str, **data: object) -> None:
        """Send what only the owner of the prompt learns; without a client id there is none."""
        if self._executor.client_id is not None:
            body = {"node": node_id, "display_node": node_id, **data, "prompt_id": self._queued.prompt_id}
            self._executor.hub.post(encode_json(event, body), self._executor.client_id)

    def _tell(self, event: str, data: JsonObject, *, to_all: bool = False, send: bool = True) -> None:
        """Write an event into the history and send it to the owner; ``to_all`` where there is none."""
        message = {**data, "prompt_id": self._queued.prompt_id, "timestamp": int(time.time() * 1000)}
        self._outcome.messages.append([event, message])
        if send and (self._executor.client_id is not None or to_all):
            self._executor.hub.post(encode_json(event, message), self._executor.client_id)

    def _tell_success(self) -> None:
        site = self._executor.site
        self._outcome.silenced = site.dice.hits("lose_success_event", site.config.hazards.lose_success_event)
        self._tell("execution_success", {}, send=not self._outcome.silenced)

    def _tell_interrupted(self, node_id: str) -> None:
        data = {"node_id": node_id, "node_type": self._class_of(node_id).name, "executed": list(self._executed)}
        self._tell("execution_interrupted", data, to_all=True)

    def _tell_error(self, node_id: str, error: Exception, inputs: JsonObject) -> None:
        data = {
            "node_id": node_id,
            "node_type": self._class_of(node_id).name,
            "executed": list(self._executed),
            "exception_message": f"{error}\n",
            "exception_type": type_name(type(error)),
            "traceback": traceback.format_tb(error.__traceback__),
            "current_inputs": {name: [_shorten(value)] for name, value in inputs.items()},
            "current_outputs": [other for other in self._graph if self._is_cached(other)],
        }
        self._tell("execution_error", data)


@dataclass(frozen=True, slots=True)
class _Context:
    """What a running node sees; implements ``NodeContext``."""

    executor: Executor
    queued: QueuedPrompt
    progress: PromptProgress
    node_id: str

    @property
    def graph(self) -> Graph:
        return self.queued.graph

    @property
    def extra_data(self) -> JsonObject:
        return self.queued.extra_data

    @property
    def site(self) -> Site:
        return self.executor.site

    def wait(self, seconds: float) -> None:
        self.executor.interrupt.wait(seconds)

    def report(self, value: int, total: int, preview: Callable[[], Picture] | None = None) -> None:
        self.executor.interrupt.check()
        self.progress.advance(self.node_id, value, total, preview)

    def send_picture(self, picture: Picture, value: int, total: int) -> None:
        self.report(value, total)
        self.executor.hub.post(encode_picture(encode_png(picture), PictureFormat.PNG), self.executor.client_id)

    def send_text(self, text: str) -> None:
        if self.executor.client_id is not None:
            self.executor.hub.post(encode_text(self.node_id, text), self.executor.client_id)


def type_name(kind: type[BaseException]) -> str:
    """Return a type's name with its module, as ComfyUI writes it."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _shorten(value: object) -> object:
    return value if value is None or isinstance(value, int | float | str) else str(value)
