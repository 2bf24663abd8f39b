"""Settings of the face-swap engine."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from deployments.engines.media.limits import MediaLimits
from deployments.engines.onnx import SessionConfig


class FaceSwapConfig(BaseModel):
    """Everything that a face-swap replica may be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    session: SessionConfig = Field(SessionConfig(), description="device and threads of the models")
    limits: MediaLimits = Field(MediaLimits(), description="largest source and target taken")
    shape: float = Field(
        0.7, ge=0, le=1, description="how far the target's face shape moves to the source's: 0 texture only, 1 all the way"
    )
    detection_threshold: float = Field(0.6, gt=0, lt=1, description="least score of a face")
    detection_overlap: float = Field(0.3, gt=0, lt=1, description="intersection over union above which two boxes are one face")
    max_faces: int = Field(50, ge=1, le=500, description="largest faces of a picture or frame that are swapped; the rest stay")
    detect_every: int = Field(
        5, ge=1, description="video frames between two looks for new faces: one that comes in is swapped within 0.2 s, for 2 ms a frame"
    )
    sources_kept: int = Field(8, ge=0, description="prepared sources remembered by a replica, about 1.5 MB each")
    codec_threads: int = Field(0, ge=0, description="threads of the video decoder and of the encoder each; 0: one per core")
