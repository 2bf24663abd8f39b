"""Every error raised on purpose, in one tree.

::

    ServiceError                      internal_error
    ├── InvalidInput                  invalid_input            what the caller sent cannot be used
    │   ├── NoFaceDetected            no_face_detected
    │   ├── UnsupportedMedia          unsupported_media        a container, codec or picture format we do not read
    │   ├── MediaTypeMismatch         media_type_mismatch      declared one type, sent another
    │   ├── MediaTooLarge             media_too_large          over a limit on bytes, pixels, frames or seconds
    │   ├── UrlNotAllowed             url_not_allowed          the guard refuses the address
    │   ├── ConsentRequired               consent_required         a face job without the consent that this installation asks for
    │   ├── SigningNotConfigured          c2pa_not_configured      a signed manifest is asked for where there is no certificate
    │   ├── IdempotencyConflict       idempotency_key_reused   same key, another payload
    │   ├── WorkflowInvalid           workflow_invalid         a graph that ComfyUI would refuse; names the nodes and inputs
    │   ├── WorkflowNotConvertible    workflow_not_convertible a UI-format workflow that has no API form
    │   ├── ObjectInfoNeeded          object_info_needed       a UI-format workflow while no backend can describe its nodes
    │   └── BackendNotConfigured      backend_not_configured   no ComfyUI server is set
    ├── NotFound                      not_found
    │   ├── JobNotFound               job_not_found
    │   ├── FileNotFound              file_not_found
    │   ├── WorkflowNotFound          workflow_not_found
    │   ├── BackendNotFound           backend_not_found
    │   ├── SessionNotFound           session_not_found
    │   ├── NoResultYet               no_result_yet
    │   └── StyleNotFound             style_not_found
    ├── Conflict                      conflict                 the state of the thing forbids it
    │   ├── JobExists                 job_exists               same id, another payload
    │   ├── JobNotTerminal            job_not_terminal
    │   └── NameTaken                 name_taken               by something shipped or configured that cannot be replaced
    ├── QueueFull                     queue_full
    │   └── SessionsFull              sessions_full            as many people draw as are admitted at once
    ├── DiskFull                      disk_full                less is free than the operator's floor
    ├── Unavailable                   unavailable              may pass by itself: worth another try
    │   ├── StoreUnavailable          store_unavailable
    │   ├── StoreSuperseded           store_superseded
    │   ├── FetchFailed               fetch_failed
    │   ├── UploadFailed              upload_failed
    │   ├── BackendLost               backend_lost             a ComfyUI or Duix server forgot the job, died or was cut off
    │   ├── BackendUnavailable        backend_unavailable      no ComfyUI or Duix server takes the job now
    │   └── OutputsLost               outputs_lost             computed, but gone before they could be taken out
    ├── EngineFailed                  engine_failed            a fault of ours while computing
    ├── ComfyNodeFailed               comfy_node_failed        a node of the workflow raised
    │   └── ComfyOutOfMemory          comfy_out_of_memory      for want of memory, which another backend or moment may have
    ├── MarkingFailed                 marking_failed           a result could not be marked as generated and is therefore not published
    ├── JobTimedOut                   job_timed_out
    ├── JobStalled                    job_stalled
    └── WorkerLost                    worker_lost              a lease ran out: its worker died or was cut off

Constructor arguments are positional and handed to ``Exception.__init__``: that is what rebuilds an error after the trip between
processes (an exception with keyword-only arguments arrives as an unserialisable one). ``str(error)`` is the sentence shown to
the client: it says what to do and never contains a secret, a path of the server or a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


class ServiceError(Exception):
    """Base of every error we raise on purpose."""

    code: ClassVar[str] = "internal_error"  # stable, part of the API
    retryable: ClassVar[bool] = False  # whether another attempt of the same job may succeed


class InvalidInput(ServiceError):
    """What the caller sent cannot be used; sending it again will not help."""

    code = "invalid_input"


class NoFaceDetected(InvalidInput):
    """No face above the detection threshold."""

    code = "no_face_detected"

    def __init__(self, role: str) -> None:
        super().__init__(role)  # args rebuild the error after pickling
        self.role = role

    def __str__(self) -> str:
        return f"no face found in the {self.role}: send one in which a face is visible, at least 5 % of the picture's height"


class UnsupportedMedia(InvalidInput):
    """The bytes are of no format that we read."""

    code = "unsupported_media"


class MediaTypeMismatch(InvalidInput):
    """The declared media type disagrees with the bytes."""

    code = "media_type_mismatch"

    def __init__(self, declared: str, found: str) -> None:
        super().__init__(declared, found)
        self.declared = declared
        self.found = found

    def __str__(self) -> str:
        return f"declared as {self.declared} but the content is {self.found}: correct media_type or leave it out"


class MediaTooLarge(InvalidInput):
    """Over a limit on bytes, pixels, frames or seconds."""

    code = "media_too_large"


class UrlNotAllowed(InvalidInput):
    """The guarded fetcher refuses this address."""

    code = "url_not_allowed"


class ConsentRequired(InvalidInput):
    """A face job came without the consent of the person shown, which the operator asks for."""

    code = "consent_required"

    def __str__(self) -> str:
        return "this installation changes faces only with consent: send consent {who, reference} of the person shown"


class SigningNotConfigured(InvalidInput):
    """A signed manifest is asked for, and this installation has no certificate to sign with."""

    code = "c2pa_not_configured"

    def __str__(self) -> str:
        return "this installation signs no results: leave out c2pa, or have its operator set a certificate"


class IdempotencyConflict(InvalidInput):
    """An idempotency key came back with another payload."""

    code = "idempotency_key_reused"


@dataclass(frozen=True, slots=True)
class NodeProblem:
    """What is wrong with one input of one node of a workflow."""

    comfy_node: str  # id in the API graph; empty when it is about the whole graph
    title: str
    input: str  # empty when it is about the node as a whole
    kind: str  # ComfyUI's own name, such as value_not_in_list
    message: str
    received: Any = None  # JSON value as sent
    allowed: Any = None  # list of choices (cut short), or {"min", "max"}; JSON


class WorkflowInvalid(InvalidInput):
    """A graph that ComfyUI refuses, or would."""

    code = "workflow_invalid"

    def __init__(self, message: str, problems: Sequence[NodeProblem] = ()) -> None:
        super().__init__(message, tuple(problems))
        self.message = message
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return self.message


class WorkflowNotConvertible(InvalidInput):
    """A UI-format workflow that has no API form."""

    code = "workflow_not_convertible"

    def __init__(self, comfy_node: str, class_type: str, reason: str) -> None:
        super().__init__(comfy_node, class_type, reason)
        self.comfy_node = comfy_node
        self.class_type = class_type
        self.reason = reason

    def __str__(self) -> str:
        return f"node {self.comfy_node} ({self.class_type}) cannot be converted: {self.reason}; export the workflow in API format instead"


class ObjectInfoNeeded(InvalidInput):
    """A UI-format workflow while no backend can describe its nodes."""

    code = "object_info_needed"
    retryable = True


class BackendNotConfigured(InvalidInput):
    """No ComfyUI server is set."""

    code = "backend_not_configured"


class NotFound(ServiceError):
    """There is no such thing, or not for this caller."""

    code = "not_found"


class LinkRefused(ServiceError):
    """A link to a file that is not signed, was changed or has ended."""

    code = "link_refused"


class WebhookRefused(InvalidInput):
    """The job's webhook could not be signed."""

    code = "webhook_refused"


class DeliveryNotFound(NotFound):
    """No webhook delivery has this id."""

    code = "delivery_not_found"

    def __init__(self, delivery_id: str) -> None:
        super().__init__(delivery_id)
        self.delivery_id = delivery_id

    def __str__(self) -> str:
        return f"there is no webhook delivery {self.delivery_id}"


class JobNotFound(NotFound):
    """No job has this id."""

    code = "job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"there is no job {self.job_id}"


class FileNotFound(NotFound):
    """No published file has this id."""

    code = "file_not_found"

    def __init__(self, file_id: str) -> None:
        super().__init__(file_id)
        self.file_id = file_id

    def __str__(self) -> str:
        return f"there is no file {self.file_id}"


class WorkflowNotFound(NotFound):
    """No workflow has this name, or not in this version."""

    code = "workflow_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"there is no workflow {self.name}: GET /v1/workflows lists them"


class BackendNotFound(NotFound):
    """No ComfyUI backend has this name."""

    code = "backend_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"there is no backend {self.name}: GET /v1/admin/backends lists them"


class SessionNotFound(NotFound):
    """No drawing session has this id, or not any more."""

    code = "session_not_found"

    def __init__(self, session_id: str) -> None:
        super().__init__(session_id)
        self.session_id = session_id

    def __str__(self) -> str:
        return "there is no such session: it has sent no sketch yet, or it was idle for so long that it has ended; send a sketch to begin"


class NoResultYet(NotFound):
    """The session's first picture is not ready."""

    code = "no_result_yet"


class StyleNotFound(NotFound):
    """No style has this name."""

    code = "style_not_found"


class Conflict(ServiceError):
    """The state of the thing forbids the request."""

    code = "conflict"


class JobExists(Conflict):
    """A client-made job id is taken by another payload."""

    code = "job_exists"

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"job {self.job_id} exists with another payload: choose a new id"


class JobNotTerminal(Conflict):
    """The job has not ended yet."""

    code = "job_not_terminal"

    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(job_id, status)
        self.job_id = job_id
        self.status = status

    def __str__(self) -> str:
        return f"job {self.job_id} is {self.status}: cancel it or wait for its end"


class NameTaken(Conflict):
    """The name belongs to something that a request cannot replace."""

    code = "name_taken"


class QueueFull(ServiceError):
    """The pool has as many waiting jobs as it admits."""

    code = "queue_full"
    retryable = True

    def __init__(self, pool: str, limit: int, retry_after_s: int) -> None:
        super().__init__(pool, limit, retry_after_s)
        self.pool = pool
        self.limit = limit
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.limit} jobs already wait for the {self.pool} pool: try again in {self.retry_after_s} s"


class SessionsFull(QueueFull):
    """As many sessions are active as are admitted at once."""

    code = "sessions_full"
    retryable = True

    def __init__(self, place: int) -> None:
        ServiceError.__init__(self, place)
        self.place = place
        self.retry_after_s = 2

    def __str__(self) -> str:
        return f"full: as many people draw as this service admits at once; you are number {self.place} in line, so keep trying"


class DiskFull(ServiceError):
    """The disk of the data has less free space than the operator's floor."""

    code = "disk_full"
    retryable = True

    def __init__(self, free_mib: int, floor_mib: int) -> None:
        super().__init__(free_mib, floor_mib)
        self.free_mib = free_mib
        self.floor_mib = floor_mib

    def __str__(self) -> str:
        return f"the service's disk is nearly full ({self.free_mib} MiB free, {self.floor_mib} MiB are kept): its operator has to make room"


class Unavailable(ServiceError):
    """Something that we depend on did not answer; it may by itself."""

    code = "unavailable"
    retryable = True


class StoreUnavailable(Unavailable):
    """The job store did not answer."""

    code = "store_unavailable"


class StoreSuperseded(Unavailable):
    """A newer job store has opened the database: this one may not write any more."""

    code = "store_superseded"


class FetchFailed(Unavailable):
    """An input could not be downloaded."""

    code = "fetch_failed"


class UploadFailed(Unavailable):
    """An artifact could not be stored; the store may have said when to come again."""

    code = "upload_failed"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s)
        self.message = message
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class BackendLost(Unavailable):
    """A ComfyUI or Duix server forgot the job, died or was cut off while it had it."""

    code = "backend_lost"


class BackendUnavailable(Unavailable):
    """No ComfyUI or Duix server takes the job now; the attempt is handed back and costs no try."""

    code = "backend_unavailable"


class OutputsLost(Unavailable):
    """The outputs were computed, but were gone before they could be taken out."""

    code = "outputs_lost"


class EngineFailed(ServiceError):
    """The engine broke on an input that it should have taken."""

    code = "engine_failed"
    retryable = True


class ComfyNodeFailed(ServiceError):
    """A node of the workflow raised; running it again would raise again."""

    code = "comfy_node_failed"

    def __init__(self, comfy_node: str, class_type: str, title: str, reason: str) -> None:
        super().__init__(comfy_node, class_type, title, reason)
        self.comfy_node = comfy_node
        self.class_type = class_type
        self.title = title
        self.reason = reason

    def __str__(self) -> str:
        return f"node {self.comfy_node} ({self.title or self.class_type}) failed: {self.reason}"


class ComfyOutOfMemory(ComfyNodeFailed):
    """A node raised for want of memory."""

    code = "comfy_out_of_memory"
    retryable = True


class MarkingFailed(ServiceError):
    """A result could not be marked as generated: it is not published."""

    code = "marking_failed"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name} could not be marked as generated and is not published: {self.reason}"


class ContentRefused(InvalidInput):
    """The operator's content filter refused an input or a result; nothing of the job is published."""

    code = "content_refused"

    def __init__(self, shown: str) -> None:
        super().__init__(shown)
        self.shown = shown

    def __str__(self) -> str:
        return f"the content filter of this service refuses {self.shown}: nothing was made or kept of it"


class JobTimedOut(ServiceError):
    """The attempt ran longer than the job's ``timeout_s``."""

    code = "job_timed_out"


class JobStalled(ServiceError):
    """The worker lives, but the job made no progress for too long."""

    code = "job_stalled"


class WorkerLost(ServiceError):
    """The lease ran out without a heartbeat."""

    code = "worker_lost"
    retryable = True
