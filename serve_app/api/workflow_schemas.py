"""What the API shows and takes of workflows."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from deployments.comfyui_bridge.catalogue import NamedWorkflow
from deployments.engines.comfyui.graph import detect_format
from deployments.engines.comfyui.object_info import MediaKind
from deployments.engines.comfyui.parameters import Parameter, ParameterKind
from deployments.engines.comfyui.typed_inputs import parameter_schema
from deployments.engines.comfyui.workflow_file import WORKFLOW_NAME, FileProblem, ParameterSpec, ParameterType, WorkflowMeta
from deployments.jobs.model import JsonObject
from serve_app.api.links import Links
from serve_app.api.requests import GRAPH_EXAMPLE, JsonDocument
from serve_app.api.schemas import View


class WorkflowDocument(WorkflowMeta):
    """A graph, and what a person and a program need to know to run it."""

    graph: JsonDocument = Field(description="in API format, or in UI format as the editor saves it", examples=[GRAPH_EXAMPLE])

    def to_meta(self) -> JsonObject:
        """Return what the yaml of a shipped workflow holds."""
        return self.model_dump(mode="json", include=set(WorkflowMeta.model_fields), exclude_defaults=True)


class NewWorkflow(WorkflowDocument):
    """A workflow and the name that it gets."""

    name: Annotated[str, Field(pattern=rf"^{WORKFLOW_NAME.pattern}$", examples=["invert-me"])]


class WorkflowLinks(View):
    """Where to go on from a workflow."""

    self: str
    run: str
    parameters: str


class ParameterSummary(View):
    """One typed input, in short."""

    type: ParameterType
    required: bool
    description: str


class _Described(View):
    """What every view of a workflow begins with."""

    name: str = Field(examples=["text-to-image"])
    title: str = Field(examples=["Text to image"])
    description: str
    tags: tuple[str, ...]
    shipped: bool = Field(description="a file of the installation, which no request changes")
    version: int | None = Field(description="of an uploaded workflow; null for a shipped one")
    created_at: datetime | None = Field(description="when this version was uploaded")


class WorkflowSummary(_Described):
    """A workflow without its graph."""

    parameters: dict[str, ParameterSummary] = Field(description="typed inputs by name")
    links: WorkflowLinks

    @classmethod
    def of(cls, workflow: NamedWorkflow, links: Links) -> WorkflowSummary:
        """Show a workflow in short."""
        return cls.model_validate(_shown(workflow, links))


class FileProblemView(View):
    """A file of the installation's folder that could not be read."""

    file: str = Field(examples=["broken.json"])
    reason: str


class WorkflowList(View):
    """Workflows by name, shipped ones first."""

    workflows: list[WorkflowSummary]
    problems: list[FileProblemView] = Field(description="files that were left out")

    @classmethod
    def of(cls, workflows: Iterable[NamedWorkflow], problems: Iterable[FileProblem], links: Links) -> WorkflowList:
        """Show a list."""
        shown = [WorkflowSummary.of(workflow, links) for workflow in workflows]
        return cls(workflows=shown, problems=[FileProblemView.model_validate(problem) for problem in problems])


class WorkflowView(_Described):
    """A workflow and everything known about it."""

    parameters: dict[str, ParameterSpec] = Field(description="typed inputs by name, and where in the graph each goes")
    outputs: tuple[str, ...] | None = Field(description="ids or titles of the nodes whose outputs are kept; null: all")
    inputs_schema: dict[str, Any] = Field(description="JSON Schema (2020-12) of the `inputs` of a run")
    format: Literal["api", "ui"]
    graph: dict[str, Any] = Field(examples=[GRAPH_EXAMPLE])
    links: WorkflowLinks

    @classmethod
    def of(cls, workflow: NamedWorkflow, links: Links) -> WorkflowView:
        """Show a workflow."""
        more = {
            "outputs": workflow.meta.outputs,
            "inputs_schema": parameter_schema(workflow.meta),
            "format": detect_format(workflow.graph),
            "graph": workflow.graph,
        }
        return cls.model_validate(_shown(workflow, links) | more)


class ParameterView(View):
    """One input of one node."""

    place: str = Field(description="what `overrides` take", examples=["3.steps"])
    comfy_node: str = Field(examples=["3"])
    title: str = Field(description="of the node", examples=["KSampler"])
    class_type: str = Field(examples=["KSampler"])
    name: str = Field(examples=["steps"])
    type: ParameterKind = Field(description="`any`: neither a single value nor described by a backend")
    value: Any = Field(description="as in the graph", examples=[20])
    default: Any = Field(description="of the node's class", examples=[20])
    minimum: float | None
    maximum: float | None
    step: float | None
    choices: tuple[Any, ...] | None = Field(description="null: not known, or not limited")
    multiline: bool
    media: MediaKind | None = Field(description="takes a media reference of this kind")
    is_seed: bool = Field(description="takes -1 for a random one")


class ParameterList(View):
    """Every input that holds a value, in the order of the graph."""

    parameters: list[ParameterView]

    @classmethod
    def of(cls, parameters: Iterable[Parameter]) -> ParameterList:
        """Show the inputs."""
        return cls(parameters=[ParameterView.model_validate(parameter) for parameter in parameters])


def _shown(workflow: NamedWorkflow, links: Links) -> JsonObject:
    """Return the fields that both views have."""
    meta, address = workflow.meta, links.workflow(workflow.name)
    return {
        "name": workflow.name,
        "title": meta.title or workflow.name,
        "description": meta.description,
        "tags": meta.tags,
        "shipped": workflow.shipped,
        "version": workflow.version,
        "created_at": workflow.created_at,
        "parameters": meta.parameters,
        "links": WorkflowLinks(self=address, run=f"{address}/run", parameters=f"{address}/parameters"),
    }
