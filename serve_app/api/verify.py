"""Verification: what marks a file carries."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field

from deployments.jobs.verification import MarksFound
from serve_app.api.dependencies import Service, Tenant, VerifiedBy
from serve_app.api.errors import documented
from serve_app.api.files import upload_form
from serve_app.api.multipart import read_file
from serve_app.api.schemas import FILE_ID_EXAMPLE, View

PATH = "/v1/verify"

router = APIRouter(prefix=PATH, tags=["files"])


class ManifestView(View):
    """A C2PA manifest and whether it is to be believed."""

    state: str = Field(
        description="`Invalid`, `Valid` (unchanged since it was signed), `Trusted` (and its signer is known here), `Unreadable`",
        examples=["Valid"],
    )
    generator: str | None = Field(description="what made the file, as the manifest says")
    signer: str | None = Field(description="common name of the certificate")
    source_types: list[str] = Field(description="how the content came about", examples=[["trainedAlgorithmicMedia"]])
    ingredients: list[str] = Field(description="titles of what it was made of")
    problems: list[str] = Field(description="codes of C2PA", examples=[["signingCredential.untrusted"]])


class MarksView(View):
    """What a file carries."""

    media_type: str = Field(description="by content", examples=["image/png"])
    aigc: list[dict[str, str]] = Field(description="labels of GB 45438-2025; a file should have one", examples=[[{"Label": "1"}]])
    manifest: ManifestView | None = Field(description="null when there is none")
    manifest_looked_for: bool = Field(description="false: this installation cannot read manifests, or the file is broken")
    problem: str | None = Field(description="why the file could not be read to its end")

    @classmethod
    def of(cls, found: MarksFound) -> MarksView:
        """Show what was found."""
        return cls.model_validate(found, from_attributes=True)


FileId = Annotated[str | None, Query(description="a file that is kept here, instead of a form", examples=[FILE_ID_EXAMPLE])]


@router.post(
    "",
    summary="See what marks a file carries",
    responses=documented(400, 404, 413, 415, 422, 503),
    openapi_extra=upload_form(required=False),
)
async def verify_file(request: Request, service: Service, verification: VerifiedBy, tenant: Tenant, file_id: FileId = None) -> MarksView:
    """Say whether a file is labelled as generated and whether its C2PA manifest is valid: `curl -F file=@picture.png`.

    The file is not kept. What is not there proves nothing: marks get lost when a file is saved anew.
    """
    if file_id is None:
        chunks = (await read_file(request)).chunks
    else:
        record = await service.get_file(file_id, tenant=tenant)
        chunks = service.read_file(record, 0, record.size_bytes)
    return MarksView.of(await verification.verify(chunks))
