"""From a request to the graph that is stored: named or brought along, converted, filled in, and checked as far as can be known now."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from pydantic import TypeAdapter, ValidationError

from deployments.comfyui_bridge.catalogue import NamedWorkflow, WorkflowCatalogue
from deployments.comfyui_bridge.config import requirement_of
from deployments.comfyui_bridge.descriptions import Descriptions
from deployments.comfyui_bridge.stored_spec import StoredMedia, StoredSpec
from deployments.engines.comfyui.bind import BoundGraph, bind_inputs, fill_choices
from deployments.engines.comfyui.convert import to_api
from deployments.engines.comfyui.graph import PromptGraph, check_graph, detect_format, unwrap
from deployments.engines.comfyui.media_inputs import (
    REFERENCE_SCHEMES,
    TO_BE_UPLOADED,
    MediaBinding,
    file_names,
    media_kind,
    take_files,
    take_references,
)
from deployments.engines.comfyui.object_info import ObjectInfo
from deployments.engines.comfyui.overrides import apply_overrides
from deployments.engines.comfyui.places import Place, find_comfy_node, find_place, problem_at, titles_of
from deployments.engines.comfyui.validate import find_problems
from deployments.engines.comfyui.workflow_file import WorkflowMeta
from deployments.jobs.errors import BackendNotConfigured, InvalidInput, NodeProblem, ObjectInfoNeeded, WorkflowInvalid
from deployments.jobs.intake import MediaIntake
from deployments.jobs.media_url import to_reference
from deployments.jobs.model import FileRecord, JsonObject
from deployments.jobs.ports import Plan
from deployments.jobs.spec import ComfySpec, JobSpec, MediaRef

REFERENCE: TypeAdapter[MediaRef] = TypeAdapter(MediaRef)
MAX_SPEC_BYTES = 2**20  # of one job: it is shown with it, in listings too; the graphs of public templates have a tenth


class ComfyPlanner:
    """Implements :class:`deployments.jobs.ports.Planner` for the kind ``comfyui``."""

    def __init__(
        self, catalogue: WorkflowCatalogue, descriptions: Descriptions, intake: MediaIntake, managed_tags: frozenset[str] | None = None
    ) -> None:
        """Take the parts.

        Args:
            catalogue: workflows by name.
            descriptions: what the backends have.
            intake: brings media in.
            managed_tags: tags of the servers that replicas start for themselves, so that there need not be one now; None: they do not.
        """
        self._catalogue = catalogue
        self._descriptions = descriptions
        self._intake = intake
        self._managed_tags = managed_tags
        self._random = random.SystemRandom()

    async def plan(self, tenant: str, spec: JobSpec) -> Plan:
        """See the port.

        Raises:
            BackendNotConfigured: there is no ComfyUI server to run it.
            WorkflowNotFound: no workflow of that name.
            ObjectInfoNeeded: a UI-format workflow while no backend answers.
            WorkflowNotConvertible: a UI-format workflow that has no API form.
            WorkflowInvalid: ComfyUI would refuse it; names the nodes and inputs.
        """
        assert isinstance(spec, ComfySpec), "planners are registered by kind"
        workflow = await self._workflow(tenant, spec.workflow)
        bound, outputs, info = await self.bind(tenant, workflow, spec)
        stored = StoredSpec(
            workflow={"name": workflow.name, "version": workflow.version} if workflow.name else None,
            graph=bound.graph,
            media={role: await self.store_media(tenant, role, media, bound.graph, info) for role, media in bound.media.items()},
            choices_open=bound.choices_open,
            seeds=bound.seeds,
            outputs=outputs,
            options=spec.options,
        )
        made = stored.model_dump(mode="json", exclude_none=True)
        if len(json.dumps(made)) > MAX_SPEC_BYTES:
            raise InvalidInput(f"the graph of a job has at most {MAX_SPEC_BYTES // 2**20} MiB as JSON: put long texts into fewer nodes")
        return Plan(made, requirement_of(spec.options.backend_tags), spec.options.timeout_s)

    async def bind(
        self, tenant: str, workflow: NamedWorkflow, spec: ComfySpec
    ) -> tuple[BoundGraph, tuple[str, ...] | None, ObjectInfo | None]:
        """Put the inputs and overrides of a request into a workflow (``spec.workflow`` is not looked at) and check the outcome.

        Returns:
            The graph, the nodes whose outputs are wanted (None: all), and what is known of the nodes.

        Raises:
            ServiceError: as :meth:`plan`, but for what concerns the media, which nobody has looked at.
        """
        await self._check_backends(spec.options.backend_tags)
        info = await self._descriptions.info(spec.options.backend_tags)
        filled = await asyncio.to_thread(self._fill, workflow, spec, info)
        files = await self._intake.find_files(tenant, file_names(filled.graph, info))
        return *await asyncio.to_thread(_checked, filled, files, workflow.meta, info), info

    async def store_media(self, tenant: str, role: str, media: MediaBinding, graph: PromptGraph, info: ObjectInfo | None) -> StoredMedia:
        """Check what a request refers to and return it as it is kept.

        Raises:
            WorkflowInvalid: no reference that can be used.
            ServiceError: as :meth:`MediaIntake.to_stored`.
        """
        place = Place(media.comfy_node, media.input)
        kind = media_kind(graph, place, info) or "image"
        try:
            reference = REFERENCE.validate_python(_plain(media.reference))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            problem = NodeProblem(media.comfy_node, "", media.input, "media_reference", first["msg"])
            raise WorkflowInvalid(f"the media of {role} cannot be used: {first['msg']}", (problem,)) from None
        return StoredMedia(
            comfy_node=media.comfy_node, input=media.input, kind=kind, reference=await self._intake.to_stored(tenant, reference)
        )

    async def to_graph(self, document: JsonObject, tags: tuple[str, ...] = ()) -> tuple[PromptGraph, ObjectInfo | None]:
        """Return a workflow of either format as an API graph, and what is known of the nodes."""
        info = await self._descriptions.info(tags)
        return await asyncio.to_thread(_to_graph, document, info), info

    async def _check_backends(self, tags: tuple[str, ...]) -> None:
        if self._managed_tags is None:
            offered = [frozenset(state.spec.tags) for state in await self._descriptions.backends()]
        else:
            offered = [self._managed_tags]
        if not offered:
            raise BackendNotConfigured("this installation has no ComfyUI server: set COMFYUI_URL, or add one by POST /v1/admin/backends")
        if not any(set(tags) <= have for have in offered):
            known = sorted(frozenset[str]().union(*offered))
            raise InvalidInput(f"no backend has the tags {', '.join(tags)} together: there is {', '.join(known) or 'none with a tag'}")

    async def _workflow(self, tenant: str, given: str | JsonObject) -> NamedWorkflow:
        if isinstance(given, str):
            return await self._catalogue.find(tenant, given)
        return NamedWorkflow("", None, unwrap(given), WorkflowMeta())

    def _fill(self, workflow: NamedWorkflow, spec: ComfySpec, info: ObjectInfo | None) -> BoundGraph:
        """Put the inputs and overrides of a request into the graph."""
        graph = _to_graph(workflow.graph, info)
        graph, brought = take_references(graph, info)
        closed = frozenset(str(place) for place in _places(graph, spec.overrides, info))
        bound = bind_inputs(graph, _still_required(workflow.meta, graph, closed, info), spec.inputs, info, self._random)
        overridden, drawn = apply_overrides(bound.graph, spec.overrides, info, self._random)
        overridden, set_over = take_references(overridden, info)
        # Whoever comes last wins a place: the graph, then an input, then an override.
        media = {(m.comfy_node, m.input): (role, m) for role, m in (*brought.items(), *bound.media.items(), *set_over.items())}
        named = {role: m for role, m in media.values() if _is_open(overridden, m)}
        still_open = tuple(place for place in bound.choices_open if place not in closed)
        return BoundGraph(overridden, named, bound.seeds | drawn, still_open)


def _checked(
    filled: BoundGraph, files: Mapping[str, FileRecord], meta: WorkflowMeta, info: ObjectInfo | None
) -> tuple[BoundGraph, tuple[str, ...] | None]:
    """Take the tenant's files out of a graph, and check the rest as ComfyUI would."""
    graph, found = take_files(filled.graph, {name: record.id for name, record in files.items()}, info)
    _refuse_problems(_mismatches(graph, found, {record.id: record.media_type for record in files.values()}, info))
    if info is not None:
        _refuse_problems(find_problems(_without_open(graph, filled.choices_open, info), info))
    return replace(filled, graph=graph, media=filled.media | found), _selected(graph, meta)


def _mismatches(
    graph: PromptGraph, found: Mapping[str, MediaBinding], types: Mapping[str, str], info: ObjectInfo | None
) -> tuple[NodeProblem, ...]:
    """Name the places that would get a file of another kind than they take."""
    problems = []
    for media in found.values():
        place = Place(media.comfy_node, media.input)
        kind, media_type = media_kind(graph, place, info), types[media.reference["file_id"]]
        wanted = "image" if kind in {None, "mask"} else kind
        if media_type.partition("/")[0] != wanted:
            problems.append(problem_at(graph, place, "media_reference", f"{place} takes a file of kind {wanted}, not {media_type}"))
    return tuple(problems)


def _to_graph(document: JsonObject, info: ObjectInfo | None) -> PromptGraph:
    if detect_format(document) == "api":
        return check_graph(document)
    if info is None:
        raise ObjectInfoNeeded(
            "this workflow is in the editor's format, and no ComfyUI backend answers that could describe its nodes: "
            "try again when one does, or export the workflow in API format"
        )
    return check_graph(to_api(document, info))


def _plain(reference: JsonObject) -> JsonObject:
    """Return a reference without a data: URL, which becomes base64."""
    url = reference.get("url", "")
    if not url[:8].lower().startswith(REFERENCE_SCHEMES):
        return reference  # what it is decides its model
    return {name: value for name, value in reference.items() if name != "url"} | to_reference(url)


def _is_open(graph: PromptGraph, media: MediaBinding) -> bool:
    """Whether a place still waits for its media: an override may have put the name of a file there."""
    return bool(graph[media.comfy_node]["inputs"].get(media.input) == TO_BE_UPLOADED)


def _still_required(meta: WorkflowMeta, graph: PromptGraph, closed: Collection[str], info: ObjectInfo | None) -> WorkflowMeta:
    """Return a description in which nothing is required whose places are all overridden: whoever fills the places has given it."""
    given = {
        name: spec.model_copy(update={"required": False})
        for name, spec in meta.parameters.items()
        if spec.required and spec.bind and {str(place) for place in _places(graph, spec.bind, info)} <= set(closed)
    }
    return meta.model_copy(update={"parameters": {**meta.parameters, **given}}) if given else meta


def _places(graph: PromptGraph, texts: Iterable[str], info: ObjectInfo | None) -> list[Place]:
    titles = titles_of(graph)
    return [place for text in texts if isinstance(place := find_place(graph, text, info, titles), Place)]


def _without_open(graph: PromptGraph, choices_open: tuple[str, ...], info: ObjectInfo) -> PromptGraph:
    """Return the graph as it may be checked now: the backend that is chosen fills the open places."""
    return fill_choices(graph, choices_open, info) if choices_open else graph


def _selected(graph: PromptGraph, meta: WorkflowMeta) -> tuple[str, ...] | None:
    if meta.outputs is None:
        return None
    found = [find_comfy_node(graph, text) for text in meta.outputs]
    _refuse_problems(tuple(node for node in found if isinstance(node, NodeProblem)))
    return tuple(node for node in found if isinstance(node, str))


def _refuse_problems(problems: tuple[NodeProblem, ...]) -> None:
    if problems:
        shown = "; ".join(problem.message for problem in problems[:3])
        raise WorkflowInvalid(f"ComfyUI would refuse the workflow: {shown}", problems)
