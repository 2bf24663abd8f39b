"""What this installation can do, put together once at deploy from the settings and the model manifest."""

from __future__ import annotations

from pathlib import Path

from deployments.engines.models import load_manifest
from deployments.jobs.capabilities import Capabilities, EngineInfo, LimitsInfo, MediaFormats, ModelInfo
from deployments.jobs.spec import POOL_BY_KIND
from serve_app.settings import Settings

FACE_MODELS = ("yunet", "face_mesh", "face_geometry")
MODELS = {
    "faceswap": FACE_MODELS,
    "face2face": FACE_MODELS,
    "reference": FACE_MODELS,
    "comfyui": (),
}  # by kind, names of configs/models.yaml
DESCRIPTIONS = {
    "faceswap": ("mesh", "swaps faces through a canonical texture atlas; needs no weights beyond the bundled ones"),
    "face2face": ("mesh", "has the face of a clip or a picture speak an audio, by its mesh; needs no weights beyond the bundled ones"),
    "reference": ("mesh", "looks at a clip or a picture ahead of face2face jobs"),
    "comfyui": ("comfyui", "runs ComfyUI workflows on the backends listed here, whose models and licences are their operators'"),
}

PICTURES = ("image/png", "image/jpeg", "image/webp")
VIDEOS = ("video/mp4", "video/quicktime", "video/webm", "video/x-matroska", "video/x-msvideo", "image/gif")
SOUNDS = ("audio/wav", "audio/mpeg", "audio/mp4", "audio/ogg", "audio/flac")
WRITTEN = (*PICTURES, "video/mp4")


def describe(settings: Settings, manifest: Path, pools: frozenset[str]) -> Capabilities:
    """Describe the pools that run here, their models with licences, and every limit that a request can meet."""
    models = {model.name: model for model in load_manifest(manifest)}
    engines = tuple(
        EngineInfo(
            name=DESCRIPTIONS[kind][0],
            kind=kind,
            pool=pool,
            description=DESCRIPTIONS[kind][1],
            models=tuple(
                ModelInfo(name=m.name, licence=m.licence, commercial_use=m.commercial_use, source=m.source, sha256=m.sha256)
                for m in map(models.__getitem__, MODELS[kind])
            ),
        )
        for kind, pool in sorted(POOL_BY_KIND.items())
        if pool in pools
    )
    limits = LimitsInfo(
        upload_bytes=settings.intake.upload_bytes,
        inline_bytes=settings.intake.inline_bytes,
        body_bytes=settings.api.max_body_bytes,
        wait_s=settings.service.max_wait_s,
        picture_pixels=settings.media.max_pixels,
        video_pixels=settings.media.max_video_pixels,
        video_duration_s=settings.media.max_duration_s,
    )
    return Capabilities(engines=engines, formats=MediaFormats(read=PICTURES + VIDEOS + SOUNDS, write=WRITTEN), limits=limits)
