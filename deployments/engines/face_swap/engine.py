"""The face-swap engine: gives the faces of a picture or a video the identity of the source's largest face."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from deployments.engines.face_swap.config import FaceSwapConfig
from deployments.engines.face_swap.render import MeshSwapper
from deployments.engines.face_swap.sources import SourceCache
from deployments.engines.face_swap.swapper import Swapper
from deployments.engines.faces.analysis import FaceAnalysis
from deployments.engines.faces.geometry import load_canonical_mesh
from deployments.engines.faces.tracking import FaceTracker
from deployments.engines.images import BgrImage
from deployments.engines.media.eta import with_eta
from deployments.engines.media.picture import fit_size, load_picture, resize, save_picture
from deployments.engines.media.probe import MediaInfo, probe
from deployments.engines.media.video import transform_video
from deployments.engines.models import ModelInfo, verified_file
from deployments.jobs.errors import InvalidInput, NoFaceDetected
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import JsonObject, Progress, Stage
from deployments.jobs.ports import EngineTask, LocalMedia, OutputFile
from deployments.jobs.spec import OutputOptions, parse_resolution

log = get_logger(__name__)

PICTURE_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}  # output.format -> media type
EXTENSIONS = {media_type: name for name, media_type in PICTURE_TYPES.items()}
VIDEO_FORMAT, VIDEO_TYPE = "mp4", "video/mp4"

DEFAULT_FPS = 25.0  # for the landmark filter, where a container does not say
PREPARED = 0.2  # of a picture's work is done once the source is prepared

# What a swapper makes of a source is its own affair: the engine hands it back unopened.
SourceHandle = Any


class FaceSwapEngine:
    """Runs face-swap jobs. One per replica; threads may run jobs on it at the same time."""

    def __init__(self, config: FaceSwapConfig, analysis: FaceAnalysis, swapper: Swapper[SourceHandle]) -> None:
        """Take the parts; ``load`` makes them."""
        self._config = config
        self._analysis = analysis
        self._swapper = swapper
        self._sources: SourceCache[SourceHandle] = SourceCache(config.sources_kept)

    @classmethod
    def load(cls, config: FaceSwapConfig, models: Sequence[ModelInfo]) -> FaceSwapEngine:
        """Open the models, about 0.2 s on a CPU.

        Args:
            config: of this replica.
            models: from ``load_manifest``.

        Raises:
            EngineFailed: a model file is missing or altered, or the device is not there.
        """
        cv2.setNumThreads(config.session.intra_op_threads)  # of this process: Ray's OMP_NUM_THREADS=1 would bind OpenCV too
        mesh = load_canonical_mesh(verified_file(models, "face_geometry"))
        return cls(config, FaceAnalysis.load(models, config), MeshSwapper(mesh, shape=config.shape))

    def references(self, spec: JsonObject) -> dict[str, JsonObject]:
        """See ``deployments.jobs.ports.Engine``."""
        return {role: spec[role] for role in ("source", "target")}

    def run(self, task: EngineTask) -> Iterator[Progress | OutputFile]:
        """Swap; see ``deployments.jobs.ports.Engine``.

        Raises:
            NoFaceDetected: with the role, when the source, the target picture or every frame of the target video has none.
            UnsupportedMedia: an input cannot be read, or the source is no picture.
            MediaTooLarge: an input is over the limits.
            InvalidInput: a picture was asked for as a video, or the other way round.
        """
        options = OutputOptions.model_validate(task.spec.get("output") or {})
        yield Progress(Stage.COMPUTING, 0.0, message="looking for the source's face")
        source = self._prepare(task.inputs["source"])
        info = probe(task.inputs["target"].path, self._config.limits)
        job = _Job(task.inputs["target"], info, options, task.work_dir, source)
        if info.kind == "audio":
            raise InvalidInput("the target is audio: send a picture or a video")
        yield from self._run_picture(job) if info.kind == "picture" else self._run_video(job)

    def _prepare(self, source: LocalMedia) -> SourceHandle:
        def prepare() -> SourceHandle:
            image = load_picture(source.path, self._config.limits)
            faces = self._analysis.faces(image)
            if not faces:
                raise NoFaceDetected("source")
            return self._swapper.prepare(image, faces[0])

        return self._sources.get(source.sha256, prepare)

    def _run_picture(self, job: _Job) -> Iterator[Progress | OutputFile]:
        media_type = _picture_type(job)
        image = load_picture(job.target.path, self._config.limits)
        faces = self._analysis.faces(image)
        if not faces:
            raise NoFaceDetected("target")
        for number, landmarks in enumerate(faces):
            yield Progress(Stage.COMPUTING, PREPARED + (1 - PREPARED) * number / len(faces), message=f"face {number + 1} of {len(faces)}")
            self._swapper.swap(image, landmarks, job.source)
        result = resize(image, fit_size(job.info.width, job.info.height, job.box))
        name = f"faceswap.{EXTENSIONS[media_type]}"
        save_picture(result, job.folder / name, media_type)
        log.info("picture swapped", extra=fields(action="picture_swapped", faces=len(faces)))
        height, width = result.shape[:2]
        yield OutputFile(job.folder / name, name, media_type, width, height)

    def _run_video(self, job: _Job) -> Iterator[Progress | OutputFile]:
        if job.options.format not in {None, VIDEO_FORMAT}:
            raise InvalidInput(f"the target is a video and cannot be written as {job.options.format}: ask for mp4, or leave format out")
        name = f"faceswap.{VIDEO_FORMAT}"
        size = fit_size(job.info.width, job.info.height, job.box, even=True)
        change = _FrameSwap(self._analysis.track(float(job.info.fps or DEFAULT_FPS), self._config.detect_every), self._swapper, job.source)
        frames = transform_video(
            job.target.path, job.folder / name, change, limits=self._config.limits, size=size, threads=self._config.codec_threads
        )
        with closing(frames):
            yield from with_eta(frames)
        if not change.faces:
            raise NoFaceDetected("target")
        log.info("video swapped", extra=fields(action="video_swapped", faces=change.faces, frames=job.info.frames))
        yield OutputFile(job.folder / name, name, VIDEO_TYPE, *size, duration_s=job.info.duration_s)


@dataclass(frozen=True)
class _Job:
    target: LocalMedia
    info: MediaInfo
    options: OutputOptions
    folder: Path
    source: SourceHandle

    @property
    def box(self) -> tuple[int, int] | None:
        """(width, height) that the result has to fit into, or None for the target's own size."""
        return parse_resolution(self.options.resolution) if self.options.resolution else None


class _FrameSwap:
    """Swaps all faces of each frame of one video; a frame without a face passes untouched."""

    def __init__(self, tracker: FaceTracker, swapper: Swapper[SourceHandle], source: SourceHandle) -> None:
        self._tracker = tracker
        self._swapper = swapper
        self._source = source
        self.faces = 0  # swapped so far, over all frames

    def __call__(self, frame: BgrImage, _index: int) -> BgrImage:
        for landmarks in self._tracker.update(frame):
            self._swapper.swap(frame, landmarks, self._source)
            self.faces += 1
        return frame


def _picture_type(job: _Job) -> str:
    if job.options.format is None:
        return job.info.media_type
    if job.options.format not in PICTURE_TYPES:
        raise InvalidInput(f"the target is a picture and cannot be written as {job.options.format}: ask for png, jpeg or webp")
    return PICTURE_TYPES[job.options.format]
