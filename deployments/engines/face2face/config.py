"""Settings of the face2face engine."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from deployments.engines.media.limits import MediaLimits
from deployments.engines.onnx import SessionConfig


class Face2FaceConfig(BaseModel):
    """Everything that a face2face replica may be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    session: SessionConfig = Field(SessionConfig(), description="device and threads of the models")
    limits: MediaLimits = Field(MediaLimits(), description="largest audio and reference taken")
    root: Path = Field(Path("var/references"), description="folder on a disk of this machine where prepared references are kept")
    references_bytes: int = Field(2**30, ge=0, description="size above which the prepared references unused for longest are removed")
    detection_threshold: float = Field(0.6, gt=0, lt=1, description="least score of a face")
    detection_overlap: float = Field(0.3, gt=0, lt=1, description="intersection over union above which two boxes are one face")
    max_faces: int = Field(50, ge=1, le=500, description="largest faces of a frame among which the one that speaks is looked for")
    still_pixels: int = Field(
        1920 * 1080,
        gt=0,
        description="width x height to which a larger still is scaled down: a phone's 12 million would cost six times as much",
    )
    still_fps: float = Field(25.0, ge=1, le=60, description="frames a second of a still that speaks, unless the job says")
    replay_bytes: int = Field(
        2 * 2**30, gt=0, description="decoded frames kept on disk while a clip is played to and fro: the last minute and a half at 640x360"
    )
    wav2lip: Path | None = Field(
        None,
        description="Wav2Lip network of your own, an ONNX file as FaceFusion exports it: adds the engine wav2lip; its published weights "
        "are for research only",
    )
    wav2lip_batch: int = Field(8, ge=1, le=128, description="frames that it draws at once, where it takes several")
    codec_threads: int = Field(0, ge=0, description="threads of the video decoder and of the encoder each; 0: one per core")
