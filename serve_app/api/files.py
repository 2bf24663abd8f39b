"""Files: uploads in, uploads and outputs out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.datastructures import Headers

from deployments.jobs.model import FileRecord
from deployments.jobs.service import JobService
from serve_app.api.dependencies import LinksTo, Service, Signer, Tenant
from serve_app.api.errors import documented, problem_response
from serve_app.api.multipart import FILE_FIELD, read_file
from serve_app.api.ranges import ByteRange, RangeNotSatisfiable, is_unchanged, select_range
from serve_app.api.schemas import FILE_ID_EXAMPLE, FileView

PATH = "/v1/files"

router = APIRouter(prefix=PATH, tags=["files"])

FileId = Annotated[str, Path(description="id of a file", examples=[FILE_ID_EXAMPLE])]
Download = Annotated[bool, Query(description="have a browser save the file instead of showing it")]

# Uploads come from the same host as our pages: nothing in one may run as a page of ours.
SANDBOX = "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'"
SHOWN_IN_BROWSERS = ("image/", "video/", "audio/")


def upload_form(
    field: str = FILE_FIELD, description: str = "one picture, video or audio file", *, required: bool = True, **texts: str
) -> dict[str, Any]:
    """Return the OpenAPI of a form with a file in it, and with text fields, each given by its description."""
    properties = {field: {"type": "string", "format": "binary", "description": description}}
    properties |= {name: {"type": "string", "description": text} for name, text in texts.items()}
    schema = {"type": "object", "required": [field], "properties": properties}
    return {"requestBody": {"required": required, "content": {"multipart/form-data": {"schema": schema}}}}


BYTES = {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
BYTES_DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: BYTES | {"description": "The file, with its own media type"},
    206: BYTES | {"description": "The part asked for by `Range`"},
    304: {"description": "Known by `If-None-Match`"},
    307: {"description": "The bucket sends it: follow `Location`, which is good for a while"},
    **documented(403, 404, 416, 422, 503),
}
HEADERS_DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The headers of the download"},
    304: {"description": "Known by `If-None-Match`"},
    **documented(403, 404, 422, 503),
}


@router.post("", status_code=201, summary="Upload a file", responses=documented(400, 413, 415, 422, 503, 507), openapi_extra=upload_form())
async def create_file(request: Request, response: Response, service: Service, tenant: Tenant, links: LinksTo) -> FileView:
    """Store a file to be used as an input: `curl -F file=@portrait.jpg`. It is streamed into the object store.

    The media type is found by content; one that is declared for the part and disagrees is an error.
    """
    incoming = await read_file(request)
    record = await service.create_file(incoming.name, incoming.media_type, incoming.chunks, tenant=tenant)
    response.headers["Location"] = links.file(record.id, record)
    return FileView.of(record, links)


def let_pass(
    file_id: FileId,
    signer: Signer,
    expires: Annotated[int | None, Query(description="end of a signed link, in seconds since 1970")] = None,
    signature: Annotated[str | None, Query(max_length=100, description="of a signed link")] = None,
) -> str:
    """Return the id of a file that may be read: by anybody who knows it, or by a good link where links are signed.

    Raises:
        LinkRefused: it may not.
    """
    if signer is not None:
        signer.check(file_id, expires, signature)
    return file_id


ReadableId = Annotated[str, Depends(let_pass)]


@router.get("/{file_id}", summary="Download a file", response_class=Response, responses=BYTES_DOCUMENTED)
async def read_bytes(file_id: ReadableId, request: Request, service: Service, tenant: Tenant, download: Download = False) -> Response:  # noqa: FBT002 -- a query parameter
    """Send a file or a part of it. A file never changes: its ETag is its SHA-256.

    Where the bucket sends files itself, the answer leads there.
    """
    record = await service.get_file(file_id, tenant=tenant)
    headers = _headers(record, download=download)
    there = await service.store_link(record, headers["Content-Disposition"])
    if there is not None:
        return RedirectResponse(there, 307, {"Cache-Control": "no-store"})  # the link ends
    return await file_response(record, request.headers, service, download=download)


@router.head("/{file_id}", summary="Look at a file", response_class=Response, responses=HEADERS_DOCUMENTED)
async def read_headers(file_id: ReadableId, request: Request, service: Service, tenant: Tenant, download: Download = False) -> Response:  # noqa: FBT002 -- a query parameter
    """Send the headers of the download."""
    record = await service.get_file(file_id, tenant=tenant)
    headers = _headers(record, download=download)
    if is_unchanged(request.headers, headers["ETag"]):
        return _unchanged(headers)
    return Response(headers=headers | {"Content-Length": str(record.size_bytes)})


async def file_response(record: FileRecord, asked: Headers, service: JobService, *, download: bool = False) -> Response:
    """Send a file or the part of it that the request's headers ask for."""
    etag, headers = f'"{record.sha256}"', _headers(record, download=download)
    if is_unchanged(asked, etag):
        return _unchanged(headers)
    try:
        part = select_range(asked, etag, record.size_bytes)
    except RangeNotSatisfiable:
        return problem_response(
            416,
            f"the file has {record.size_bytes} bytes",
            "range_not_satisfiable",
            headers={"Content-Range": f"bytes */{record.size_bytes}"},
        )
    return await _stream(record, part, headers, service)


def _unchanged(headers: dict[str, str]) -> Response:
    return Response(status_code=304, headers={name: headers[name] for name in ("ETag", "Cache-Control")})


async def _stream(record: FileRecord, part: ByteRange | None, headers: dict[str, str], service: JobService) -> Response:
    sent = part or ByteRange(0, record.size_bytes)
    if part is not None:
        headers["Content-Range"] = part.content_range(record.size_bytes)
    headers["Content-Length"] = str(sent.end - sent.start)
    body = await _begun(service.read_file(record, sent.start, sent.end))
    return StreamingResponse(body, 200 if part is None else 206, headers)


async def _begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Read the first chunk now: what is wrong with the object is answered as an error, not as a download that breaks off."""
    first = await anext(chunks, b"")

    async def whole() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return whole()


def _headers(record: FileRecord, *, download: bool) -> dict[str, str]:
    disposition = "inline" if record.media_type.startswith(SHOWN_IN_BROWSERS) and not download else "attachment"
    return {
        "Content-Type": record.media_type,
        "Content-Disposition": f"{disposition}; {_file_name(record.name)}",
        "ETag": f'"{record.sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=86400, immutable",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": SANDBOX,
    }


def _file_name(name: str) -> str:
    """Return the file name parameters of RFC 6266: plain ASCII for old clients, UTF-8 (RFC 8187) for the others."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
    return f"filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
