"""Whose face it is: how close the faces of pictures and clips are to each other, by a recogniser that the swap knows nothing of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deployments.engines.face_swap.config import FaceSwapConfig
from deployments.engines.faces.align import landmarks_5_of_mesh
from deployments.engines.faces.analysis import FaceAnalysis
from deployments.engines.faces.embedding import Embedding, FaceEmbedder, cosine
from deployments.engines.images import BgrImage
from deployments.engines.media.container import open_media, video_stream
from deployments.engines.media.picture import load_picture
from deployments.engines.media.probe import MediaInfo, probe, probe_video
from deployments.engines.media.reader import TimedFrame, VideoReader
from deployments.engines.models import load_manifest, verified_file
from deployments.jobs.errors import NoFaceDetected

FRAMES = 8  # of a clip that are looked at, evenly spread


@dataclass(frozen=True)
class Likeness:
    """Mean cosine of a file's faces to two people: 1 the same, below 0.363 strangers."""

    to_source: float
    to_target: float


class IdentityMeter:
    """Describes the largest face of a picture, or of some frames of a clip."""

    def __init__(self, manifest: Path, config: FaceSwapConfig) -> None:
        """Open the models, about a second.

        Raises:
            EngineFailed: a model file is missing or altered.
        """
        models = load_manifest(manifest)
        self._limits = config.limits
        self._analysis = FaceAnalysis.load(models, config)
        self._embedder = FaceEmbedder.load(verified_file(models, "sface"), config.session)

    def embeddings(self, path: Path) -> list[Embedding]:
        """Describe a file: one embedding of a picture, up to ``FRAMES`` of a clip.

        Raises:
            NoFaceDetected: none was found.
            UnsupportedMedia: the file cannot be read.
        """
        info = probe(path, self._limits)
        images = iter([load_picture(path, self._limits)]) if info.kind == "picture" else self._frames(path, info)
        found = [self._embedder.embed(image, landmarks_5_of_mesh(faces[0])) for image in images if (faces := self._analysis.faces(image))]
        if not found:
            raise NoFaceDetected(path.name)
        return found

    def probe(self, path: Path) -> MediaInfo:
        """Read what a file holds."""
        return probe(path, self._limits)

    def _frames(self, path: Path, info: MediaInfo) -> Iterator[BgrImage]:
        step = max(1, math.ceil((info.frames or 1) / FRAMES))
        traits = probe_video(path, self._limits)
        with open_media(path, info.media_type, self._limits) as container:
            stream = video_stream(container)
            assert stream is not None  # probe_video has found it
            read = VideoReader(container, stream, traits, self._limits, threads=0)
            frames = (piece.image for piece in read if isinstance(piece, TimedFrame))
            yield from (image for number, image in enumerate(frames) if number % step == 0)


def likeness(faces: list[Embedding], source: list[Embedding], target: list[Embedding]) -> Likeness:
    """Compare a file's faces with two people, each described by the faces of another file."""
    return Likeness(_mean_cosine(faces, _mean(source)), _mean_cosine(faces, _mean(target)))


def _mean(embeddings: list[Embedding]) -> Embedding:
    mean = np.mean(embeddings, axis=0)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)


def _mean_cosine(faces: list[Embedding], person: Embedding) -> float:
    return float(np.mean([cosine(face, person) for face in faces]))
