"""Webhooks: what became of the deliveries, and sending one again."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from deployments.jobs.webhook import URL_LENGTH, Delivery, DeliveryQuery, DeliveryState, WebhookEvent, WebhookTarget, shown_url
from serve_app.api.dependencies import Hooks, Tenant, require_json
from serve_app.api.errors import documented
from serve_app.api.schemas import JOB_ID_EXAMPLE, View

PREFIX = "/v1/webhooks"
TAKES_NO_BODY = re.compile(rf"{PREFIX}/deliveries/[^/]+/redeliver")

router = APIRouter(prefix=PREFIX, tags=["webhooks"])


class DeliveryView(View):
    """One event on its way to one receiver."""

    id: str = Field(description="the header webhook-id, the same over all tries", examples=[JOB_ID_EXAMPLE])
    job_id: str = Field(description="of a test its own id", examples=[JOB_ID_EXAMPLE])
    event: WebhookEvent
    url: str = Field(description="without its query, which may hold a key")
    state: DeliveryState = Field(description="dead: given up, and sent again only when asked for")
    tries: int
    created_at: datetime
    next_at: datetime = Field(description="of the next try, while pending")
    ended_at: datetime | None
    status_code: int | None = Field(description="of the receiver's newest answer")
    error: str | None = Field(description="of the newest try")

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryView:
        """Show a delivery."""
        shown = {name: getattr(delivery, name) for name in cls.model_fields}
        return cls.model_validate(shown | {"url": shown_url(delivery.url)})


class ReceiverTest(BaseModel):
    """Which receiver is tested."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(min_length=1, max_length=URL_LENGTH, examples=["https://example.com/hooks"])
    secret: str = Field("default", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="name of the configured secret that signs")


class DeliveryList(View):
    """One page of deliveries, newest first."""

    deliveries: list[DeliveryView]
    next_cursor: str | None = Field(description="send it as ?cursor= for the next page; null on the last")


@router.get("/deliveries", summary="List webhook deliveries", responses=documented(422, 503))
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
    return DeliveryList(deliveries=[DeliveryView.of(d) for d in page.deliveries], next_cursor=page.next_cursor)


@router.post("/deliveries/{delivery_id}/redeliver", status_code=202, summary="Send a webhook again", responses=documented(404, 422, 503))
async def redeliver(
    hooks: Hooks, tenant: Tenant, delivery_id: Annotated[str, Path(max_length=100, examples=[JOB_ID_EXAMPLE])]
) -> DeliveryView:
    """Under the same id, with all its tries anew; one that is under way stays as it is."""
    return DeliveryView.of(await hooks.redeliver(tenant, delivery_id))


@router.post("/test", status_code=202, summary="Test a receiver", dependencies=[Depends(require_json)], responses=documented(415, 422, 503))
async def send_test(request: ReceiverTest, hooks: Hooks, tenant: Tenant) -> DeliveryView:
    """Send `webhook.test`, signed, once; the deliveries of its `job_id` say then what the receiver answered."""
    return DeliveryView.of(await hooks.test(tenant, WebhookTarget(url=request.url, secret=request.secret)))
