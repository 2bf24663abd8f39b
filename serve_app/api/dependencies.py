"""What routes are given: the service, the caller's tenant, links, the configuration."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from deployments.comfyui_bridge.desk import ComfyDesk
from deployments.jobs.direct_uploads import DirectUploads
from deployments.jobs.errors import NotFound
from deployments.jobs.model import DEFAULT_TENANT
from deployments.jobs.service import JobService
from deployments.jobs.store_watch import ObjectStoreWatch
from deployments.jobs.verification import Verification
from deployments.jobs.webhook_desk import WebhookDesk
from serve_app.api.config import ApiConfig
from serve_app.api.links import Links
from serve_app.api.signing import LinkSigner

HTTP_OF_SOCKET = {"ws": "http", "wss": "https"}


def _service(connection: HTTPConnection) -> JobService:
    return cast("JobService", connection.app.state.service)


def _verification(connection: HTTPConnection) -> Verification:
    verification = cast("Verification | None", connection.app.state.verification)
    if verification is None:
        raise NotFound("this installation verifies no files")
    return verification


def _maybe_desk(connection: HTTPConnection) -> ComfyDesk | None:
    return cast("ComfyDesk | None", connection.app.state.comfy)


def comfy_desk(connection: HTTPConnection) -> ComfyDesk:
    """Return what knows of workflows and backends.

    Raises:
        NotFound: this installation runs no workflows.
    """
    desk = _maybe_desk(connection)
    if desk is None:
        raise NotFound("this installation runs no ComfyUI workflows: it has no comfyui pool")
    return desk


def _config(connection: HTTPConnection) -> ApiConfig:
    return cast("ApiConfig", connection.app.state.config)


def tenant_of(_: HTTPConnection) -> str:
    """Return who asks."""
    return DEFAULT_TENANT  # the one place that changes when there are API keys


def _links(connection: HTTPConnection) -> Links:
    asked = connection.base_url
    asked = asked.replace(scheme=HTTP_OF_SOCKET.get(asked.scheme, asked.scheme))  # links that a WebSocket tells are followed by HTTP
    config = _config(connection)
    return Links((config.public_base_url or str(asked)).rstrip("/"), config.files_url, _signer(connection))


def _signer(connection: HTTPConnection) -> LinkSigner | None:
    return cast("LinkSigner | None", connection.app.state.signer)


def require_json(request: Request) -> None:
    """Refuse a body that is not declared as JSON.

    Raises:
        HTTPException: 415.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise HTTPException(415, "send the body as JSON, with Content-Type: application/json")


VerifiedBy = Annotated[Verification, Depends(_verification)]
Service = Annotated[JobService, Depends(_service)]
Desk = Annotated[ComfyDesk, Depends(comfy_desk)]
MaybeDesk = Annotated[ComfyDesk | None, Depends(_maybe_desk)]
Config = Annotated[ApiConfig, Depends(_config)]


def webhook_desk(connection: HTTPConnection) -> WebhookDesk:
    """Return what knows of webhooks.

    Raises:
        NotFound: this installation sends none.
    """
    desk = cast("WebhookDesk | None", connection.app.state.hooks)
    if desk is None:
        raise NotFound("this installation sends no webhooks")
    return desk


Hooks = Annotated[WebhookDesk, Depends(webhook_desk)]
Tenant = Annotated[str, Depends(tenant_of)]


def _direct_uploads(connection: HTTPConnection) -> DirectUploads:
    return cast("DirectUploads", connection.app.state.direct)


def _object_watch(connection: HTTPConnection) -> ObjectStoreWatch | None:
    return cast("ObjectStoreWatch | None", connection.app.state.object_watch)


ObjectWatch = Annotated[ObjectStoreWatch | None, Depends(_object_watch)]
DirectTo = Annotated[DirectUploads, Depends(_direct_uploads)]
Signer = Annotated[LinkSigner | None, Depends(_signer)]
LinksTo = Annotated[Links, Depends(_links)]
