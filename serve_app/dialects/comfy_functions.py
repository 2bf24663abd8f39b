"""What ComfyUI itself answers, by REST and over all servers: the middleware (B) promises all of its functions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.engines.media.limits import MediaLimits
from deployments.jobs.errors import InvalidInput, MediaTooLarge, NotFound
from deployments.jobs.model import FileRecord
from deployments.jobs.service import JobService
from serve_app.api.dependencies import Config, Desk, LinksTo, Service, Tenant
from serve_app.api.errors import documented
from serve_app.api.files import BYTES_DOCUMENTED, file_response, upload_form
from serve_app.api.links import Links
from serve_app.api.multipart import IncomingFile, read_file
from serve_app.api.schemas import FILE_ID_EXAMPLE, View
from serve_app.dialects.pictures import find_picture, read_whole, store_picture
from serve_app.dialects.servers_view import SystemStats, joined

UPLOAD_PATHS = frozenset({"/api/upload/image", "/api/upload/mask"})
FILE_FIELDS = ("image", "file")  # ComfyUI's own name first
MAX_MASK_BYTES = 64 * 2**20  # of a mask and of its picture: both are held in memory

router = APIRouter(prefix="/api", tags=["middleware (B)"])

FolderName = Annotated[str, InPath(description="of a folder of models", max_length=200, examples=["checkpoints"])]


class SystemInfo(SystemStats):
    """What the servers say, and what this service is."""

    service: str = "atelier"
    version: str = Field(description="of this service")
    workflows: int = Field(description="that are saved")


@router.get("/system/info", summary="ComfyUI system information", responses=documented(404, 503))
async def read_system_info(desk: Desk, tenant: Tenant, config: Config) -> SystemInfo:
    """Ask all servers; one that does not answer says so in `error`."""
    known = joined(await desk.servers.system_stats())
    return SystemInfo.model_validate(known | {"version": config.version, "workflows": len(await desk.workflows(tenant))})


@router.get("/nodes", summary="All node types (object_info)", responses=documented(404, 503))
async def list_node_types(desk: Desk) -> dict[str, Any]:
    """Answer ComfyUI's own `object_info`, of the first server that has it."""
    return await desk.servers.object_info()


@router.get("/models", summary="Folders of models", responses=documented(404, 503))
async def list_model_folders(desk: Desk) -> list[str]:
    """List the folders of all servers."""
    return list(await desk.servers.model_folders())


@router.get("/models/{folder}", summary="Models of a folder", responses=documented(404, 422, 503))
async def list_models(folder: FolderName, desk: Desk) -> list[str]:
    """List the models of all servers."""
    found = await desk.servers.models(folder)
    if found is None:
        raise NotFound(f"there is no folder of models {folder!r}: GET /api/models lists them")
    return list(found)


@router.get("/embeddings", summary="Embeddings", responses=documented(404, 503))
async def list_embeddings(desk: Desk) -> list[str]:
    """List the embeddings of all servers."""
    return list(await desk.servers.embeddings())


class FreeRequest(BaseModel):
    """What the servers shall let go of."""

    model_config = ConfigDict(extra="ignore")

    unload_models: bool = False
    free_memory: bool = False


class Freed(View):
    """How many servers were told."""

    message: str
    backends: int


@router.post("/free", summary="Have the servers free memory", responses=documented(400, 404, 422, 503))
async def free_memory(desk: Desk, request: Annotated[FreeRequest | None, Body()] = None) -> Freed:
    """Tell all servers to unload models, or to drop what they keep of earlier runs."""
    wanted = request or FreeRequest()
    told = await desk.servers.free(unload_models=wanted.unload_models, free_memory=wanted.free_memory)
    return Freed(message=f"{told} told", backends=told)


FileName = Annotated[str, Query(description="of a file", min_length=1, max_length=255, examples=["result.png"])]
FileType = Annotated[Literal["input", "output", "temp"], Query(alias="type", description="input: uploads first")]


@router.get("/view", summary="A file by its name", response_class=Response, responses=BYTES_DOCUMENTED)
async def view_file(
    filename: FileName,
    request: Request,
    service: Service,
    tenant: Tenant,
    subfolder: Annotated[str, Query(description="ignored: names are unique", max_length=255)] = "",  # noqa: ARG001 -- a part of the contract
    folder: FileType = "output",
) -> Response:
    """Send an output or an upload, as ComfyUI's `/view` does."""
    record = await find_picture(service, filename, tenant, uploads_first=folder == "input")
    return await file_response(record, request.headers, service)


class StoredPicture(View):
    """An upload, in ComfyUI's words."""

    name: str = Field(description="what a LoadImage-like input takes", examples=["portrait.png"])
    subfolder: str = ""
    type: Literal["input"] = "input"
    file_id: str = Field(examples=[FILE_ID_EXAMPLE])
    url: str

    @classmethod
    def of(cls, record: FileRecord, links: Links) -> StoredPicture:
        """Show an upload."""
        return cls(name=record.name, file_id=record.id, url=links.file(record.id, record))


UPLOAD_ERRORS = documented(400, 413, 415, 422, 503, 507)
OVERWRITE = "`true`: the newest file of a name counts; else a name that is taken by another file gets a number"


@router.post(
    "/upload/image",
    summary="Upload a picture",
    responses=UPLOAD_ERRORS,
    openapi_extra=upload_form("image", "one picture, video or audio file", overwrite=OVERWRITE, subfolder="ignored", type="ignored"),
)
async def upload_picture(request: Request, service: Service, tenant: Tenant, links: LinksTo) -> StoredPicture:
    """Store a file that workflows may load by its name, whichever server runs them."""
    return StoredPicture.of(await store_picture(service, tenant, await read_file(request, *FILE_FIELDS)), links)


class OriginalRef(BaseModel):
    """Which picture gets the mask."""

    model_config = ConfigDict(extra="ignore")

    filename: str = Field(min_length=1, max_length=255)
    type: str = "input"


@router.post(
    "/upload/mask",
    summary="Upload a mask for a picture",
    responses=UPLOAD_ERRORS | documented(404),
    openapi_extra=upload_form(
        "image", "a picture whose alpha is the mask", original_ref='JSON: {"filename": …}, the picture that gets it', overwrite=OVERWRITE
    ),
)
async def upload_mask(request: Request, service: Service, tenant: Tenant, links: LinksTo, config: Config) -> StoredPicture:
    """Store a picture with the alpha of the mask, as PNG under the name of the mask."""
    incoming = await read_file(request, *FILE_FIELDS)
    mask = await read_whole(incoming.chunks, MAX_MASK_BYTES)
    original = await _original(service, tenant, incoming.fields.get("original_ref", ""))
    masked = await asyncio.to_thread(_masked, original, mask, config.media)
    return StoredPicture.of(await store_picture(service, tenant, _as_png(incoming, masked)), links)


async def _original(service: JobService, tenant: str, reference: str) -> bytes:
    try:
        named = OriginalRef.model_validate_json(reference)
    except ValidationError:
        raise InvalidInput('send a field original_ref: JSON such as {"filename": "portrait.png"}') from None
    record = await find_picture(service, named.filename, tenant, uploads_first=named.type == "input")
    if record.size_bytes > MAX_MASK_BYTES:
        raise MediaTooLarge(f"the picture of a mask has at most {MAX_MASK_BYTES // 2**20} MiB")
    return await read_whole(service.read_file(record), MAX_MASK_BYTES)


def _masked(original: bytes, mask: bytes, limits: MediaLimits) -> bytes:
    from deployments.engines.media.alpha import put_alpha  # codecs: the ingress does without them otherwise

    with TemporaryDirectory() as folder:
        paths = Path(folder, "original"), Path(folder, "mask")
        for path, data in zip(paths, (original, mask), strict=True):
            path.write_bytes(data)
        return put_alpha(*paths, limits)


def _as_png(mask: IncomingFile, masked: bytes) -> IncomingFile:
    async def once() -> AsyncIterator[bytes]:
        yield masked

    name = mask.name.rpartition(".")[0] or mask.name or "mask"
    return IncomingFile(f"{name}.png", "image/png", once(), mask.fields)
