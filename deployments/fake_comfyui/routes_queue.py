"""HTTP routes of prompts: submit, queue, history, interrupt."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any

from aiohttp import web

from deployments.fake_comfyui.backend import Backend
from deployments.fake_comfyui.graph import JsonObject
from deployments.fake_comfyui.prompt_queue import QueuedPrompt
from deployments.fake_comfyui.validation import MalformedPrompt, validate_prompt

SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")  # never shown in queue and history

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class QueueRoutes:
    """The handlers."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._queue = backend.queue

    def routes(self) -> list[web.RouteDef]:
        """Return the routes without their twins under /api."""
        return [
            web.get("/prompt", self.get_prompt),
            web.post("/prompt", self.post_prompt),
            web.get("/queue", self.get_queue),
            web.post("/queue", self.post_queue),
            web.post("/interrupt", self.post_interrupt),
            web.get("/history", self.get_history),
            web.get("/history/{prompt_id}", self.get_history_entry),
            web.post("/history", self.post_history),
            web.post("/free", self.post_free),
        ]

    async def get_prompt(self, _request: web.Request) -> web.Response:
        """Tell how many prompts remain."""
        return web.json_response(self._backend.status)

    async def post_prompt(self, request: web.Request) -> web.Response:
        """Validate a prompt and queue it."""
        body = await read_json(request)
        number = float(body["number"]) if "number" in body else self._queue.take_number(front=bool(body.get("front")))
        if "prompt" not in body:
            return _refuse({"type": "no_prompt", "message": "No prompt provided", "details": "No prompt provided", "extra_info": {}})
        prompt_id = body["prompt_id"] if "prompt_id" in body else str(uuid.uuid4())
        if not isinstance(prompt_id, str) or not _UUID.fullmatch(prompt_id):
            message = "prompt_id must be a canonical lowercase hyphenated UUID"
            return _refuse({"type": "invalid_prompt_id", "message": message, "details": f"{prompt_id}", "extra_info": {}})
        try:
            verdict = validate_prompt(body["prompt"], body.get("partial_execution_targets"), self._backend.classes, self._backend.site)
        except MalformedPrompt as error:
            raise in_trouble() from error
        if verdict.error is not None:
            return _refuse(verdict.error, verdict.node_errors)
        twin = self._queue.put(QueuedPrompt(number, prompt_id, body["prompt"], _extra_data(body), verdict.outputs))
        if twin and self._backend.site.config.hazards.duplicate_id_500:
            raise in_trouble()
        return web.json_response({"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors})

    async def get_queue(self, _request: web.Request) -> web.Response:
        """List what runs and what waits, whole graphs included."""
        running, waiting = self._queue.snapshot()
        queue = {"queue_running": [prompt.to_json() for prompt in running], "queue_pending": [prompt.to_json() for prompt in waiting]}
        return web.json_response(queue)

    async def post_queue(self, request: web.Request) -> web.Response:
        """Delete prompts that wait; others are left alone."""
        body = await read_json(request)
        if body.get("clear"):
            self._queue.clear()
        for prompt_id in body.get("delete", []):
            self._queue.delete(prompt_id)
        return web.Response()

    async def post_interrupt(self, request: web.Request) -> web.Response:
        """Interrupt what runs, or one prompt if it runs."""
        body = await _read_optional_json(request)
        self._queue.interrupt(body.get("prompt_id") or None)
        return web.Response()

    async def get_history(self, request: web.Request) -> web.Response:
        """Return the history, oldest first."""
        max_items, offset = (_optional_int(request, name) for name in ("max_items", "offset"))
        return web.json_response(self._queue.history(max_items, offset))

    async def get_history_entry(self, request: web.Request) -> web.Response:
        """Return one prompt's entry, or an empty object while it waits or runs, or if it is unknown."""
        prompt_id = request.match_info["prompt_id"]
        entry = self._queue.find_history(prompt_id)
        return web.json_response({} if entry is None else {prompt_id: entry})

    async def post_history(self, request: web.Request) -> web.Response:
        """Forget prompts that ended."""
        body = await read_json(request)
        if body.get("clear"):
            self._queue.clear_history()
        for prompt_id in body.get("delete", []):
            self._queue.delete_history(prompt_id)
        return web.Response()

    async def post_free(self, request: web.Request) -> web.Response:
        """Drop the cache when asked to free memory."""
        body = await read_json(request)
        if body.get("free_memory"):
            self._backend.worker.free()
        return web.Response()


async def read_json(request: web.Request) -> JsonObject:
    """Return the body, whatever its declared type; one that is no JSON object gets the 500 that real servers answer."""
    try:
        body = await request.json()
    except ValueError as error:
        raise in_trouble() from error
    if not isinstance(body, dict):
        raise in_trouble()
    return body


def in_trouble() -> web.HTTPInternalServerError:
    """Return the answer of a handler that broke."""
    return web.HTTPInternalServerError(text="500 Internal Server Error\n\nServer got itself in trouble")


async def _read_optional_json(request: web.Request) -> JsonObject:
    try:
        body = await request.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _optional_int(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    try:
        return None if text is None else int(text)
    except ValueError as error:
        raise in_trouble() from error


def _extra_data(body: JsonObject) -> dict[str, Any]:  # what a client sent
    extra_data = {name: value for name, value in body.get("extra_data", {}).items() if name not in SECRETS}
    if "client_id" in body:
        extra_data["client_id"] = body["client_id"]
    return extra_data | {"create_time": int(time.time() * 1000)}


def _refuse(error: JsonObject, node_errors: JsonObject | None = None) -> web.Response:
    return web.json_response({"error": error, "node_errors": node_errors or {}}, status=400)
