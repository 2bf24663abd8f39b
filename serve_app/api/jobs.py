"""Jobs: submit, read, wait, list, cancel, retry, delete."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Response

from deployments.jobs.model import Job, JobQuery, JobStatus
from deployments.jobs.service import JobService, Submission
from serve_app.api.dependencies import LinksTo, Service, Tenant, require_json
from serve_app.api.errors import documented
from serve_app.api.links import Links
from serve_app.api.preferences import PreferredWait
from serve_app.api.requests import JobRequest
from serve_app.api.schemas import JOB_ID_EXAMPLE, JobList, JobView

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

TAKES_NO_BODY = re.compile(r"/v1/jobs/[^/]+/(cancel|retry)")

JobId = Annotated[str, Path(description="id of a job", examples=[JOB_ID_EXAMPLE])]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="the same request with the same key finds the first one's job",
        examples=["8e03978e-40d5-43e8-bc93-6894a57f9324"],
    ),
]

ENDED: dict[int | str, dict[str, Any]] = {200: {"model": JobView, "description": "The job has ended"}}


@router.post(
    "",
    status_code=202,
    summary="Submit a job",
    responses=ENDED | documented(400, 404, 409, 413, 415, 422, 429, 503, 507),
    dependencies=[Depends(require_json)],
)
async def create_job(
    request: Annotated[JobRequest, Body()],
    response: Response,
    service: Service,
    tenant: Tenant,
    links: LinksTo,
    preferred_wait_s: PreferredWait,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Accept a job; it is on disk when this answers and survives any crash from then on.

    `kind` says what it is: `faceswap` (the default), `face2face`, `reference` or `comfyui`.
    A media reference is `{"url"}`, `{"file_id"}` or `{"base64", "media_type"}`; a bare string is a URL or a file id.
    """
    submission = await service.submit(request.to_spec(), request.to_options(), tenant=tenant, idempotency_key=idempotency_key)
    return await accepted(submission, preferred_wait_s, response, service, links)


@router.get("", summary="List jobs, newest first", responses=documented(422, 503))
async def list_jobs(
    service: Service,
    tenant: Tenant,
    links: LinksTo,
    status: Annotated[JobStatus | None, Query()] = None,
    kind: Annotated[str | None, Query(pattern=r"^[a-z0-9_]{1,32}$", examples=["faceswap"])] = None,
    label: Annotated[
        str | None, Query(description="name:value", pattern=r"^[^:\x00]{1,64}:[^\x00]{0,255}$", examples=["project:spring"])
    ] = None,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before", max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobList:
    """List the jobs that fit all given filters."""
    name, _, value = (label or "").partition(":")
    query = JobQuery(tenant, status, kind, (name, value) if label else None, cursor, limit)
    page = await service.list_jobs(query)
    return JobList(jobs=[JobView.of(job, links) for job in page.jobs], next_cursor=page.next_cursor)


@router.get("/{job_id}", summary="Read a job", responses=documented(404, 422, 503))
async def read_job(
    job_id: JobId,
    service: Service,
    tenant: Tenant,
    links: LinksTo,
    wait: Annotated[float, Query(ge=0, le=3600, allow_inf_nan=False, description="answer when it has ended, or after so many seconds")] = 0,
) -> JobView:
    """Read a job, now or at its end. The server may wait less than asked for: look at `status`."""
    return JobView.of(await service.get(job_id, wait_s=wait, tenant=tenant), links)


@router.delete("/{job_id}", status_code=204, summary="Delete an ended job and its outputs", responses=documented(404, 409, 422, 503))
async def delete_job(job_id: JobId, service: Service, tenant: Tenant) -> None:
    """Forget a job and remove the bytes of its outputs. Uploaded inputs stay."""
    await service.delete(job_id, tenant=tenant)


@router.post("/{job_id}/cancel", status_code=202, summary="Cancel a job", responses=ENDED | documented(404, 422, 503))
async def cancel_job(job_id: JobId, response: Response, service: Service, tenant: Tenant, links: LinksTo) -> JobView:
    """Cancel at once when queued (200), between two steps when running (202, `cancel_requested`); an ended job stays as it is (200)."""
    return _shown(await service.cancel(job_id, tenant=tenant), response, links)


@router.post(
    "/{job_id}/retry", status_code=202, summary="Run an ended job again", responses=ENDED | documented(404, 409, 422, 429, 503, 507)
)
async def retry_job(
    job_id: JobId,
    response: Response,
    service: Service,
    tenant: Tenant,
    links: LinksTo,
    preferred_wait_s: PreferredWait,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Submit an ended job again: a new job that names the old one in `retry_of`."""
    submission = await service.retry(job_id, tenant=tenant, idempotency_key=idempotency_key)
    return await accepted(submission, preferred_wait_s, response, service, links)


async def accepted(submission: Submission, preferred_wait_s: int | None, response: Response, service: JobService, links: Links) -> JobView:
    """Show a job that was submitted, waiting for its end as the client prefers."""
    job = submission.job
    if not submission.created:
        response.headers["Idempotency-Replayed"] = "true"
    if preferred_wait_s is not None:
        wait_s = int(service.clamp_wait(preferred_wait_s))
        response.headers["Preference-Applied"] = f"wait={wait_s}"
        job = await service.wait(job, wait_s)
    return _shown(job, response, links)


def _shown(job: Job, response: Response, links: Links) -> JobView:
    """Show a job that was asked for: 200 when it has ended, else 202."""
    response.headers["Location"] = links.job(job.id)
    if job.status.terminal:
        response.status_code = 200
    return JobView.of(job, links)
