"""The face2face engine: has the face of a clip or a still speak a given audio, and prepares references ahead."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from fractions import Fraction

import cv2

from deployments.engines.face2face.config import Face2FaceConfig
from deployments.engines.face2face.material import FPS_DENOMINATOR, Drawing, Material, open_material
from deployments.engines.face2face.mel import mel_spectrogram
from deployments.engines.face2face.mesh_talker import MeshTalker
from deployments.engines.face2face.mouth_crop import MouthCropper
from deployments.engines.face2face.mouth_track import Analysis, MouthTrack, build_track
from deployments.engines.face2face.phones import Phone, PhoneRecogniser
from deployments.engines.face2face.reference import Reference, ReferenceReader
from deployments.engines.face2face.reference_store import ReferenceStore
from deployments.engines.face2face.speaking import Actor, MeshVoice, Speaking, Wav2LipVoice
from deployments.engines.face2face.speech import SAMPLE_RATE, Samples
from deployments.engines.face2face.visibility import MouthSignature
from deployments.engines.face2face.wav2lip import Wav2Lip
from deployments.engines.faces.analysis import FaceAnalysis
from deployments.engines.faces.following import Place
from deployments.engines.faces.geometry import CanonicalMesh, load_canonical_mesh
from deployments.engines.media.compose import compose_video, fixed_rate
from deployments.engines.media.eta import with_eta
from deployments.engines.media.picture import fit_size
from deployments.engines.media.sound import load_samples
from deployments.engines.models import ModelInfo, verified_file
from deployments.jobs.errors import EngineFailed
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import JsonObject, Progress, Stage
from deployments.jobs.ports import EngineTask, OutputFile
from deployments.jobs.spec import Face2FaceOptions, parse_resolution

log = get_logger(__name__)

NAME, MEDIA_TYPE = "face2face.mp4", "video/mp4"
SUMMARY = "reference.json"
HEARD, LOOKED = 0.05, 0.3  # of the whole work is done once the audio is analysed, and once the reference is prepared
MAX_FPS = 60.0  # a clip of 240 fps is played at this: lips show no more, and each frame costs

Voice = Callable[[Actor, Reference], Speaking]  # what has an actor speak, once it is known who it is


class Face2FaceEngine:
    """Runs face2face and reference jobs. One per replica; threads may run jobs on it at the same time."""

    def __init__(
        self,
        config: Face2FaceConfig,
        analysis: FaceAnalysis,
        mesh: CanonicalMesh,
        recogniser: PhoneRecogniser,
        wav2lip: Wav2Lip | None = None,
    ) -> None:
        """Take the parts; ``load`` makes them."""
        self._config = config
        self._analysis = analysis
        self._mesh = mesh
        self._recogniser = recogniser
        self._talker = MeshTalker(mesh)
        self._reader = ReferenceReader(self._talker.rig, MouthSignature(mesh))
        self._wav2lip = wav2lip
        self._cropper = MouthCropper(mesh)
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
        wav2lip = Wav2Lip(config.wav2lip, config.session, config.wav2lip_batch) if config.wav2lip else None
        return cls(config, FaceAnalysis.load(models, config), mesh, PhoneRecogniser(), wav2lip)

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
        material = open_material(task.inputs["video"], self._config)
        if "audio" not in task.inputs:
            yield from self._prepare_only(task, material, options)
            return
        fps = _rate(options, material)
        yield Progress(Stage.COMPUTING, 0.0, message="listening to the audio")
        samples = load_samples(task.inputs["audio"].path, SAMPLE_RATE, self._config.limits)
        frames = max(1, round(len(samples) / SAMPLE_RATE * fps))
        if task.spec.get("engine") == "wav2lip":
            voice = self._wav2lip_voice(samples, frames, fps)
        else:
            voice = self._mesh_voice((yield from self._listen(samples, frames, fps, options.analysis)))
        wanted = max(1, round(frames * float(material.fps / fps)))
        reference = yield from self._prepare(task.inputs["video"].sha256, material, options, wanted)
        yield from self._speak(
            task, material, Drawing(self._mesh, reference, frames, float(fps), options.loop, task.work_dir), voice, options, fps
        )

    def _mesh_voice(self, track: MouthTrack) -> Voice:
        return lambda actor, reference: MeshVoice(actor, self._talker, reference, track)

    def _wav2lip_voice(self, samples: Samples, frames: int, fps: Fraction) -> Voice:
        network = self._wav2lip
        if network is None:
            raise EngineFailed("this replica has no Wav2Lip network: ATELIER_FACE2FACE__WAV2LIP was unset after the job was accepted")
        spectrogram = mel_spectrogram(samples)
        return lambda actor, _: Wav2LipVoice(actor, network, self._cropper, spectrogram, frames, float(fps))

    def _listen(self, samples: Samples, frames: int, fps: Fraction, analysis: Analysis) -> Generator[Progress, None, MouthTrack]:
        phones: list[Phone] = []
        if analysis != "dsp":
            for block in self._recogniser.recognise(samples):
                phones += block
                share = HEARD * min(phones[-1].end_s * SAMPLE_RATE / len(samples), 1.0) if phones else 0.0
                yield Progress(Stage.COMPUTING, share, message="listening to the audio")
        return build_track(samples, float(fps), frames, analysis, phones)

    def _prepare_only(self, task: EngineTask, material: Material, options: Face2FaceOptions) -> Iterator[Progress | OutputFile]:
        reference = yield from self._prepare(task.inputs["video"].sha256, material, options, None)
        path = task.work_dir / SUMMARY
        path.write_text(json.dumps(_summary(material, reference), indent=2), "utf-8")
        yield OutputFile(path, SUMMARY, "application/json")

    def _prepare(
        self, sha256: str, material: Material, options: Face2FaceOptions, wanted: int | None
    ) -> Generator[Progress, None, Reference]:
        """Return what is known of a reference, after looking at it where that is not enough.

        Args:
            sha256: of the file.
            material: the reference.
            options: which face.
            wanted: frames of a loop that nothing better is needed than; None: all that there are.
        """
        place = (options.face.x, options.face.y) if options.face else None
        known = self._references.load(sha256, place)
        if known is not None and known.size == material.size and known.serves(wanted):
            return known
        began = time.monotonic()
        reference = yield from self._look(material, place, wanted)
        self._references.save(sha256, place, reference)
        seconds = round(time.monotonic() - began, 2)
        log.info("reference prepared", extra=fields(action="reference_prepared", frames=reference.frames, seconds=seconds))
        return reference

    def _look(self, material: Material, place: Place | None, wanted: int | None) -> Generator[Progress, None, Reference]:
        there = (material.traits.info.frames if material.traits else None) or 1
        total = there if wanted is None else min(there, wanted)
        looking = material.look(self._reader, self._analysis.follow(place), wanted)
        with closing(looking):
            while True:
                try:
                    seen = next(looking)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]  # a generator's value is typed by its annotation alone
                share = HEARD + (LOOKED - HEARD) * min(seen / total, 1.0)
                yield Progress(Stage.COMPUTING, share, message=f"looking at the reference, frame {seen}")

    def _speak(
        self, task: EngineTask, material: Material, drawing: Drawing, voice: Voice, options: Face2FaceOptions, fps: Fraction
    ) -> Iterator[Progress | OutputFile]:
        size = fit_size(*material.size, parse_resolution(options.resolution) if options.resolution else None, even=True)
        path, frames, reference = task.work_dir / NAME, drawing.frames, drawing.reference
        with material.acting(drawing) as actor:
            writing = compose_video(
                voice(actor, reference),
                frames,
                task.inputs["audio"].path,
                path,
                traits=fixed_rate(material.size, fps, material.traits),
                size=size,
                limits=self._config.limits,
                threads=self._config.codec_threads,
            )
            with closing(writing):
                yield from with_eta(writing, LOOKED)
        log.info("face spoke", extra=fields(action="face_spoke", frames=frames, loop=reference.frames, covered=reference.covered))
        yield OutputFile(path, NAME, MEDIA_TYPE, *size, duration_s=round(float(frames / fps), 3))


def _rate(options: Face2FaceOptions, material: Material) -> Fraction:
    """Return the frame rate of the result."""
    asked = material.fps if options.fps is None else Fraction(options.fps)
    return min(asked, Fraction(MAX_FPS)).limit_denominator(FPS_DENOMINATOR)


def _summary(material: Material, reference: Reference) -> JsonObject:
    """Return what a client may want to know of a reference before it is used."""
    return {
        "kind": material.kind,
        "width": material.size[0],
        "height": material.size[1],
        "fps": round(float(reference.fps), 3),
        "frames_seen": reference.seen,
        "frames_with_hidden_mouth": reference.covered,
        "loop_first_frame": reference.first,
        "loop_frames": reference.frames,
        "own_teeth": bool(reference.donors),
    }
