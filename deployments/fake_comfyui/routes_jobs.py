"""HTTP routes of the jobs API: the same prompts in another shape, and cancelling in one call."""

from __future__ import annotations

import uuid

from aiohttp import web

from deployments.fake_comfyui.backend import Backend
from deployments.fake_comfyui.graph import JsonObject
from deployments.fake_comfyui.job_view import STATUSES, Job, job_of_history, job_of_queue
from deployments.fake_comfyui.routes_queue import read_json

SORT_KEYS = {"created_at": "create_time", "execution_duration": "duration"}


class JobRoutes:
    """The handlers."""

    def __init__(self, backend: Backend) -> None:
        self._queue = backend.queue

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, which begin with /api already."""
        return [
            web.get("/api/jobs", self.list_jobs),
            web.get("/api/jobs/{job_id}", self.get_job),
            web.post("/api/jobs/cancel", self.cancel_jobs),
            web.post("/api/jobs/{job_id}/cancel", self.cancel_job),
        ]

    async def list_jobs(self, request: web.Request) -> web.Response:
        """List jobs: filtered, sorted, in pages."""
        query = request.query
        wanted = {name.strip() for name in query.get("status", "").split(",") if name.strip()}
        sort_by, descending = query.get("sort_by", "created_at"), query.get("sort_order", "desc") != "asc"
        try:
            offset, limit = max(0, int(query.get("offset", "0"))), int(query["limit"]) if "limit" in query else None
        except ValueError:
            return _bad_request("limit and offset must be integers")
        if not wanted <= STATUSES or sort_by not in SORT_KEYS or (limit is not None and limit <= 0):
            return _bad_request("invalid status, sort_by or limit")
        jobs = [job for job in self._jobs() if (not wanted or job.status in wanted) and query.get("workflow_id") in {None, job.workflow_id}]
        jobs.sort(key=lambda job: float(getattr(job, SORT_KEYS[sort_by]) or 0), reverse=descending)
        page = jobs[offset:] if limit is None else jobs[offset : offset + limit]
        pagination = {"offset": offset, "limit": limit, "total": len(jobs), "has_more": offset + len(page) < len(jobs)}
        return web.json_response({"jobs": [job.summary() for job in page], "pagination": pagination})

    async def get_job(self, request: web.Request) -> web.Response:
        """Return one job in full."""
        job = next((job for job in self._jobs() if job.id == request.match_info["job_id"]), None)
        if job is None:
            return web.json_response({"error": "Job not found"}, status=404)
        return web.json_response(job.detail())

    async def cancel_job(self, request: web.Request) -> web.Response:
        """Cancel one job, waiting or running."""
        return web.json_response({"cancelled": self._cancel(request.match_info["job_id"])})

    async def cancel_jobs(self, request: web.Request) -> web.Response:
        """Cancel several jobs."""
        body = await read_json(request)
        job_ids = body.get("job_ids")
        if not isinstance(job_ids, list) or not all(map(_is_uuid, job_ids)):
            return _bad_request("job_ids must be a list of UUIDs")
        return web.json_response({"cancelled": True in {self._cancel(job_id) for job_id in job_ids}})

    def _cancel(self, job_id: str) -> bool:
        return self._queue.delete(job_id) or self._queue.interrupt(job_id)

    def _jobs(self) -> list[Job]:
        running, waiting = self._queue.snapshot()
        ended: list[JsonObject] = list(self._queue.history().values())
        jobs = [job_of_queue(prompt, "in_progress") for prompt in running] + [job_of_queue(prompt, "pending") for prompt in waiting]
        return jobs + [job_of_history(entry) for entry in ended]


def _is_uuid(text: object) -> bool:
    try:
        return isinstance(text, str) and bool(uuid.UUID(text))
    except ValueError:
        return False


def _bad_request(message: str) -> web.Response:
    return web.json_response({"error": message}, status=400)
