"""What the job store keeps of a ComfyUI job: the graph as it will be sent, but for what only the chosen backend can tell."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from deployments.jobs.model import JsonObject
from deployments.jobs.spec import ComfyOptions


class StoredMedia(BaseModel):
    """Media that go into one input of the graph."""

    model_config = ConfigDict(frozen=True)

    comfy_node: str
    input: str
    kind: str  # image, mask, audio or video
    reference: JsonObject  # {"url"} or {"file_id"}, the latter with "key" and "sha256" where no other job reads it
    checked: bool = False  # it was decoded when the job was accepted, so that nobody need look again


class StoredSpec(BaseModel):
    """The ``spec`` of a job of kind ``comfyui``. May only grow optional fields: jobs of an older release must load."""

    model_config = ConfigDict(frozen=True)

    kind: str = "comfyui"
    workflow: JsonObject | None = None  # {"name", "version"}: where the graph came from; the graph below is what counts
    graph: dict[str, JsonObject]
    media: dict[str, StoredMedia] = Field(default_factory=dict)  # by role
    choices_open: tuple[str, ...] = ()  # places "<id>.<input>" that take the first choice of the backend
    seeds: dict[str, int] = Field(default_factory=dict)  # by place, for whoever wants the same picture again
    outputs: tuple[str, ...] | None = None  # nodes whose outputs are wanted; None: all
    options: ComfyOptions = ComfyOptions()
