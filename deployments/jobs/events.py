"""What a job tells the world while it lives.

An event's id is ``<epoch>-<n>``: the epoch rises at every start of the store and ``n`` at every event, so an id is never given
twice although progress is not stored. It is the ``id`` of a server-sent event and the resume token of a WebSocket.
State events are durable and replayed; of progress a reader gets the newest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

from deployments.jobs.errors import InvalidInput
from deployments.jobs.model import Artifact, JobError, JobStatus, Progress

EVENT_ID = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")  # 18 digits fit into 63 bits, as the database's integers do


class EventId(NamedTuple):
    """Order of an event among all events of all stores; compares as a tuple."""

    epoch: int
    n: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.n}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"<epoch>-<n>"``.

        Raises:
            InvalidInput: not of that form.
        """
        found = EVENT_ID.fullmatch(text)
        if found is None:
            raise InvalidInput("an event id looks like 3-141: send the id of the last event you saw")
        return cls(int(found[1]), int(found[2]))


class EventType(StrEnum):
    """What changed."""

    STATE = "state"
    PROGRESS = "progress"


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One change of one job."""

    id: EventId
    type: EventType
    job_id: str
    tenant: str
    at: float
    status: JobStatus
    attempt: int
    progress: Progress | None = None
    error: JobError | None = None  # why it failed, or why the attempt before did when it is queued again
    coalesce_key: str | None = None  # of the job: whoever follows a session need not know its jobs
    coalesce_seq: int | None = None
    outputs: tuple[Artifact, ...] = ()  # of a session's job that has succeeded, so that nobody who waits for it has to ask; not stored

    @property
    def terminal(self) -> bool:
        """Whether this is the last event of its job."""
        return self.type is EventType.STATE and self.status.terminal


@dataclass(frozen=True, slots=True)
class EventBatch:
    """One answer of the store's event feed."""

    events: tuple[JobEvent, ...]
    last_id: EventId  # where to go on
    gap: bool  # events were missed (another epoch, or a reader too slow for the ring): read the snapshots again
