"""Each workflow as an operation of its own in the OpenAPI document: ``POST /v1/workflows/<name>/run`` with the schema of its inputs.

All of them are served by one route; what tells them apart is the workflow's description, so nothing here is code about a workflow.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

from deployments.comfyui_bridge.catalogue import NamedWorkflow
from deployments.engines.comfyui.typed_inputs import is_first_choice, parameter_schema
from deployments.engines.comfyui.workflow_file import ParameterSpec
from deployments.jobs.model import JsonObject
from serve_app.api.workflows import RUN_PATH

MEDIA_EXAMPLES = {"image": "me.png", "mask": "mask.png", "audio": "voice.wav", "video": "film.mp4"}
OTHER_EXAMPLES = {"boolean": True, "seed": -1}


def add_workflows(document: JsonObject, workflows: Iterable[NamedWorkflow]) -> JsonObject:
    """Return a document that has an operation for each workflow besides the one for all; ``document`` stays as it is."""
    paths: JsonObject = {}
    schemas = dict(document["components"]["schemas"])
    for workflow in workflows:
        schemas[_inputs_name(workflow)] = {"title": f"Inputs of {workflow.name}"} | parameter_schema(workflow.meta)
        schemas[_run_name(workflow)] = _run_schema(workflow, schemas["WorkflowRun"])
        paths[RUN_PATH.format(name=workflow.name)] = {"post": _operation(workflow, document["paths"][RUN_PATH]["post"])}
    all_paths: JsonObject = {}
    for path, operations in document["paths"].items():
        if path == RUN_PATH:
            all_paths |= paths  # before the one for all, as a reader looks for them
        all_paths[path] = operations
    return document | {"paths": all_paths, "components": document["components"] | {"schemas": schemas}}


def _inputs_name(workflow: NamedWorkflow) -> str:
    return f"WorkflowInputs.{workflow.name}"


def _run_name(workflow: NamedWorkflow) -> str:
    return f"WorkflowRun.{workflow.name}"


def _run_schema(workflow: NamedWorkflow, general: JsonObject) -> JsonObject:
    properties = general["properties"] | {"inputs": {"$ref": f"#/components/schemas/{_inputs_name(workflow)}"}}
    required = ["inputs"] if any(spec.required for spec in workflow.meta.parameters.values()) else []
    return general | {"title": f"Run of {workflow.name}", "properties": properties} | ({"required": required} if required else {})


def _operation(workflow: NamedWorkflow, general: JsonObject) -> JsonObject:
    operation = copy.deepcopy(general)
    operation["operationId"] = f"run_workflow_{workflow.name}"
    operation["summary"] = f"Run {workflow.meta.title or workflow.name}"
    operation["description"] = _description(workflow)
    operation["parameters"] = [parameter for parameter in operation["parameters"] if parameter["in"] != "path"]
    operation["requestBody"]["content"] = {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{_run_name(workflow)}"}, "example": {"inputs": example_of(workflow)}}
    }
    return operation


def _description(workflow: NamedWorkflow) -> str:
    about = [workflow.meta.description, f"Tags: {', '.join(workflow.meta.tags)}." if workflow.meta.tags else ""]
    return "\n\n".join([*filter(None, about), "Answered as `POST /v1/jobs` is."])


def example_of(workflow: NamedWorkflow) -> JsonObject:
    """Return inputs that the schema takes: defaults, and something of the right kind for what has none but is required."""
    example: JsonObject = {}
    for name, spec in workflow.meta.parameters.items():
        if spec.required:
            example[name] = _stand_in(spec)
        elif spec.default is not None and not is_first_choice(spec):
            example[name] = spec.default
    return example


def _stand_in(spec: ParameterSpec) -> JsonObject | float | str:
    if spec.type in MEDIA_EXAMPLES:
        return {"url": f"https://example.com/{MEDIA_EXAMPLES[spec.type]}"}
    if spec.choices is not None:
        return spec.choices[0]
    if spec.type in {"integer", "number"}:
        return next(bound for bound in (spec.minimum, spec.maximum, 1) if bound is not None)
    return OTHER_EXAMPLES.get(spec.type, "a lighthouse at dusk")
