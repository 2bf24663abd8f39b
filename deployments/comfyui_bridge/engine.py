"""The engine that computes nothing itself: it has a ComfyUI server run the graph, and brings everything in and out."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from deployments.comfyui_bridge.backend import Backend
from deployments.comfyui_bridge.config import ComfyConfig
from deployments.comfyui_bridge.fleet import Fleet
from deployments.comfyui_bridge.inputs import send_input
from deployments.comfyui_bridge.outputs import OutputTaker
from deployments.comfyui_bridge.prompt import PromptRun
from deployments.comfyui_bridge.stored_spec import StoredSpec
from deployments.comfyui_client.http import HistoryEntry
from deployments.engines.comfyui.bind import fill_choices
from deployments.engines.comfyui.graph import PromptGraph, title_of
from deployments.engines.comfyui.outputs import checkpoint_of, count_refused, fresh_prefix, list_outputs
from deployments.engines.media.limits import MediaLimits
from deployments.jobs.errors import (
    BackendLost,
    BackendUnavailable,
    ComfyNodeFailed,
    ComfyOutOfMemory,
    OutputsLost,
    UnsupportedMedia,
    WorkflowInvalid,
)
from deployments.jobs.model import JsonObject
from deployments.jobs.ports import EngineItem, EngineTask, OutputFile, RunFacts
from deployments.jobs.signs_of_life import signs_of_life

MAX_PASSES = 3  # of one attempt: a graph whose cached files are gone is run again
REMEMBERED = 1000  # jobs of which it is known what was tried
SHOWN_REASON = 300  # characters of what a node says when it fails
LACKS = frozenset({"missing_node_type", "value_not_in_list"})  # refusals that say something about the backend rather than the graph

# What a node says may show the backend's inside: paths, addresses, credentials in URLs.
INSIDE = re.compile(r"://|[/\\].*[/\\]|\d+\.\d+\.\d+\.\d+|\[?[0-9a-f]*:[0-9a-f]*:[0-9a-f:]+", re.IGNORECASE)


class BridgeEngine:
    """Implements :class:`deployments.jobs.ports.AsyncEngine`."""

    def __init__(self, fleet: Fleet, config: ComfyConfig, limits: MediaLimits) -> None:
        self._fleet = fleet
        self._config = config
        self._limits = limits
        self._tried: OrderedDict[str, _Tried] = OrderedDict()  # by job

    def references(self, spec: JsonObject) -> Mapping[str, JsonObject]:
        """See the port."""
        return {role: media.reference for role, media in StoredSpec.model_validate(spec).media.items()}

    async def run(self, task: EngineTask) -> AsyncGenerator[EngineItem, None]:
        """See the port.

        Raises:
            WorkflowInvalid: every backend that fits refuses the graph.
            ComfyNodeFailed: a node raised.
            BackendLost: the backend forgot the prompt, died, or somebody else stopped it there.
            OutputsLost: the outputs were computed, and were gone in every pass.
            UnsupportedMedia: outputs that cannot be taken out.
            BackendUnavailable: no backend that fits takes it now.
        """
        spec = StoredSpec.model_validate(task.spec)
        tags, tried = frozenset(spec.options.backend_tags), self._tried_of(task.job_id)
        async with self._fleet.place(tags, checkpoint_of(spec.graph), tried.lost_on, tried.refused_by) as backend:
            try:
                async for item in self._run_on(backend, spec, task):
                    yield item
            except WorkflowInvalid as error:
                self._blame(error, backend, spec, tried)
                raise
            except BackendLost as error:
                tried.lost_on = backend.spec.name
                backend.distrust(str(error))
                raise

    async def _run_on(self, backend: Backend, spec: StoredSpec, task: EngineTask) -> AsyncGenerator[EngineItem, None]:
        preparing = asyncio.create_task(self._prepare(backend, spec, task))
        async for sign in signs_of_life(preparing, 0.0, "bringing inputs to the backend"):
            yield sign
        graph = preparing.result()
        backend.model = checkpoint_of(graph) or backend.model
        chosen = {place: _value_at(graph, place) for place in spec.choices_open}
        yield RunFacts({"backend": backend.spec.name, **({"chosen": chosen} if chosen else {})})
        async for item in self._passes(backend, spec, graph, task):
            yield item

    async def _prepare(self, backend: Backend, spec: StoredSpec, task: EngineTask) -> PromptGraph:
        graph: PromptGraph = {node_id: {**node, "inputs": dict(node["inputs"])} for node_id, node in spec.graph.items()}
        for role, media in spec.media.items():
            place = f"{media.comfy_node}.{media.input}"
            limits = None if media.checked else self._limits
            graph[media.comfy_node]["inputs"][media.input] = await send_input(backend, task.inputs[role], media.kind, place, limits)
        return fill_choices(graph, spec.choices_open, await backend.descriptions()) if spec.choices_open else graph

    async def _passes(
        self, backend: Backend, spec: StoredSpec, prepared: PromptGraph, task: EngineTask
    ) -> AsyncGenerator[EngineItem, None]:
        options = spec.options
        for n in range(MAX_PASSES):
            graph, _ = fresh_prefix(prepared, _saving_nodes(prepared), uuid4().hex[:12])
            run = PromptRun(backend, graph, self._config, previews=options.previews, allow_node_errors=options.allow_node_errors)
            yield RunFacts({"prompt_id": run.prompt_id})
            async for item in run.follow():
                yield item
            taking = asyncio.create_task(self._take_out(backend, spec, graph, task, run))
            async for sign in signs_of_life(taking, 1.0, "taking out the outputs"):
                yield sign
            files, missing = taking.result()
            failure = _failure_of(run.entry, graph)
            says_nothing = n > 0 and not run.entry.outputs and not run.socket_nodes  # twice: some graphs have no output at all
            if failure is not None or not missing or says_nothing:
                for file in files if failure is None or options.partial_outputs else ():
                    yield file
                if failure is not None:
                    raise failure
                return
            if missing - _saving_nodes(graph):
                await backend.http.forget_results()  # they take no new name that would make them run again: everything does
        raise OutputsLost("the backend computed the outputs and then no longer had them, three times: look at its disk and its janitors")

    async def _take_out(
        self, backend: Backend, spec: StoredSpec, graph: PromptGraph, task: EngineTask, run: PromptRun
    ) -> tuple[list[OutputFile], set[str]]:
        """Return the output files, and the nodes whose outputs should be there and are not."""
        if refused := count_refused(run.entry.outputs):
            raise UnsupportedMedia(f"the backend names {refused} outputs that are not taken: outside of its folders, or too many of them")
        taker = OutputTaker(backend.http, task.job_id, task.work_dir, self._limits, self._config.max_output_bytes)
        wanted = None if spec.outputs is None else set(spec.outputs)
        places = tuple(p for p in list_outputs(run.entry.outputs, graph) if wanted is None or p.comfy_node in wanted)
        files, gone = await taker.take(places)
        missing = {place.comfy_node for place in gone}
        counts = Counter(place.comfy_node for place in places)
        pictures = [(node, picture) for node, picture in run.pictures if wanted is None or node in wanted]
        files += await taker.keep(pictures, counts)
        missing |= {node for node in run.socket_nodes if node not in {node for node, _ in run.pictures} or not run.heard_all}
        if not places and not pictures and not run.entry.outputs:
            missing |= _saving_nodes(graph)  # older servers say nothing of what a cached run gave
        return files, missing

    def _blame(self, error: WorkflowInvalid, backend: Backend, spec: StoredSpec, tried: _Tried) -> None:
        """Find out whether another attempt may succeed although this backend refuses the graph.

        Raises:
            BackendLost: it refuses a file that it had just taken.
            BackendUnavailable: another backend may have what this one lacks.
        """
        brought = {(media.comfy_node, media.input) for media in spec.media.values()}
        if not tried.inputs_lost and any((problem.comfy_node, problem.input) in brought for problem in error.problems):
            tried.inputs_lost = True
            backend.uploaded.clear()
            raise BackendLost("the backend no longer has a file that it had just taken: its input folder was replaced") from None
        tried.refused_by.add(backend.spec.name)
        lacks = all(problem.kind in LACKS for problem in error.problems)
        if error.problems and lacks and self._fleet.others(frozenset(spec.options.backend_tags), tried.refused_by):
            raise BackendUnavailable("this backend lacks a node or a model of the workflow: another one is asked") from None

    def _tried_of(self, job_id: str) -> _Tried:
        tried = self._tried.setdefault(job_id, _Tried())
        self._tried.move_to_end(job_id)
        while len(self._tried) > REMEMBERED:
            self._tried.popitem(last=False)
        return tried


@dataclass(slots=True)
class _Tried:
    """What earlier attempts of a job have come to know, as far as this replica ran them."""

    lost_on: str | None = None  # backend
    refused_by: set[str] = field(default_factory=set)  # backends that cannot run its graph
    inputs_lost: bool = False  # whether a backend has refused a file once: the second time it means it


def _saving_nodes(graph: PromptGraph) -> set[str]:
    """Return the nodes that write files under a name of the graph's choice.

    Each prompt gets names of its own. A server counts its files, and begins again at 1 when its folder is lost: under a common name, a
    file that is taken out late may be another job's. It also makes these nodes, and them alone, run in a prompt that is otherwise cached.
    """
    return {node_id for node_id, node in graph.items() if isinstance(node["inputs"].get("filename_prefix"), str)}


def _failure_of(entry: HistoryEntry, graph: PromptGraph) -> ComfyNodeFailed | BackendLost | None:
    error = entry.message("execution_error")
    if error is not None:
        node_id = str(error.get("node_id", ""))
        known = node_id if node_id in graph else node_id.partition(".")[0]
        title = title_of(graph, known) if known in graph else ""
        out_of_memory = str(error.get("exception_type", "")).endswith("OutOfMemoryError")
        failed = ComfyOutOfMemory if out_of_memory else ComfyNodeFailed
        return failed(node_id, str(error.get("node_type", "")), title, _reason(error))
    if entry.message("execution_interrupted") is not None:
        return BackendLost("somebody stopped the prompt at the backend")
    return None if entry.completed else BackendLost("the backend ended the prompt without saying why")


def _reason(error: Mapping[str, Any]) -> str:
    """Return what a node said, in one line, without what shows the backend's inside; its traceback and its inputs stay here."""
    text = str(error.get("exception_message") or error.get("exception_type") or "no reason given").partition("Traceback")[0]
    return " ".join("…" if INSIDE.search(word) else word for word in text.split())[:SHOWN_REASON]


def _value_at(graph: PromptGraph, place: str) -> Any:  # noqa: ANN401 -- a JSON value
    comfy_node, _, name = place.partition(".")
    return graph[comfy_node]["inputs"].get(name)
