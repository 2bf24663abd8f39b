"""Settings of drawing."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class DrawingConfig(BaseModel):
    """How sketches become pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    same_below: float = Field(
        0.02,
        ge=0,
        le=1,
        description="a sketch is skipped when no part of it (of 64 x 64) has changed by more than this, of 1 from black to white; "
        "the noise of JPEG stays below, a stroke is above; 0 skips equal ones only",
    )
    interrupt_after_s: float | None = Field(
        None,
        gt=0,
        description="a running sketch that is older is stopped for a newer one; default: it is let end, or whoever draws without a pause "
        "would see a picture half as often",
    )
    priority: int = Field(
        10, ge=-100, le=100, description="of sketches in the queue of workflows: a person waits for them, and nobody for a batch"
    )
    timeout_s: float = Field(120.0, gt=0, description="longest time that one sketch computes: whoever draws does not wait for longer")
    max_bytes: int = Field(4 * 2**20, gt=0, le=8 * 2**20, description="length of one sketch")
    max_side_px: int = Field(4096, gt=0, description="longest side of one sketch: no sampler takes more, and each is decoded in memory")
    idle_s: float = Field(900.0, gt=0, description="a session in which nobody has drawn for so long ends, and its WebSocket is closed")
    rows_s: float = Field(120.0, gt=0, description="how long ended sketches are known; the newest picture of each session stays longer")
    results_s: float = Field(3600.0, gt=0, description="how long the newest picture of a session is kept")
    sweep_s: float = Field(10.0, gt=0, description="how often what is too old is removed")
