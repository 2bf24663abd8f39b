"""The face2face engine: has the face of a clip or a still speak a given audio, and prepares references ahead."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2

from deployments.engines.face2face.config import Face2FaceConfig
from deployments.engines.face2face.mesh_talker import MeshTalker
from deployments.engines.face2face.mouth_track import MouthTrack, build_track
from deployments.engines.face2face.phones import PhoneRecogniser
from deployments.engines.face2face.reference import Reference, ReferenceReader
from deployments.engines.face2face.reference_store import ReferenceStore
from deployments.engines.face2face.speaking import Speaking, SpeakingClip, SpeakingStill
from deployments.engines.face2face.speech import SAMPLE_RATE
from deployments.engines.face2face.visibility import MouthSignature
from deployments.engines.faces.analysis import FaceAnalysis
from deployments.engines.faces.following import Place
from deployments.engines.faces.geometry import CanonicalMesh, load_canonical_mesh
from deployments.engines.images import BgrImage
from deployments.engines.media.compose import compose_video, fixed_rate
from deployments.engines.media.picture import fit_size, load_picture
from deployments.engines.media.probe import VideoTraits, probe, probe_video
from deployments.engines.media.sound import load_samples
from deployments.engines.media.video import FrameProgress, read_frames
from deployments.engines.models import ModelInfo, verified_file
from deployments.jobs.errors import EngineFailed, InvalidInput, NoFaceDetected
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import JsonObject, Progress, Stage
from deployments.jobs.ports import EngineTask, LocalMedia, OutputFile
from deployments.jobs.spec import Face2FaceOptions, parse_resolution

log = get_logger(__name__)

NAME, MEDIA_TYPE = "face2face.mp4", "video/mp4"
SUMMARY = "reference.json"
HEARD, LOOKED = 0.05, 0.3  # of the whole work is done once the audio is analysed, and once the reference is prepared
DEFAULT_FPS = Fraction(25)  # where a container does not say
MAX_FPS = 60.0  # a clip of 240 fps is played at this: lips show no more, and each frame costs
FPS_DENOMINATOR = 1001  # of NTSC rates


class Face2FaceEngine:
    """Runs face2face and reference jobs. One per replica; threads may run jobs on it at the same time."""

    def __init__(self, config: Face2FaceConfig, analysis: FaceAnalysis, mesh: CanonicalMesh, recogniser: PhoneRecogniser) -> None:
        """Take the parts; ``load`` makes them."""
        self._config = config
        self._analysis = analysis
        self._mesh = mesh
        self._recogniser = recogniser
        self._talker = MeshTalker(mesh)
        self._reader = ReferenceReader(self._talker.rig, MouthSignature(mesh))
        self._references = ReferenceStore(config.root, config.references_bytes)

    @classmethod
    def load(cls, config: Face2FaceConfig, models: Sequence[ModelInfo]) -> Face2FaceEngine:
        """Open the models, about half a second on a CPU.

        Args:
            config: of this replica.
            models: from ``load_manifest``.

        Raises:
            EngineFailed: a model file is missing or altered, or the device is not there.
        """
        cv2.setNumThreads(config.session.intra_op_threads)  # of this process: Ray's OMP_NUM_THREADS=1 would bind OpenCV too
        mesh = load_canonical_mesh(verified_file(models, "face_geometry"))
        return cls(config, FaceAnalysis.load(models, config), mesh, PhoneRecogniser())

    def references(self, spec: JsonObject) -> dict[str, JsonObject]:
        """See ``deployments.jobs.ports.Engine``."""
        return {role: spec[role] for role in ("audio", "video") if role in spec}

    def run(self, task: EngineTask) -> Iterator[Progress | OutputFile]:
        """Speak, or prepare where there is no audio; see ``deployments.jobs.ports.Engine``.

        Raises:
            NoFaceDetected: the reference shows no face.
            UnsupportedMedia: an input cannot be read, or the audio has no sound.
            MediaTooLarge: an input is over the limits.
            InvalidInput: the reference is sound, or hides its mouth in every frame.
        """
        options = Face2FaceOptions.model_validate(task.spec.get("options") or {})
        place = (options.face.x, options.face.y) if options.face else None
        material = self._open(task.inputs["video"], place)
        if "audio" not in task.inputs:
            yield from self._prepare_only(task, material)
            return
        yield Progress(Stage.COMPUTING, 0.0, message="listening to the audio")
        fps = _rate(options, material)
        samples = load_samples(task.inputs["audio"].path, SAMPLE_RATE, self._config.limits)
        frames = max(1, round(len(samples) / SAMPLE_RATE * fps))
        track = build_track(samples, float(fps), frames, options.analysis, self._recogniser.recognise)
        del samples  # of ten minutes: 38 MB that drawing does not need
        yield Progress(Stage.COMPUTING, HEARD, message="looking at the reference")
        reference = yield from self._prepare(material, max(1, round(frames * float(material.fps / fps))))
        yield from self._speak(task, material, reference, track, options, fps)

    def _open(self, video: LocalMedia, place: Place | None) -> _Material:
        info = probe(video.path, self._config.limits)
        if info.kind == "audio":
            raise InvalidInput("the video is sound alone: send a clip or a picture of a face")
        if info.kind == "picture":
            image = load_picture(video.path, self._config.limits)
            fps = Fraction(self._config.still_fps).limit_denominator(FPS_DENOMINATOR)
            return _Material(video, place, (info.width, info.height), fps, still=image)
        traits = probe_video(video.path, self._config.limits)
        return _Material(video, place, (info.width, info.height), info.fps or DEFAULT_FPS, traits=traits)

    def _prepare_only(self, task: EngineTask, material: _Material) -> Iterator[Progress | OutputFile]:
        reference = yield from self._prepare(material, None)
        path = task.work_dir / SUMMARY
        path.write_text(json.dumps(_summary(material, reference), indent=2), "utf-8")
        yield OutputFile(path, SUMMARY, "application/json")

    def _prepare(self, material: _Material, wanted: int | None) -> Generator[Progress, None, Reference]:
        """Return what is known of a reference, after looking at it where that is not enough.

        Args:
            material: the reference.
            wanted: frames of a loop that nothing better is needed than; None: all that there are.
        """
        sha256 = material.video.sha256
        known = self._references.load(sha256, material.place)
        if known is not None and (known.whole or (wanted is not None and known.serves(wanted))):
            return known
        began = time.monotonic()
        if material.traits is None:
            reference = self._look_at_still(material)
        else:
            reference = yield from self._look_at_clip(material, material.traits, wanted)
        self._references.save(sha256, material.place, reference)
        seconds = round(time.monotonic() - began, 2)
        log.info("reference prepared", extra=fields(action="reference_prepared", frames=reference.frames, seconds=seconds))
        return reference

    def _look_at_still(self, material: _Material) -> Reference:
        image = material.still
        face = None if image is None else self._analysis.follow(material.place).update(image)
        if image is None or face is None:
            raise NoFaceDetected("video")
        return self._reader.read_still(image, face.landmarks, material.fps)

    def _look_at_clip(self, material: _Material, traits: VideoTraits, wanted: int | None) -> Generator[Progress, None, Reference]:
        total = min(traits.info.frames or 1, wanted or traits.info.frames or 1)
        with closing(self._frames_of(material)) as frames:
            looking = self._reader.read_clip(frames, self._analysis.follow(material.place), material.fps, wanted)
            while True:
                try:
                    seen = next(looking)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]  # a generator's value is typed by its annotation alone
                share = HEARD + (LOOKED - HEARD) * min(seen / total, 1.0)
                yield Progress(Stage.COMPUTING, share, message=f"looking at the reference, frame {seen}")

    def _speak(
        self, task: EngineTask, material: _Material, reference: Reference, track: MouthTrack, options: Face2FaceOptions, fps: Fraction
    ) -> Iterator[Progress | OutputFile]:
        size = fit_size(*material.size, parse_resolution(options.resolution) if options.resolution else None, even=True)
        path, frames = task.work_dir / NAME, len(track.opening)
        with self._speaking(material, reference, track, options, float(fps), task.work_dir) as speaking:
            writing = compose_video(
                speaking,
                frames,
                task.inputs["audio"].path,
                path,
                traits=fixed_rate(material.size, fps, material.traits.color if material.traits else None),
                size=size,
                limits=self._config.limits,
                threads=self._config.codec_threads,
            )
            with closing(writing):
                yield from _with_eta(writing)
        log.info("face spoke", extra=fields(action="face_spoke", frames=frames, loop=reference.frames, covered=reference.covered))
        yield OutputFile(path, NAME, MEDIA_TYPE, *size, duration_s=round(float(frames / fps), 3))

    @contextmanager
    def _speaking(
        self, material: _Material, reference: Reference, track: MouthTrack, options: Face2FaceOptions, fps: float, folder: Path
    ) -> Iterator[Speaking]:
        if material.still is not None:
            seed = int(material.video.sha256[:8], 16)
            yield SpeakingStill(self._talker, self._mesh, material.still, reference, track, fps, seed)
            return
        with closing(self._frames_of(material)) as frames:
            yield SpeakingClip(
                self._talker,
                frames,
                reference,
                track,
                fps=fps,
                loop=options.loop,
                folder=folder,
                replay_bytes=self._config.replay_bytes,
                size=material.size,
            )

    def _frames_of(self, material: _Material) -> Generator[BgrImage, None, None]:
        if material.traits is None:
            raise EngineFailed("a still has no frames to read")
        return read_frames(material.video.path, material.traits, self._config.limits, self._config.codec_threads)


@dataclass(frozen=True)
class _Material:
    """The reference of a job: a still or a clip."""

    video: LocalMedia
    place: Place | None
    size: tuple[int, int]  # (width, height), pixels
    fps: Fraction
    still: BgrImage | None = None
    traits: VideoTraits | None = None


def _rate(options: Face2FaceOptions, material: _Material) -> Fraction:
    """Return the frame rate of the result."""
    asked = material.fps if options.fps is None else Fraction(options.fps)
    return min(asked, Fraction(MAX_FPS)).limit_denominator(FPS_DENOMINATOR)


def _summary(material: _Material, reference: Reference) -> JsonObject:
    """Return what a client may want to know of a reference before it is used."""
    return {
        "kind": "picture" if material.still is not None else "video",
        "width": material.size[0],
        "height": material.size[1],
        "fps": round(float(reference.fps), 3),
        "frames_seen": reference.seen,
        "frames_with_hidden_mouth": reference.covered,
        "loop_first_frame": reference.first,
        "loop_frames": reference.frames,
        "own_teeth": bool(reference.donors),
    }


def _with_eta(frames: Iterator[FrameProgress]) -> Iterator[Progress]:
    began = time.monotonic()
    for done in frames:
        total = done.frames or done.frame
        left_s = (time.monotonic() - began) / done.frame * (total - done.frame)
        yield Progress(Stage.COMPUTING, LOOKED + (1 - LOOKED) * done.frame / total, done.frame, total, round(left_s, 1))
