"""A job's life in ComfyUI's own words: its history entry, and the ``{type, data}`` messages of its WebSocket."""

from __future__ import annotations

from itertools import groupby
from typing import Final

from deployments.jobs.events import EventType, JobEvent
from deployments.jobs.model import Artifact, Job, JobStatus, JsonObject
from serve_app.dialects.pictures import file_name_of

STATUS_STR: Final = {
    JobStatus.QUEUED: "pending",
    JobStatus.RUNNING: "running",
    JobStatus.SUCCEEDED: "success",
    JobStatus.FAILED: "error",
    JobStatus.CANCELLED: "interrupted",
}
WHOLE_JOB: Final = "result"  # stands for the node where a job has none


def outputs_of(job: Job) -> JsonObject:
    """Return the outputs by node id, as ``/history`` has them: ``{"9": {"images": [{filename, subfolder, type}]}}``."""
    by_node = sorted(job.outputs, key=_node_of)  # stable: within a node they stay in their order
    return {node: _lists(job, list(artifacts)) for node, artifacts in groupby(by_node, _node_of)}


def _node_of(artifact: Artifact) -> str:
    return artifact.comfy_node or WHOLE_JOB


def _lists(job: Job, artifacts: list[Artifact]) -> JsonObject:
    # Videos stand among the images and are marked as animated, as ComfyUI's own SaveVideo does.
    lists: JsonObject = {}
    for artifact in artifacts:
        folder = "temp" if artifact.temporary else "output"
        entry = {"filename": file_name_of(job.id, artifact), "subfolder": "", "type": folder}
        major = artifact.media_type.partition("/")[0]
        lists.setdefault("audio" if major == "audio" else "images", []).append(entry)
        if major == "video":
            lists["animated"] = [True]
    return lists


def history_of(job: Job) -> JsonObject:
    """Return what the gateway's history says of a job."""
    status = {"status_str": STATUS_STR[job.status], "completed": job.status is JobStatus.SUCCEEDED, "messages": []}
    return {"prompt_id": job.id, "outputs": outputs_of(job), "status": status}


class ExecutionMessages:
    """Translates the events of one job, in their order; remembers which node was named last."""

    def __init__(self) -> None:
        self._node: str | None = None

    def of(self, event: JobEvent) -> list[JsonObject]:
        """Return the messages of an event that is not the last one."""
        if event.type is EventType.STATE:
            self._node = None
            return (
                [_message("execution_start", event.job_id, timestamp=_milliseconds(event.at))] if event.status is JobStatus.RUNNING else []
            )
        progress = event.progress
        if progress is None or progress.comfy_node is None:
            return []
        node, messages = progress.comfy_node, list[JsonObject]()
        if node != self._node:
            self._node = node
            messages.append(_message("executing", event.job_id, node=node, display_node=node))
        if progress.step is not None and progress.steps:
            messages.append(_message("progress", event.job_id, node=node, value=progress.step, max=progress.steps))
        return messages


def ended_messages(job: Job, at: float) -> list[JsonObject]:
    """Return the messages of the end of a job."""
    when = _milliseconds(at)
    if job.status is JobStatus.SUCCEEDED:
        executed = [_message("executed", job.id, node=node, display_node=node, output=output) for node, output in outputs_of(job).items()]
        return [*executed, _message("executing", job.id, node=None), _message("execution_success", job.id, timestamp=when)]
    where: JsonObject = {"node_id": _node_at_fault(job), "executed": []}
    if job.status is JobStatus.CANCELLED:
        return [_message("execution_interrupted", job.id, **where, timestamp=when)]
    # Of ComfyUI's message the traceback and the values are left out: they are the server's.
    said = {"exception_message": job.error.message if job.error else "", "exception_type": job.error.code if job.error else ""}
    return [_message("execution_error", job.id, **where, **said, traceback=[], timestamp=when)]


def _node_at_fault(job: Job) -> str | None:
    nodes = ((job.error.details if job.error else None) or {}).get("nodes") or [{}]
    node: str | None = nodes[0].get("comfy_node")
    return node


def _message(kind: str, prompt_id: str, **data: object) -> JsonObject:
    return {"type": kind, "data": {"prompt_id": prompt_id, **data}}


def _milliseconds(at: float) -> int:
    return int(at * 1000)
