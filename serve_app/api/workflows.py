"""Workflows: list, read, store, remove, and run each by its own typed endpoint."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Query, Response

from deployments.comfyui_bridge.desk import ComfyDesk
from deployments.engines.comfyui.typed_inputs import typed_inputs
from deployments.jobs.errors import WorkflowNotFound
from deployments.jobs.model import JsonObject
from serve_app.api.dependencies import Desk, LinksTo, Service, Tenant, require_json
from serve_app.api.errors import documented
from serve_app.api.jobs import ENDED, IdempotencyKey, accepted
from serve_app.api.preferences import PreferredWait
from serve_app.api.requests import WorkflowRun
from serve_app.api.schemas import JobView
from serve_app.api.workflow_schemas import NewWorkflow, ParameterList, WorkflowDocument, WorkflowList, WorkflowView

PREFIX = "/v1/workflows"
RUN_PATH = f"{PREFIX}/{{name}}/run"

router = APIRouter(prefix=PREFIX, tags=["workflows"])

WorkflowName = Annotated[str, Path(description="of a workflow; `name@3` is version 3", max_length=100, examples=["text-to-image"])]
Version = Annotated[int | None, Query(ge=1, le=999_999_999, description="of an uploaded workflow; default: the newest")]
KNOWN: dict[int | str, dict[str, Any]] = {201: {"model": WorkflowView, "description": "The name is new"}}


@router.get("", summary="List workflows", responses=documented(404, 503))
async def list_workflows(desk: Desk, tenant: Tenant, links: LinksTo) -> WorkflowList:
    """List shipped and uploaded workflows by name, and which files of the installation's folder could not be read."""
    return WorkflowList.of(await desk.workflows(tenant), await desk.workflow_problems(), links)


@router.post(
    "",
    status_code=201,
    summary="Upload a workflow",
    responses=documented(400, 404, 409, 413, 415, 422, 503),
    dependencies=[Depends(require_json)],
)
async def create_workflow(
    request: Annotated[NewWorkflow, Body()], response: Response, desk: Desk, tenant: Tenant, links: LinksTo
) -> WorkflowView:
    """Store a graph, in API or in UI format, under a name; a new version when the name is known and something has changed.

    `parameters` gives it typed inputs; without them inputs are bound by the names that the nodes have.
    """
    workflow = await desk.put_workflow(tenant, request.name, request.graph, request.to_meta())
    response.headers["Location"] = links.workflow(workflow.name)
    return WorkflowView.of(workflow, links)


@router.get("/{name}", summary="Read a workflow", responses=documented(404, 422, 503))
async def read_workflow(name: WorkflowName, desk: Desk, tenant: Tenant, links: LinksTo, version: Version = None) -> WorkflowView:
    """Read a workflow: its graph, its description, and the JSON Schema of its inputs."""
    return WorkflowView.of(await desk.workflow(tenant, _versioned(name, version)), links)


@router.put(
    "/{name}",
    summary="Store a workflow under a name",
    responses=KNOWN | documented(400, 404, 409, 413, 415, 422, 503),
    dependencies=[Depends(require_json)],
)
async def replace_workflow(
    name: WorkflowName, request: Annotated[WorkflowDocument, Body()], response: Response, desk: Desk, tenant: Tenant, links: LinksTo
) -> WorkflowView:
    """Store a version of a workflow; jobs that were submitted before keep the graph that they had."""
    is_new = not await _exists(desk, tenant, name)
    workflow = await desk.put_workflow(tenant, name, request.graph, request.to_meta())
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = links.workflow(workflow.name)
    return WorkflowView.of(workflow, links)


@router.delete("/{name}", status_code=204, summary="Delete an uploaded workflow", responses=documented(404, 409, 422, 503))
async def delete_workflow(name: WorkflowName, desk: Desk, tenant: Tenant) -> None:
    """Forget a workflow and its versions. Its jobs stay, and can be retried."""
    await desk.delete_workflow(tenant, name)


@router.get("/{name}/parameters", summary="List everything that can be set", responses=documented(404, 422, 503))
async def list_parameters(name: WorkflowName, desk: Desk, tenant: Tenant, version: Version = None) -> ParameterList:
    """List every input of every node that holds a value: `place` is what `overrides` take.

    Ranges and choices are those of a backend; while none answers, of what is known of ComfyUI's own nodes.
    """
    return ParameterList.of(await desk.parameters(tenant, _versioned(name, version)))


@router.post(
    "/{name}/run",
    status_code=202,
    summary="Run a workflow",
    responses=ENDED | documented(400, 404, 409, 413, 415, 422, 429, 503, 507),
    dependencies=[Depends(require_json)],
)
async def run_workflow(
    name: WorkflowName,
    request: Annotated[WorkflowRun, Body()],
    response: Response,
    desk: Desk,
    service: Service,
    tenant: Tenant,
    links: LinksTo,
    preferred_wait_s: PreferredWait,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Submit a job of this workflow; answered as `POST /v1/jobs` is.

    `inputs` are checked against the workflow's own schema, see `GET /v1/workflows/{name}`: what it does not declare is refused.
    """
    submission = await service.submit(
        request.to_spec(name),
        request.to_options(),
        tenant=tenant,
        idempotency_key=idempotency_key,
        check=lambda: _check_inputs(desk, tenant, name, request.inputs),
    )
    return await accepted(submission, preferred_wait_s, response, service, links)


async def _check_inputs(desk: ComfyDesk, tenant: str, name: str, inputs: JsonObject) -> None:
    workflow = await desk.workflow(tenant, name)
    typed_inputs(workflow.meta, inputs, strict=True)


async def _exists(desk: ComfyDesk, tenant: str, name: str) -> bool:
    try:
        await desk.workflow(tenant, name)
    except WorkflowNotFound:
        return False
    return True


def _versioned(name: str, version: int | None) -> str:
    return name if version is None else f"{name}@{version}"
