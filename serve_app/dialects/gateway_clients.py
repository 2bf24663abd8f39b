"""Whose prompt is whose: the gateway's clients name themselves, and hear of their own prompts only."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Mapping
from typing import Annotated, Any, Final, cast

from fastapi import Depends
from pydantic import TypeAdapter, ValidationError
from starlette.requests import HTTPConnection

from deployments.comfyui_bridge.desk import ComfyDesk
from deployments.jobs.errors import BackendUnavailable, InvalidInput, JobNotFound
from deployments.jobs.model import Job, JsonObject
from deployments.jobs.options import LabelValue
from deployments.jobs.service import JobService
from serve_app.dialects.submits import submit, workflow_request

LABEL: Final = "client_id"  # of a job: the client that submitted it
MAX_KNOWN: Final = 10_000  # prompts whose client is remembered: those of a day at a busy studio, in a few megabytes

_CLIENT_ID: TypeAdapter[str] = TypeAdapter(LabelValue)


def parse_client_id(value: object) -> str:
    """Read the id that a client gives itself; make one up where it gives none.

    Raises:
        InvalidInput: not text, or longer than a label of a job.
    """
    if value is None or value == "":
        return str(uuid.uuid4())
    try:
        return _CLIENT_ID.validate_python(value)
    except ValidationError:
        raise InvalidInput("a client_id is text of at most 255 characters") from None


class GatewayState:
    """What the gateway's routes share in one replica."""

    def __init__(self, patience_s: float) -> None:
        """Prepare; ``patience_s`` is how long ComfyUI may have been away before clients are told so."""
        self._patience_s = patience_s
        self._client_of: OrderedDict[tuple[str, str], str | None] = OrderedDict()  # (tenant, job id)

    async def submit(
        self,
        service: JobService,
        desk: ComfyDesk,
        tenant: str,
        workflow: str | JsonObject,
        client_id: str,
        inputs: Mapping[str, Any] | None = None,
    ) -> Job:
        """Accept a prompt for a client.

        Raises:
            BackendUnavailable: no ComfyUI server was healthy for a while: these clients expect to be told, where others wait.
        """
        if not await desk.servers.reachable(self._patience_s):
            raise BackendUnavailable(f"no ComfyUI server has been healthy for {self._patience_s:g} s: try again later")
        job = await submit(service, tenant, workflow_request(workflow, inputs=inputs, labels={LABEL: client_id}))
        self._remember(tenant, job)
        return job

    async def client_of(self, service: JobService, tenant: str, job_id: str) -> str | None:
        """Return whose prompt a job is; None when it is no client's of the gateway, or gone."""
        key = (tenant, job_id)
        if key in self._client_of:
            self._client_of.move_to_end(key)
            return self._client_of[key]
        try:
            return self._remember(tenant, await service.get(job_id, tenant=tenant))
        except JobNotFound:
            return None

    def _remember(self, tenant: str, job: Job) -> str | None:
        self._client_of[tenant, job.id] = client = job.labels.get(LABEL)
        if len(self._client_of) > MAX_KNOWN:
            self._client_of.popitem(last=False)
        return client


def _state(connection: HTTPConnection) -> GatewayState:
    return cast("GatewayState", connection.app.state.gateway)


Gateway = Annotated[GatewayState, Depends(_state)]
