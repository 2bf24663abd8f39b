"""What this installation can do, as clients and licence auditors read it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Described(BaseModel):
    """A fixed description, put together at start."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelInfo(Described):
    """A weights file and the terms it may be used under."""

    name: str = Field(examples=["yunet"])
    version: str | None = None
    licence: str = Field(description="SPDX expression where one fits", examples=["MIT"])
    source: str = Field(description="where the file comes from", examples=["OpenCV Zoo"])
    sha256: str | None = None
    commercial_use: bool = Field(description="whether the licence of the weights allows it")


class EngineInfo(Described):
    """One engine: what it computes and with which models."""

    name: str = Field(examples=["embedded"])
    kind: str = Field(examples=["faceswap"])
    pool: str = Field(examples=["faceswap"])
    description: str = ""
    models: tuple[ModelInfo, ...] = ()


class BackendInfo(Described):
    """A ComfyUI server that workflows run on. Its address is nobody's business."""

    name: str = Field(examples=["gpu1-8188"])
    tags: tuple[str, ...] = ()
    healthy: bool
    draining: bool = False
    version: str | None = Field(None, description="of ComfyUI", examples=["0.33.0"])
    fake: bool = Field(False, description="a fake backend for tests and demos: what it makes is no model's work")


class MediaFormats(Described):
    """Media types that are read and written."""

    read: tuple[str, ...] = Field(examples=[("image/png", "image/jpeg", "video/mp4")])
    write: tuple[str, ...] = Field(examples=[("image/png", "video/mp4")])


class LimitsInfo(Described):
    """The limits a request meets."""

    upload_bytes: int = Field(description="one file of POST /v1/files")
    inline_bytes: int = Field(description="one decoded base64 reference")
    body_bytes: int = Field(description="a JSON request body")
    wait_s: float = Field(description="longest wait of one request")
    picture_pixels: int | None = None
    video_pixels: int | None = Field(None, description="width x height of a video's frame")
    video_duration_s: float | None = None


class Capabilities(Described):
    """Engines, models, backends, formats and limits."""

    engines: tuple[EngineInfo, ...]
    backends: tuple[BackendInfo, ...] = ()
    formats: MediaFormats
    limits: LimitsInfo
