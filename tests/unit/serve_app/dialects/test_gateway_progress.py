"""A job's life in ComfyUI's own messages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.jobs.events import EventId, EventType, JobEvent
from deployments.jobs.model import Artifact, Job, JobError, JobStatus, Progress, Stage
from serve_app.dialects.gateway_progress import ExecutionMessages, ended_messages, history_of

PICTURE = Artifact("file-1", "job-1_9_1.png", "image/png", "local://x", 10, "00", comfy_node="9")
JOB = Job(
    id="job-1", tenant="default", kind="comfyui", pool="comfyui", spec={}, requires=None, status=JobStatus.SUCCEEDED, attempt=1, max_attempts=3,
    priority=0, timeout_s=10, created_at=1.0, not_before=None, started_at=2.0, finished_at=3.0, idempotency_key=None, coalesce_key=None, coalesce_seq=None,
    parent_id=None, retry_of=None, estimate_s=None, webhook=None, labels={}, cancel_requested=False, owner=None, lease_until=None, progress=None,
    outputs=(PICTURE,), error=None, attempts=(), timings={},
)  # fmt: skip


def event(n: int, status: JobStatus, progress: Progress | None = None, attempt: int = 1) -> JobEvent:
    kind = EventType.STATE if progress is None else EventType.PROGRESS
    return JobEvent(EventId(1, n), kind, "job-1", "default", float(n), status, attempt, progress)


def computing(node: str | None, step: int | None = None, steps: int | None = None) -> Progress:
    return Progress(Stage.COMPUTING, 0.5, comfy_node=node, step=step, steps=steps)


def test_messages_name_each_node_once_and_every_step():
    messages = ExecutionMessages()
    events = [
        event(1, JobStatus.QUEUED),
        event(2, JobStatus.RUNNING),
        event(3, JobStatus.RUNNING, computing(None)),
        event(4, JobStatus.RUNNING, computing("3", 1, 4)),
        event(5, JobStatus.RUNNING, computing("3", 2, 4)),
        event(6, JobStatus.RUNNING, computing("9")),
    ]
    told = [message for one in events for message in messages.of(one)]
    assert [(message["type"], message["data"].get("node"), message["data"].get("value")) for message in told] == [
        ("execution_start", None, None),
        ("executing", "3", None),
        ("progress", "3", 1),
        ("progress", "3", 2),
        ("executing", "9", None),
    ]
    assert {message["data"]["prompt_id"] for message in told} == {"job-1"}
    assert told[0]["data"]["timestamp"] == 2000


def test_messages_begin_again_with_another_attempt():
    messages = ExecutionMessages()
    first = [event(1, JobStatus.RUNNING), event(2, JobStatus.RUNNING, computing("3"))]
    again = [event(3, JobStatus.QUEUED), event(4, JobStatus.RUNNING, attempt=2), event(5, JobStatus.RUNNING, computing("3"), attempt=2)]
    for one in first:
        messages.of(one)
    assert [message["type"] for one in again for message in messages.of(one)] == ["execution_start", "executing"]


def test_ended_messages_of_a_success_have_the_outputs_by_node():
    executed, nothing, success = ended_messages(JOB, 3.0)
    images = {"images": [{"filename": "job-1_9_1.png", "subfolder": "", "type": "output"}]}
    assert executed == {"type": "executed", "data": {"prompt_id": "job-1", "node": "9", "display_node": "9", "output": images}}
    assert nothing == {"type": "executing", "data": {"prompt_id": "job-1", "node": None}}
    assert success == {"type": "execution_success", "data": {"prompt_id": "job-1", "timestamp": 3000}}


def test_ended_messages_of_a_failure_name_the_node_and_no_traceback():
    error = JobError("comfy_node_failed", "node 3 (KSampler) failed", False, {"nodes": [{"comfy_node": "3"}]})
    (message,) = ended_messages(replace(JOB, status=JobStatus.FAILED, error=error, outputs=()), 3.0)
    assert message["type"] == "execution_error"
    assert message["data"] == {
        "prompt_id": "job-1", "node_id": "3", "executed": [], "exception_message": "node 3 (KSampler) failed",
        "exception_type": "comfy_node_failed", "traceback": [], "timestamp": 3000,
    }  # fmt: skip


def test_ended_messages_of_a_cancelled_prompt_say_interrupted():
    (message,) = ended_messages(replace(JOB, status=JobStatus.CANCELLED, outputs=()), 3.0)
    assert message == {"type": "execution_interrupted", "data": {"prompt_id": "job-1", "node_id": None, "executed": [], "timestamp": 3000}}


@pytest.mark.parametrize(
    ("artifact", "lists"),
    [
        (replace(PICTURE, temporary=True), {"images": [{"filename": PICTURE.name, "subfolder": "", "type": "temp"}]}),
        (
            replace(PICTURE, name="job-1_9_1.mp4", media_type="video/mp4"),
            {"images": [{"filename": "job-1_9_1.mp4", "subfolder": "", "type": "output"}], "animated": [True]},
        ),
        (
            replace(PICTURE, name="job-1_9_1.wav", media_type="audio/wav"),
            {"audio": [{"filename": "job-1_9_1.wav", "subfolder": "", "type": "output"}]},
        ),
    ],
)
def test_history_sorts_outputs_by_what_they_are(artifact, lists):
    entry = history_of(replace(JOB, outputs=(artifact,)))
    assert entry == {"prompt_id": "job-1", "outputs": {"9": lists}, "status": {"status_str": "success", "completed": True, "messages": []}}


def test_history_names_the_output_of_a_face_swap_after_its_job():
    swapped = Artifact("file-2", "result.png", "image/png", "local://y", 10, "00")
    assert history_of(replace(JOB, outputs=(swapped,)))["outputs"] == {
        "result": {"images": [{"filename": "job-1_result.png", "subfolder": "", "type": "output"}]}
    }
