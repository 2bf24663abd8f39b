"""Saved workflows as the middleware (B) shows them: files with parameters that were found in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, Literal, Self

from pydantic import Field

from deployments.comfyui_bridge.catalogue import NamedWorkflow
from deployments.engines.comfyui.graph import detect_format
from deployments.engines.comfyui.parameters import Parameter, ParameterKind
from deployments.jobs.errors import InvalidInput
from deployments.jobs.model import JsonObject
from serve_app.api.requests import GRAPH_EXAMPLE
from serve_app.api.schemas import View
from serve_app.dialects.submits import FILE_SUFFIX

NOT_IN_A_NAME = re.compile(r"[^a-z0-9_-]+")
LONGEST_NAME = 64
MAX_FILE_BYTES = 16 * 2**20  # a picture with a workflow in it; the workflow itself may have a MiB


def name_of_file(filename: str) -> str:
    """Return the name that a workflow file is saved under: its stem in small letters, other characters as dashes.

    Raises:
        InvalidInput: nothing is left of it.
    """
    stem = PurePosixPath(filename.replace("\\", "/")).name.rpartition(".")[0] or filename
    name = NOT_IN_A_NAME.sub("-", stem.lower()).strip("-_")[:LONGEST_NAME]
    if not name:
        raise InvalidInput("name the file after the workflow, such as portrait.json")
    return name


class DetectedParameter(View):
    """An input of a node that may be changed."""

    key: str = Field(description="what `params` take", examples=["6.text"])
    node_id: str = Field(examples=["6"])
    node_title: str = Field(examples=["Positive prompt"])
    class_type: str = Field(examples=["CLIPTextEncode"])
    name: str = Field(examples=["text"])
    type: ParameterKind
    value: Any
    default: Any
    min: float | None
    max: float | None
    step: float | None
    choices: list[Any] | None
    multiline: bool
    media: str | None = Field(description="takes the name of a file of this kind, or a URL", examples=["image"])
    is_seed: bool = Field(description="takes -1 for a random one")

    @classmethod
    def of(cls, parameter: Parameter) -> Self:
        """Show a parameter."""
        same = ("class_type", "name", "type", "value", "default", "step", "multiline", "media", "is_seed")
        return cls(
            **{name: getattr(parameter, name) for name in same},
            key=parameter.place,
            node_id=parameter.comfy_node,
            node_title=parameter.title,
            min=parameter.minimum,
            max=parameter.maximum,
            choices=None if parameter.choices is None else list(parameter.choices),
        )


class SavedWorkflow(View):
    """A saved workflow without its graph."""

    filename: str = Field(examples=["text-to-image.json"])
    name: str = Field(examples=["text-to-image"])
    title: str
    description: str
    tags: list[str]
    shipped: bool = Field(description="a file of the installation, which no request changes")
    version: int | None = Field(description="of an uploaded one")
    updated_at: datetime | None

    @classmethod
    def of(cls, workflow: NamedWorkflow) -> Self:
        """Show a workflow in short."""
        return cls.model_validate(_shown(workflow))


class SavedWorkflows(View):
    """All of them, shipped ones first."""

    workflows: list[SavedWorkflow]
    total: int

    @classmethod
    def of(cls, workflows: Iterable[NamedWorkflow]) -> Self:
        """Show a list."""
        shown = [SavedWorkflow.of(workflow) for workflow in workflows]
        return cls(workflows=shown, total=len(shown))


class WorkflowDetail(SavedWorkflow):
    """A saved workflow with its graph and what may be changed in it."""

    format: Literal["api", "ui"]
    workflow: dict[str, Any] = Field(examples=[GRAPH_EXAMPLE])
    parameters: list[DetectedParameter]

    @classmethod
    def with_parameters(cls, workflow: NamedWorkflow, parameters: Iterable[Parameter], **more: str) -> Self:
        """Show a workflow."""
        found = [DetectedParameter.of(parameter) for parameter in parameters]
        graph = {"format": detect_format(workflow.graph), "workflow": workflow.graph, "parameters": found}
        return cls.model_validate(_shown(workflow) | graph | more)


class SavedAnswer(WorkflowDetail):
    """A workflow after it was saved."""

    message: str


def _shown(workflow: NamedWorkflow) -> JsonObject:
    meta = workflow.meta
    return {
        "filename": workflow.name + FILE_SUFFIX,
        "name": workflow.name,
        "title": meta.title or workflow.name,
        "description": meta.description,
        "tags": list(meta.tags),
        "shipped": workflow.shipped,
        "version": workflow.version,
        "updated_at": workflow.created_at,
    }
