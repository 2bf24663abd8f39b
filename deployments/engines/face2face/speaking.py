"""The frames of a face that speaks, drawn one after the other: an actor gives each frame and its face, a voice draws the mouth.

::

    ClipActor ──┐ shot(n): frame, landmarks     MeshVoice ─────┐
                ├────────────────────────▶ mouth drawn in place ├──▶ settle(n, frame): what follows the mouth
    StillActor ─┘                               Wav2LipVoice ──┘
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from deployments.engines.face2face.idle import IdleMotion, StillAnimator
from deployments.engines.face2face.mel import MelWindow, Spectrogram, window_at
from deployments.engines.face2face.mesh_talker import MeshTalker
from deployments.engines.face2face.mouth_crop import MouthCrop, MouthCropper
from deployments.engines.face2face.mouth_track import MouthTrack
from deployments.engines.face2face.playback import FrameReel, Loop, play_order, resampled
from deployments.engines.face2face.reference import Reference
from deployments.engines.face2face.wav2lip import Wav2Lip
from deployments.engines.faces.align import Points
from deployments.engines.faces.geometry import CanonicalMesh
from deployments.engines.images import BgrImage

SCRATCH = "reference.frames"
OPEN_EYES = 0.01  # a smaller part of a blink is not drawn


class Shot(NamedTuple):
    """A frame before its mouth is drawn."""

    frame: BgrImage  # uint8 BGR, the caller's to change
    landmarks: Points  # (478, 3), pixels


class Actor(Protocol):
    """Gives frames in order."""

    def shot(self, number: int) -> Shot:
        """Return a frame of the video."""

    def settle(self, number: int, frame: BgrImage) -> BgrImage:
        """Do to a frame what comes after its mouth."""


class Speaking(Protocol):
    """Draws frames in order."""

    def __call__(self, number: int) -> BgrImage:
        """Return a frame, uint8 BGR, of the reference's size."""


class StillActor:
    """A picture that sways and blinks."""

    def __init__(self, mesh: CanonicalMesh, image: BgrImage, reference: Reference, frames: int, fps: float, seed: int) -> None:
        """Prepare.

        Args:
            mesh: canonical.
            image: uint8 BGR, the picture.
            reference: of it.
            frames: of the video.
            fps: frames a second.
            seed: of the idle motion: another attempt of a job draws the same.
        """
        self._image = image
        self._landmarks = reference.landmarks[0]
        self._fps = fps
        self._motion = IdleMotion(seed, frames / fps)
        self._animator = StillAnimator(mesh, self._landmarks, image.shape)

    def shot(self, number: int) -> Shot:
        """See :class:`Actor`."""
        frame = self._image.copy()
        shut = self._motion.blink(number / self._fps)
        if shut > OPEN_EYES:
            self._animator.blink(frame, shut)
        return Shot(frame, self._landmarks)

    def settle(self, number: int, frame: BgrImage) -> BgrImage:
        """See :class:`Actor`."""
        return self._animator.sway(frame, self._motion.pose(number / self._fps))


class ClipActor:
    """A clip; head and eyes do what they do in it."""

    def __init__(
        self, clip: Iterator[BgrImage], reference: Reference, frames: int, *, fps: float, loop: Loop, folder: Path, replay_bytes: int
    ) -> None:
        """Prepare; nothing is decoded yet.

        Args:
            clip: frames of the whole clip.
            reference: of it.
            frames: of the video.
            fps: frames a second of what is drawn.
            loop: how a clip that is shorter than the sound goes on.
            folder: for the frames that are shown again.
            replay_bytes: that they may take.
        """
        self._landmarks = reference.landmarks
        window = int(np.clip(replay_bytes // (reference.size[0] * reference.size[1] * 3), 1, reference.frames))
        steps = resampled(frames, float(reference.fps), fps)
        self._order = play_order(reference.frames, int(steps[-1]) + 1, loop, window)[steps]
        again = bool((np.diff(self._order) < 0).any())
        scratch = folder / SCRATCH if again else None
        self._reel = FrameReel(clip, first=reference.first, count=reference.frames, scratch=scratch, window=window)

    def shot(self, number: int) -> Shot:
        """See :class:`Actor`."""
        at = int(self._order[number])
        return Shot(self._reel.frame(at), self._landmarks[at])

    def settle(self, number: int, frame: BgrImage) -> BgrImage:  # noqa: ARG002 -- the clip moves by itself
        """See :class:`Actor`."""
        return frame


class MeshVoice:
    """Speaks by the mesh."""

    def __init__(self, actor: Actor, talker: MeshTalker, reference: Reference, track: MouthTrack) -> None:
        """Take who speaks, and what the mouth does."""
        self._actor = actor
        self._talker = talker
        self._reference = reference
        self._track = track

    def __call__(self, number: int) -> BgrImage:
        """See :class:`Speaking`."""
        frame, landmarks = self._actor.shot(number)
        known, track = self._reference, self._track
        self._talker.speak(frame, landmarks, known.rest, known.donors, track.opening[number], track.width[number])
        return self._actor.settle(number, frame)


class _Cut(NamedTuple):
    shot: Shot
    crop: MouthCrop
    heard: MelWindow


class Wav2LipVoice:
    """Speaks by a network, some frames at a time: they are shot ahead of the one that is asked for."""

    def __init__(self, actor: Actor, network: Wav2Lip, cropper: MouthCropper, spectrogram: Spectrogram, frames: int, fps: float) -> None:
        """Take who speaks, and what is heard.

        Args:
            actor: gives the frames.
            network: draws their mouths.
            cropper: cuts and pastes.
            spectrogram: of the audio.
            frames: of the video.
            fps: frames a second.
        """
        self._actor = actor
        self._network = network
        self._cropper = cropper
        self._spectrogram = spectrogram
        self._frames = frames
        self._fps = fps
        self._drawn: deque[BgrImage] = deque()  # the next frames

    def __call__(self, number: int) -> BgrImage:
        """See :class:`Speaking`."""
        if not self._drawn:
            cuts = [self._cut(n) for n in range(number, min(number + self._network.batch, self._frames))]
            spoken = self._network.speak([cut.heard for cut in cuts], [cut.crop.face for cut in cuts])
            for cut, face in zip(cuts, spoken, strict=True):
                self._cropper.paste(cut.shot.frame, cut.shot.landmarks, cut.crop, face)
                self._drawn.append(cut.shot.frame)
        return self._actor.settle(number, self._drawn.popleft())

    def _cut(self, number: int) -> _Cut:
        shot = self._actor.shot(number)
        return _Cut(shot, self._cropper.cut(shot.frame, shot.landmarks), window_at(self._spectrogram, number / self._fps))
