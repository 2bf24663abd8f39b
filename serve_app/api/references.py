"""References: clips and pictures looked at ahead, so that the first audio on one starts as soon as the second."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Response

from serve_app.api.dependencies import LinksTo, Service, Tenant, require_json
from serve_app.api.errors import documented
from serve_app.api.jobs import ENDED, IdempotencyKey, accepted
from serve_app.api.preferences import PreferredWait
from serve_app.api.requests import ReferenceRequest
from serve_app.api.schemas import JobView

router = APIRouter(prefix="/v1/references", tags=["jobs"])


@router.post(
    "",
    status_code=202,
    summary="Prepare a reference for face2face jobs",
    responses=ENDED | documented(400, 404, 409, 413, 415, 422, 429, 503, 507),
    dependencies=[Depends(require_json)],
)
async def create_reference(
    request: Annotated[ReferenceRequest, Body()],
    response: Response,
    service: Service,
    tenant: Tenant,
    links: LinksTo,
    preferred_wait_s: PreferredWait,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Look at a clip or a picture once: a job of kind `reference`, whose output says what was found.

    What was found is kept by the content of the file, on the machine that looked.
    """
    submission = await service.submit(request.to_spec(), request.to_options(), tenant=tenant, idempotency_key=idempotency_key)
    return await accepted(submission, preferred_wait_s, response, service, links)
