"""A prompt as the jobs API shows it."""

from __future__ import annotations

from dataclasses import dataclass

from deployments.fake_comfyui.graph import JsonObject
from deployments.fake_comfyui.prompt_queue import QueuedPrompt

STATUSES = {"pending", "in_progress", "completed", "failed", "cancelled"}
PREVIEWED = ("images", "video", "audio", "gifs", "3d")  # keys of outputs that a preview is looked for under


@dataclass(frozen=True, slots=True)
class Job:
    """One job. What is None is left out of the answer."""

    id: str
    status: str
    priority: float
    create_time: int | None
    workflow_id: str | None
    workflow: JsonObject
    start_time: int | None = None  # ms
    end_time: int | None = None
    error: JsonObject | None = None
    outputs: JsonObject | None = None
    execution_status: JsonObject | None = None

    @property
    def duration(self) -> int | None:
        """How long it ran, ms."""
        return None if self.start_time is None or self.end_time is None else self.end_time - self.start_time

    def summary(self) -> JsonObject:
        """Return the job as lists show it."""
        items = list(_items(self.outputs or {}))
        body = {
            "id": self.id,
            "status": self.status,
            "priority": self.priority,
            "create_time": self.create_time,
            "execution_start_time": self.start_time,
            "execution_end_time": self.end_time,
            "execution_error": self.error,
            "outputs_count": None if self.outputs is None else len(items),
            "preview_output": items[0] if items else None,
            "workflow_id": self.workflow_id,
        }
        return {name: value for name, value in body.items() if value is not None}

    def detail(self) -> JsonObject:
        """Return all there is of the job."""
        more = {"outputs": self.outputs or {}, "execution_status": self.execution_status, "workflow": self.workflow}
        return self.summary() | {name: value for name, value in more.items() if value is not None}


def job_of_queue(prompt: QueuedPrompt, status: str) -> Job:
    """Return a prompt that waits or runs."""
    workflow = {"prompt": prompt.graph, "extra_data": prompt.extra_data}
    return Job(prompt.prompt_id, status, prompt.number, prompt.extra_data.get("create_time"), _workflow_id(prompt.extra_data), workflow)


def job_of_history(entry: JsonObject) -> Job:
    """Return a prompt that ended."""
    number, prompt_id, graph, extra_data, _ = entry["prompt"]
    events = dict(entry["status"]["messages"])
    last_event, last = entry["status"]["messages"][-1]
    statuses = {"execution_success": "completed", "execution_interrupted": "cancelled"}
    return Job(
        prompt_id,
        statuses.get(last_event, "failed"),
        number,
        extra_data.get("create_time"),
        _workflow_id(extra_data),
        {"prompt": graph, "extra_data": extra_data},
        events["execution_start"]["timestamp"],
        last["timestamp"],
        events.get("execution_error"),
        entry["outputs"],
        entry["status"],
    )


def _workflow_id(extra_data: JsonObject) -> str | None:
    workflow = (extra_data.get("extra_pnginfo") or {}).get("workflow") or {}
    return workflow.get("id")


def _items(outputs: JsonObject) -> list[JsonObject]:
    return [
        {**item, "nodeId": node_id, "mediaType": key}
        for node_id, ui in outputs.items()
        for key, values in ui.items()
        if key in PREVIEWED
        for item in values
        if isinstance(item, dict)
    ]
