"""What this installation can do, put together once at deploy from the settings and the model manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deployments.engines.models import load_manifest
from deployments.jobs.capabilities import Capabilities, EngineInfo, LimitsInfo, MediaFormats, ModelInfo
from deployments.jobs.spec import DUIX_POOL
from serve_app.settings import Settings

FACE_MODELS = ("yunet", "face_mesh", "face_geometry")
WEIGHTLESS = "needs no weights beyond the bundled ones"


@dataclass(frozen=True, slots=True)
class _Engine:
    kind: str
    name: str
    pool: str
    description: str
    models: tuple[str, ...] = FACE_MODELS  # names of configs/models.yaml


ENGINES = (
    _Engine(
        "comfyui",
        "comfyui",
        "comfyui",
        "runs ComfyUI workflows on the backends listed here, whose models and licences are their operators'",
        (),
    ),
    _Engine("face2face", "mesh", "face2face", f"has the face of a clip or a picture speak an audio, by its mesh; {WEIGHTLESS}"),
    _Engine("face2face", "wav2lip", "face2face", "has a Wav2Lip network of the operator's draw the mouth"),
    _Engine("face2face", "duix", DUIX_POOL, "has a Duix service do it, under the licence that its operator has of DUIX.COM", ()),
    _Engine("faceswap", "mesh", "faceswap", f"swaps faces through a canonical texture atlas; {WEIGHTLESS}"),
    _Engine("reference", "mesh", "face2face", "looks at a clip or a picture ahead of face2face jobs"),
)

PICTURES = ("image/png", "image/jpeg", "image/webp")
VIDEOS = ("video/mp4", "video/quicktime", "video/webm", "video/x-matroska", "video/x-msvideo", "image/gif")
SOUNDS = ("audio/wav", "audio/mpeg", "audio/mp4", "audio/ogg", "audio/flac")
WRITTEN = (*PICTURES, "video/mp4")


def installed(settings: Settings, pools: frozenset[str]) -> tuple[_Engine, ...]:
    """Return the engines that run here."""
    configured = {"duix": bool(settings.duix.upstreams), "wav2lip": settings.face2face.wav2lip is not None}
    return tuple(engine for engine in ENGINES if engine.pool in pools and configured.get(engine.name, True))


def describe(settings: Settings, manifest: Path, pools: frozenset[str]) -> Capabilities:
    """Describe the pools that run here, their models with licences, and every limit that a request can meet."""
    models = {model.name: model for model in load_manifest(manifest)}
    engines = tuple(
        EngineInfo(
            name=engine.name,
            kind=engine.kind,
            pool=engine.pool,
            description=engine.description,
            models=tuple(
                ModelInfo(name=m.name, licence=m.licence, commercial_use=m.commercial_use, source=m.source, sha256=m.sha256)
                for m in map(models.__getitem__, engine.models)
            ),
        )
        for engine in installed(settings, pools)
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
