"""Webhooks: what became of the deliveries, and sending one again."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from deployments.jobs.webhook import DeliveryQuery, DeliveryState, WebhookEvent
from serve_app.api.dependencies import Hooks, Tenant
from serve_app.api.errors import documented
from serve_app.api.schemas import JOB_ID_EXAMPLE, View

PREFIX = "/v1/webhooks/deliveries"
TAKES_NO_BODY = re.compile(rf"{PREFIX}/[^/]+/redeliver")

router = APIRouter(prefix=PREFIX, tags=["webhooks"])


class DeliveryView(View):
    """One event on its way to one receiver."""

    id: str = Field(description="the header webhook-id, the same over all tries", examples=[JOB_ID_EXAMPLE])
    job_id: str = Field(examples=[JOB_ID_EXAMPLE])
    event: WebhookEvent
    url: str
    state: DeliveryState = Field(description="dead: given up, and sent again only when asked for")
    tries: int
    created_at: datetime
    next_at: datetime = Field(description="of the next try, while pending")
    ended_at: datetime | None
    status_code: int | None = Field(description="of the receiver's newest answer")
    error: str | None = Field(description="of the newest try")


class DeliveryList(View):
    """One page of deliveries, newest first."""

    deliveries: list[DeliveryView]
    next_cursor: str | None = Field(description="send it as ?cursor= for the next page; null on the last")


@router.get("", summary="List webhook deliveries", responses=documented(422, 503))
async def list_deliveries(
    hooks: Hooks,
    tenant: Tenant,
    job_id: Annotated[str | None, Query(max_length=36, description="only those of this job")] = None,
    state: Annotated[DeliveryState | None, Query(description="dead lists what was given up")] = None,
    cursor: Annotated[str | None, Query(max_length=32, description="next_cursor of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> DeliveryList:
    """Newest first."""
    page = await hooks.list_deliveries(DeliveryQuery(tenant, job_id, state, cursor, limit))
    return DeliveryList(deliveries=[DeliveryView.model_validate(d) for d in page.deliveries], next_cursor=page.next_cursor)


@router.post("/{delivery_id}/redeliver", status_code=202, summary="Send a webhook again", responses=documented(404, 422, 503))
async def redeliver(
    hooks: Hooks, tenant: Tenant, delivery_id: Annotated[str, Path(max_length=100, examples=[JOB_ID_EXAMPLE])]
) -> DeliveryView:
    """Under the same id, with all its tries anew; one that is under way stays as it is."""
    return DeliveryView.model_validate(await hooks.redeliver(tenant, delivery_id))
