"""The Face2Face service's API: one request, which waits for the job behind it, and the whole video in the answer.

The client looks at ``success`` and at nothing else, so every answer on its path is JSON that has it, with the HTTP status that fits.
"""

from __future__ import annotations

import asyncio
import base64
import contextvars
import time
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers
from starlette.middleware import Middleware

from deployments.comfyui_bridge.catalogue import NamedWorkflow
from deployments.jobs.errors import FetchFailed, InvalidInput, JobTimedOut, ServiceError
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.media_url import to_reference
from deployments.jobs.model import FileRecord, Job, JobError, JobStatus, JsonObject
from deployments.jobs.service import JobService
from serve_app.api.dependencies import Service, Tenant
from serve_app.api.dialect import Dialect
from serve_app.api.errors import CLIENT_CLOSED_REQUEST, problem_response
from serve_app.dialects.config import DialectsConfig
from serve_app.dialects.problem_translation import ProblemTranslation
from serve_app.dialects.submits import submit

log = get_logger(__name__)

PATH: Final = "/api/generate_video"
TAG = {"name": "face2face (E)", "description": "A talking-head video in one request, as clients of the Duix cloud service know it."}
CHUNK_BYTES: Final = 3 * 256 * 1024  # whole groups of three, so that the pieces of base64 join without padding between them

router = APIRouter(tags=[TAG["name"]])


class VideoRequest(BaseModel):
    """What to have spoken by whom."""

    model_config = ConfigDict(extra="ignore")

    audio_url: str = Field(min_length=1, description="http, https or data: URL", examples=["https://example.com/speech.wav"])
    video_url: str = Field(min_length=1, description="of a clip or a picture", examples=["https://example.com/presenter.mp4"])


class VideoAnswer(BaseModel):
    """The finished video."""

    success: bool = True
    video_data: str = Field(description="base64 of an MP4")
    size: int = Field(description="of the MP4, bytes")
    format: str = "mp4"


class VideoRefused(BaseModel):
    """Why there is no video."""

    success: bool = False
    error: str


def _patience_s(request: Request) -> float:
    return float(request.app.state.face2face_timeout_s)


@router.post(
    PATH,
    summary="Have a face speak an audio, and wait for the video",
    response_model=VideoAnswer,
    responses={status: {"model": VideoRefused} for status in (400, 404, 409, 413, 415, 422, 429, 500, 503, 504, 507)},
)
async def generate_video(
    asked: Annotated[VideoRequest, Body()],
    request: Request,
    service: Service,
    tenant: Tenant,
    patience_s: Annotated[float, Depends(_patience_s)],
) -> Response:
    """Run a face2face job to its end and answer with its video. A client that hangs up cancels the job."""
    job = await submit(
        service,
        tenant,
        {
            "kind": "face2face",
            "audio": to_reference(asked.audio_url),
            "video": to_reference(asked.video_url),
            "timeout_s": patience_s,
        },
    )
    ended = await _at_its_end(job, request, service, patience_s)
    if ended is None:
        return problem_response(CLIENT_CLOSED_REQUEST, "the client has gone: the job was cancelled", "client_closed_request")
    if ended.status is not JobStatus.SUCCEEDED:
        return _failure(ended)
    return _video(await service.get_file(ended.outputs[0].file_id, tenant=tenant), service)


async def _at_its_end(job: Job, request: Request, service: JobService, patience_s: float) -> Job | None:
    """Wait for a job; None when the client has gone. Whatever ends the wait before the job does, the job is cancelled.

    Raises:
        JobTimedOut: it took longer than ``patience_s``, the time in the queue included.
    """
    waiting = asyncio.ensure_future(_ended(job, service, time.monotonic() + patience_s))
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            return None
        job = waiting.result()
        if not job.status.terminal:
            raise JobTimedOut(
                f"the video was not finished within {patience_s:g} seconds: send shorter audio, or ask the operator for more time"
            )
        return job
    finally:
        waiting.cancel()
        leaving.cancel()
        if not job.status.terminal:
            _cancel_apart(service, job)


async def _ended(job: Job, service: JobService, deadline: float) -> Job:
    while not job.status.terminal and (left_s := deadline - time.monotonic()) > 0:
        job = await service.get(job.id, wait_s=left_s, tenant=job.tenant)
    return job


async def _gone(request: Request) -> None:
    """Return when the client has hung up. The body has been read: the next message can only be that."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


_cancelling: set[asyncio.Task[None]] = set()  # the loop itself holds tasks weakly


def _cancel_apart(service: JobService, job: Job) -> None:
    # In a context of its own: Serve cancels whatever belongs to a request whose client has gone, the calls of this one too.
    task = asyncio.get_running_loop().create_task(_cancel(service, job), context=contextvars.Context())
    _cancelling.add(task)
    task.add_done_callback(_cancelling.discard)


async def _cancel(service: JobService, job: Job) -> None:
    try:
        await service.cancel(job.id, tenant=job.tenant)
        log.info("job cancelled for its client", extra=fields(action="abandoned_job_cancelled", job_id=job.id))
    except ServiceError as error:
        log.warning("job not cancelled", extra=fields(action="abandoned_job_left", job_id=job.id, reason=str(error)))


def _failure(job: Job) -> Response:
    error = job.error or JobError("job_cancelled", "the job was cancelled")
    status = 422 if error.code in _CLIENTS_FAULTS else 504 if error.code == JobTimedOut.code else 500
    return problem_response(status, error.message, error.code, retryable=error.retryable)


def _codes_below(base: type[ServiceError]) -> set[str]:
    return {base.code}.union(*(_codes_below(cls) for cls in base.__subclasses__()))


_CLIENTS_FAULTS: Final = frozenset({FetchFailed.code, *_codes_below(InvalidInput)})  # a URL that leads nowhere is the client's, too


def _video(record: FileRecord, service: JobService) -> Response:
    head, tail = b'{"success": true, "video_data": "', f'", "size": {record.size_bytes}, "format": "mp4"}}'.encode()
    length = len(head) + 4 * -(-record.size_bytes // 3) + len(tail)

    async def parts() -> AsyncIterator[bytes]:
        yield head
        async for piece in _encoded(service.read_file(record)):
            yield piece
        yield tail

    # The video is in memory a piece at a time: as one string it would be there three times, as bytes, as base64 and as JSON.
    return StreamingResponse(parts(), media_type="application/json", headers={"Content-Length": str(length)})


async def _encoded(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    held = b""
    async for chunk in chunks:
        held += chunk
        whole = len(held) - len(held) % 3
        for begin in range(0, whole, CHUNK_BYTES):
            yield base64.b64encode(held[begin : min(begin + CHUNK_BYTES, whole)])
        held = held[whole:]
    yield base64.b64encode(held)


def _translate(problem: JsonObject, _path: str, _headers: Headers) -> tuple[int, JsonObject]:
    parts = [f"{error['pointer']}: {error['detail']}" for error in problem["errors"]]
    return problem["status"], {"success": False, "error": "; ".join(parts) or problem["detail"]}


def _describe(document: JsonObject, _: Iterable[NamedWorkflow]) -> JsonObject:
    """Return a document in which whatever goes wrong here is answered as it is; ``document`` stays as it is."""
    if PATH not in document["paths"]:
        return document
    refused = {"application/json": {"schema": {"$ref": "#/components/schemas/VideoRefused"}}}
    operation = document["paths"][PATH]["post"]
    responses = {status: answer if status == "200" else answer | {"content": refused} for status, answer in operation["responses"].items()}
    return document | {"paths": document["paths"] | {PATH: {"post": operation | {"responses": responses}}}}


def build_face2face(config: DialectsConfig) -> Dialect:
    """Return the dialect."""
    state: dict[str, Any] = {"face2face_timeout_s": config.face2face_timeout_s}
    outermost = (Middleware(ProblemTranslation, covers=lambda path: path == PATH, translate=_translate),)
    return Dialect(tag=TAG, routers=(router,), outermost=outermost, state=state, describe=_describe)
