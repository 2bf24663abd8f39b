"""What a client of a session says and hears, whatever it looks like on the wire."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.jobs.model import Artifact, Preview


@dataclass(frozen=True, slots=True)
class Offer:
    """A sketch as it arrived."""

    data: bytes
    style: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seq: int | None = None  # the client's number; None: the next one
    force: bool = False  # draw it although it looks like the one before
    arrived: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Processing:
    """A sketch computes, or is about to."""

    seq: int | None
    progress: float  # 0..1


@dataclass(frozen=True, slots=True)
class Accepted:
    """A sketch is on disk."""

    seq: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A sketch will not be computed."""

    seq: int | None
    reason: str  # "unchanged" or "older"
    newest_seq: int | None


@dataclass(frozen=True, slots=True)
class Failed:
    """A sketch, or what was sent for one, came to nothing."""

    message: str
    code: str
    seq: int | None = None
    place: int | None = None  # in the line of those who wait for a seat


@dataclass(frozen=True, slots=True)
class Shown:
    """A preview."""

    seq: int
    preview: Preview


@dataclass(frozen=True, slots=True)
class Completed:
    """A picture is ready."""

    seq: int
    job_id: str
    picture: Artifact


Message = Processing | Accepted | Skipped | Failed | Shown | Completed
