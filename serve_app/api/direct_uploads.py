"""Uploads straight into the bucket: this service says where to, and takes what has come."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from serve_app.api.dependencies import DirectTo, LinksTo, Tenant, require_json
from serve_app.api.errors import documented
from serve_app.api.files import PATH
from serve_app.api.schemas import FILE_ID_EXAMPLE, FileView, View

router = APIRouter(prefix=f"{PATH}/direct", tags=["files"])


class DirectUploadRequest(BaseModel):
    """What the client means to send."""

    model_config = ConfigDict(extra="forbid")

    media_type: str = Field(pattern=r"^(image|video|audio)/[A-Za-z0-9.+-]{1,60}$", examples=["video/mp4"])
    size_bytes: int = Field(gt=0, description="exactly: the bucket refuses another length", examples=[73400320])


class DirectUploadView(View):
    """Where to, and how."""

    upload_id: str = Field(examples=[FILE_ID_EXAMPLE])
    method: str = Field("PUT", description="of the request that sends the bytes as its body")
    url: str = Field(description="in the bucket; whoever has it may write there until `expires_at`")
    headers: dict[str, str] = Field(description="that the request must have")
    expires_at: datetime
    complete_url: str = Field(description="POST here when the bytes are there")


class CompleteRequest(BaseModel):
    """What the file is called."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field("file", max_length=400, description="for people and downloads", examples=["take 3.mp4"])
    media_type: str | None = Field(None, max_length=80, description="an error where the content is of another", examples=["video/mp4"])


@router.post(
    "",
    status_code=201,
    summary="Open an upload to the bucket",
    dependencies=[Depends(require_json)],
    responses=documented(404, 413, 415, 422, 503),
)
async def open_upload(request: DirectUploadRequest, direct: DirectTo, tenant: Tenant, links: LinksTo) -> DirectUploadView:
    """Answer with a request that the client makes to the bucket itself.

    404 where the store takes nothing from clients: use `POST /v1/files`.
    """
    opened = await direct.open(tenant, request.media_type, request.size_bytes)
    return DirectUploadView(
        upload_id=opened.upload_id,
        url=opened.request.url,
        headers=dict(opened.request.headers),
        expires_at=opened.expires_at,
        complete_url=links.direct_upload(opened.upload_id),
    )


@router.post(
    "/{upload_id}/complete",
    status_code=201,
    summary="Complete an upload to the bucket",
    dependencies=[Depends(require_json)],
    responses=documented(404, 413, 415, 422, 503),
)
async def complete_upload(
    upload_id: Annotated[str, Path(max_length=36, examples=[FILE_ID_EXAMPLE])],
    request: CompleteRequest,
    response: Response,
    direct: DirectTo,
    tenant: Tenant,
    links: LinksTo,
) -> FileView:
    """Look at what has come, hash it and publish it: the upload's id is the file's. Sent again, it answers the same."""
    record = await direct.complete(tenant, upload_id, request.name, request.media_type)
    response.headers["Location"] = links.file(record.id, record)
    return FileView.of(record, links)
