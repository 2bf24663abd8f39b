"""What a job may have speak: a still or a clip, opened; each knows how it is looked at and how it is played."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Protocol

from deployments.engines.face2face.config import Face2FaceConfig
from deployments.engines.face2face.playback import Loop
from deployments.engines.face2face.reference import Reference, ReferenceReader
from deployments.engines.face2face.speaking import Actor, ClipActor, StillActor
from deployments.engines.faces.following import FaceFollower
from deployments.engines.faces.geometry import CanonicalMesh
from deployments.engines.images import BgrImage
from deployments.engines.media.picture import fit_size, load_picture, resize
from deployments.engines.media.probe import VideoTraits, probe, probe_video
from deployments.engines.media.video import read_frames
from deployments.jobs.errors import InvalidInput, NoFaceDetected
from deployments.jobs.ports import LocalMedia

DEFAULT_FPS = Fraction(25)  # where a container does not say
FPS_DENOMINATOR = 1001  # of NTSC rates

Looking = Generator[int, None, Reference]  # yields how many frames were looked at


@dataclass(frozen=True)
class Drawing:
    """How a material is played that has been looked at."""

    mesh: CanonicalMesh
    reference: Reference
    frames: int
    fps: float
    loop: Loop
    folder: Path  # to write in


class Material(Protocol):
    """A still or a clip."""

    kind: ClassVar[str]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of its frames, pixels."""

    @property
    def fps(self) -> Fraction:
        """Frames a second that it is played at unless the job says."""

    @property
    def traits(self) -> VideoTraits | None:
        """Of a clip."""

    def look(self, reader: ReferenceReader, follower: FaceFollower, wanted: int | None) -> Looking:
        """Prepare the reference; see ``ReferenceReader``."""

    def acting(self, drawing: Drawing) -> AbstractContextManager[Actor]:
        """Have what gives its frames."""


def open_material(video: LocalMedia, config: Face2FaceConfig) -> Material:
    """Open the reference of a job.

    Raises:
        UnsupportedMedia: it cannot be read.
        MediaTooLarge: it is over the limits.
        InvalidInput: it is sound.
    """
    info = probe(video.path, config.limits)
    if info.kind == "audio":
        raise InvalidInput("the video is sound alone: send a clip or a picture of a face")
    if info.kind == "video":
        return Clip(video, probe_video(video.path, config.limits), config)
    image = load_picture(video.path, config.limits)
    scale = min(1.0, (config.still_pixels / (info.width * info.height)) ** 0.5)
    box = int(info.width * scale), int(info.height * scale)
    fps = Fraction(config.still_fps).limit_denominator(FPS_DENOMINATOR)
    return Still(video, resize(image, fit_size(info.width, info.height, box)), fps)


@dataclass(frozen=True)
class Still:
    """A picture, at the size at which it is drawn."""

    kind: ClassVar[str] = "picture"
    video: LocalMedia
    image: BgrImage
    fps: Fraction
    traits: None = None

    @property
    def size(self) -> tuple[int, int]:
        """See :class:`Material`."""
        return self.image.shape[1], self.image.shape[0]

    def look(self, reader: ReferenceReader, follower: FaceFollower, wanted: int | None) -> Looking:  # noqa: ARG002 -- one frame is all
        """See :class:`Material`.

        Raises:
            NoFaceDetected: it shows none.
        """
        face = follower.update(self.image)
        if face is None:
            raise NoFaceDetected("video")
        yield 1
        return reader.read_still(self.image, face.landmarks, self.fps)

    @contextmanager
    def acting(self, drawing: Drawing) -> Iterator[Actor]:
        """See :class:`Material`. Another attempt of a job moves the same way."""
        seed = int(self.video.sha256[:8], 16)
        yield StillActor(drawing.mesh, self.image, drawing.reference, drawing.frames, drawing.fps, seed)


@dataclass(frozen=True)
class Clip:
    """A video, decoded as often as it is needed: frames are never all in memory."""

    kind: ClassVar[str] = "video"
    video: LocalMedia
    traits: VideoTraits
    config: Face2FaceConfig

    @property
    def size(self) -> tuple[int, int]:
        """See :class:`Material`."""
        return self.traits.info.width, self.traits.info.height

    @property
    def fps(self) -> Fraction:
        """See :class:`Material`."""
        return self.traits.info.fps or DEFAULT_FPS

    def look(self, reader: ReferenceReader, follower: FaceFollower, wanted: int | None) -> Looking:
        """See :class:`Material`."""
        with closing(self._frames()) as frames:
            return (yield from reader.read_clip(frames, follower, self.fps, wanted))

    @contextmanager
    def acting(self, drawing: Drawing) -> Iterator[Actor]:
        """See :class:`Material`."""
        with closing(self._frames()) as frames:
            yield ClipActor(
                frames,
                drawing.reference,
                drawing.frames,
                fps=drawing.fps,
                loop=drawing.loop,
                folder=drawing.folder,
                replay_bytes=self.config.replay_bytes,
            )

    def _frames(self) -> Generator[BgrImage, None, None]:
        return read_frames(self.video.path, self.traits, self.config.limits, self.config.codec_threads)
