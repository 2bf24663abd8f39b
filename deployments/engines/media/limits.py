"""How much media one job may bring: checked against headers before decoding and counted again while decoding."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MediaLimits(BaseModel):
    """Upper bounds, each guarding one resource. What lies over one is refused as ``media_too_large``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(512 * 2**20, gt=0, description="length of the file: bounds disk and the demuxer's time")
    max_pixels: int = Field(40_000_000, gt=0, description="width x height of a picture: bounds memory (a few copies)")
    max_side_px: int = Field(12_000, gt=0, description="longest side: a 1 x 40000 strip is cheap in pixels, yet no codec takes it")
    max_video_pixels: int = Field(3840 * 2160, gt=0, description="width x height of a video frame: bounds the frames that wait in queues")
    max_duration_s: float = Field(600.0, gt=0, description="length, declared or counted: bounds how long a job holds its slot")
    max_frames: int = Field(36_000, gt=0, description="frames of a video, counted and never declared: stops 1000 fps within the duration")
