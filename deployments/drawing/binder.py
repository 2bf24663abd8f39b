"""From a style and what a person has set to the graph that every sketch of theirs goes into.

Strokes come many times a second and change nothing but the picture: a graph is bound and checked once, and used again for a while.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.comfyui_bridge.catalogue import NamedWorkflow
from deployments.comfyui_bridge.config import requirement_of
from deployments.comfyui_bridge.planner import ComfyPlanner
from deployments.comfyui_bridge.stored_spec import StoredMedia, StoredSpec
from deployments.drawing.styles import StyleBook
from deployments.engines.comfyui.seeds import RANDOM_SEED
from deployments.engines.comfyui.sketch_place import PARAMETER
from deployments.jobs.errors import InvalidInput
from deployments.jobs.model import FileRecord, JsonObject
from deployments.jobs.spec import ComfyOptions, ComfySpec

FRESH_S = 10.0  # backends come and go, and a checkpoint with them
REMEMBERED = 256  # graphs: some for each of the people who draw at once
MAX_SETTINGS_BYTES = 16_384  # of one person, as JSON: a long prompt has a tenth
TO_COME = "00000000-0000-0000-0000-000000000000"  # stands for the file of a sketch

KIND = "sketch"


@dataclass(frozen=True, slots=True)
class SketchPlan:
    """A bound graph without its sketch."""

    spec: JsonObject
    roles: tuple[str, ...]  # media of the spec that are the sketch
    requires: str | None

    def with_sketch(self, file: FileRecord) -> JsonObject:
        """Return the ``spec`` of a job. It says where its sketch lies: a worker need not ask, nor keep it for another job."""
        reference = {"file_id": file.id, "media_type": file.media_type, "key": file.key, "sha256": file.sha256}
        media = self.spec["media"] | {role: self.spec["media"][role] | {"reference": reference} for role in self.roles}
        return self.spec | {"media": media}


class SketchBinder:
    """Binds and remembers."""

    def __init__(self, styles: StyleBook, planner: ComfyPlanner) -> None:
        self._styles = styles
        self._planner = planner
        self._plans: OrderedDict[tuple[str, str, str], tuple[float, NamedWorkflow, SketchPlan]] = OrderedDict()

    async def plan(self, tenant: str, style: str | None, settings: Mapping[str, Any]) -> SketchPlan:
        """Return the graph of a style with a person's settings in it.

        Raises:
            StyleNotFound: no such style.
            InvalidInput: settings that are too long, or hold the sketch.
            WorkflowInvalid: names every setting that the style does not take.
            BackendNotConfigured: there is no ComfyUI server.
        """
        workflow = await self._styles.find(style)
        text = json.dumps(settings, sort_keys=True)
        if len(text) > MAX_SETTINGS_BYTES:
            raise InvalidInput(f"the settings of a sketch have at most {MAX_SETTINGS_BYTES} bytes as JSON")
        key = (tenant, workflow.name, text)
        made_at, made_of, plan = self._plans.get(key, (0.0, None, None))
        if plan is not None and made_of is workflow and time.monotonic() - made_at < FRESH_S:
            return plan
        plan = await self._bind(tenant, workflow, settings)
        if not _draws_seeds(workflow, settings):
            self._plans[key] = (time.monotonic(), workflow, plan)
            self._plans.move_to_end(key)
            while len(self._plans) > REMEMBERED:
                self._plans.popitem(last=False)
        return plan

    async def _bind(self, tenant: str, workflow: NamedWorkflow, settings: Mapping[str, Any]) -> SketchPlan:
        if PARAMETER in settings:
            raise InvalidInput("the sketch is sent as a picture, not as a setting")
        options = ComfyOptions()
        spec = ComfySpec(workflow=workflow.name, inputs={**settings, PARAMETER: {"file_id": TO_COME}}, options=options)
        bound, outputs, info = await self._planner.bind(tenant, workflow, spec)
        roles = tuple(role for role, one in bound.media.items() if one.reference == {"file_id": TO_COME})
        media = {
            role: StoredMedia(comfy_node=one.comfy_node, input=one.input, kind="image", reference=one.reference, checked=True)
            if role in roles
            else await self._planner.store_media(tenant, role, one, bound.graph, info)  # a picture that a setting refers to
            for role, one in bound.media.items()
        }
        stored = StoredSpec(
            kind=KIND,
            workflow={"name": f"styles/{workflow.name}", "version": None},
            graph=bound.graph,
            media=media,
            choices_open=bound.choices_open,
            seeds=bound.seeds,
            outputs=outputs,
            options=options,
        )
        return SketchPlan(stored.model_dump(mode="json", exclude_none=True), roles, requirement_of(options.backend_tags))


def _draws_seeds(workflow: NamedWorkflow, settings: Mapping[str, Any]) -> bool:
    """Whether every sketch gets a seed of its own, so that no graph is used twice."""
    own = (value for node in workflow.graph.values() for name, value in node["inputs"].items() if "seed" in name)
    defaults = (spec.default for name, spec in workflow.meta.parameters.items() if spec.type == "seed" and name not in settings)
    return RANDOM_SEED in (*own, *defaults, *(value for value in settings.values() if not isinstance(value, dict | list)))
