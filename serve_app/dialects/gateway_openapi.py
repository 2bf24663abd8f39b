"""The gateway in the OpenAPI document: envelopes instead of problems, and an operation for each scenario."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from deployments.comfyui_bridge.catalogue import NamedWorkflow
from deployments.engines.comfyui.typed_inputs import parameter_schema
from deployments.jobs.model import JsonObject
from serve_app.api.workflow_openapi import example_of
from serve_app.dialects.gateway_envelope import PREFIX, SCENARIOS

SCENARIO_PATH = f"{SCENARIOS}/{{scenario}}"
CLIENT_ID: JsonObject = {
    "anyOf": [{"type": "string", "maxLength": 255}, {"type": "null"}],
    "description": "whose WebSocket hears of it",
    "title": "Client Id",
}


def describe_gateway(document: JsonObject, workflows: Iterable[NamedWorkflow]) -> JsonObject:
    """Return a document in which the gateway's operations are as it answers them; ``document`` stays as it is."""
    scenarios = [workflow for workflow in workflows if workflow.meta.scenario is not None]
    schemas = dict(document["components"]["schemas"])
    paths: JsonObject = {}
    for path, operations in document["paths"].items():
        if not path.startswith(f"{PREFIX}/"):
            paths[path] = operations
            continue
        answered = {method: _without_problems(operation) for method, operation in operations.items()}
        if path == SCENARIO_PATH:
            for workflow in scenarios:
                schemas[_schema_name(workflow)] = _schema(workflow)
                paths[SCENARIO_PATH.format(scenario=workflow.name)] = {"post": _operation(workflow, answered["post"])}
        paths[path] = answered
    return document | {"paths": paths, "components": document["components"] | {"schemas": schemas}}


def _without_problems(operation: JsonObject) -> JsonObject:
    """Whatever goes wrong is an envelope with status 200; a download may be one too."""
    answer = copy.deepcopy(operation["responses"]["200"])
    if "application/json" not in answer["content"]:
        answer["content"]["application/json"] = {"schema": {"$ref": "#/components/schemas/Envelope_ImageUrl_"}}
    return operation | {"responses": {"200": answer}}


def _schema_name(workflow: NamedWorkflow) -> str:
    return f"Scenario.{workflow.name}"


def _schema(workflow: NamedWorkflow) -> JsonObject:
    schema = parameter_schema(workflow.meta)
    properties = {**schema.get("properties", {}), "client_id": CLIENT_ID}
    return schema | {"title": f"Scenario {workflow.name}", "properties": properties, "additionalProperties": True}


def _operation(workflow: NamedWorkflow, general: JsonObject) -> JsonObject:
    operation = copy.deepcopy(general)
    operation["operationId"] = f"run_scenario_{workflow.name}"
    operation["summary"] = workflow.meta.title or workflow.name
    operation["description"] = workflow.meta.description
    operation["parameters"] = [parameter for parameter in operation.get("parameters", []) if parameter["in"] != "path"]
    body = {"schema": {"$ref": f"#/components/schemas/{_schema_name(workflow)}"}, "example": example_of(workflow)}
    operation["requestBody"]["content"] = {"application/json": body}
    return operation
