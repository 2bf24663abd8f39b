"""From an older service's words to the request that they mean, which is read as the body of ``POST /v1/jobs`` is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployments.engines.comfyui.graph import detect_format
from deployments.jobs.errors import InvalidInput
from deployments.jobs.model import Job, JsonObject
from deployments.jobs.service import JobService
from serve_app.api.requests import parse_job_request

FILE_SUFFIX = ".json"


async def submit(service: JobService, tenant: str, request: JsonObject) -> Job:
    """Accept a job, given as the body of ``POST /v1/jobs``; what is None is left out.

    Raises:
        InvalidInput: says what is wrong, and where; and whatever else a submit raises.
    """
    parsed = parse_job_request({name: value for name, value in request.items() if value is not None})
    return (await service.submit(parsed.to_spec(), parsed.to_options(), tenant=tenant)).job


def workflow_request(
    workflow: str | JsonObject,
    *,
    inputs: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    timeout_s: float | None = None,
    **options: Any,  # noqa: ANN401 -- of the job: what the parser checks
) -> JsonObject:
    """Return the request that runs a workflow, by name or brought along. Inputs without a value are as good as not sent."""
    return {
        "kind": "comfyui",
        "workflow": plain_name(workflow) if isinstance(workflow, str) else workflow,
        "inputs": {name: value for name, value in (inputs or {}).items() if value is not None},
        "overrides": overrides or {},
        "options": {} if timeout_s is None else {"timeout_s": timeout_s},
        **options,
    }


def plain_name(name: str) -> str:
    """Return the name of a workflow that a client may call by its file's."""
    return name.removesuffix(FILE_SUFFIX)


def is_graph(document: JsonObject) -> bool:
    """Whether a document is a workflow, in either format, rather than values for one."""
    try:
        detect_format(document)
    except InvalidInput:
        return False
    return True
