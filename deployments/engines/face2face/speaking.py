"""The frames of a face that speaks, drawn one after the other: of a clip, or of a still that is brought to life."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from deployments.engines.face2face.idle import IdleMotion, StillAnimator
from deployments.engines.face2face.mesh_talker import MeshTalker
from deployments.engines.face2face.mouth_track import MouthTrack
from deployments.engines.face2face.playback import FrameReel, Loop, play_order, resampled
from deployments.engines.face2face.reference import Reference
from deployments.engines.faces.geometry import CanonicalMesh
from deployments.engines.images import BgrImage

SCRATCH = "reference.frames"
OPEN_EYES = 0.01  # a smaller part of a blink is not drawn


class Speaking(Protocol):
    """Draws frames in order."""

    def __call__(self, number: int) -> BgrImage:
        """Return a frame, uint8 BGR, of the reference's size."""


class SpeakingStill:
    """A picture that speaks, sways and blinks."""

    def __init__(
        self, talker: MeshTalker, mesh: CanonicalMesh, image: BgrImage, reference: Reference, track: MouthTrack, fps: float, seed: int
    ) -> None:
        """Prepare.

        Args:
            talker: draws the mouth.
            mesh: canonical.
            image: uint8 BGR, the picture.
            reference: of it.
            track: what the mouth does.
            fps: frames a second.
            seed: of the idle motion: another attempt of a job draws the same.
        """
        self._talker = talker
        self._image = image
        self._reference = reference
        self._track = track
        self._fps = fps
        self._motion = IdleMotion(seed, len(track.opening) / fps)
        self._animator = StillAnimator(mesh, reference.landmarks[0], image.shape)

    def __call__(self, number: int) -> BgrImage:
        """See :class:`Speaking`."""
        frame, time_s = self._image.copy(), number / self._fps
        shut = self._motion.blink(time_s)
        if shut > OPEN_EYES:
            self._animator.blink(frame, shut)
        known, track = self._reference, self._track
        self._talker.speak(frame, known.landmarks[0], known.rest, known.donors, track.opening[number], track.width[number])
        return self._animator.sway(frame, self._motion.pose(time_s))


class SpeakingClip:
    """A clip whose face speaks; head and eyes do what they do in the clip."""

    def __init__(
        self,
        talker: MeshTalker,
        frames: Iterator[BgrImage],
        reference: Reference,
        track: MouthTrack,
        *,
        fps: float,
        loop: Loop,
        folder: Path,
        replay_bytes: int,
    ) -> None:
        """Prepare; nothing is decoded yet.

        Args:
            talker: draws the mouth.
            frames: of the whole clip.
            reference: of it.
            track: what the mouth does.
            fps: frames a second of what is drawn.
            loop: how a clip that is shorter than the sound goes on.
            folder: for the frames that are shown again.
            replay_bytes: that they may take.
        """
        self._talker = talker
        self._reference = reference
        self._track = track
        window = int(np.clip(replay_bytes // (reference.size[0] * reference.size[1] * 3), 1, reference.frames))
        steps = resampled(len(track.opening), float(reference.fps), fps)
        self._order = play_order(reference.frames, int(steps[-1]) + 1, loop, window)[steps]
        again = bool((np.diff(self._order) < 0).any())
        scratch = folder / SCRATCH if again else None
        self._reel = FrameReel(frames, first=reference.first, count=reference.frames, scratch=scratch, window=window)

    def __call__(self, number: int) -> BgrImage:
        """See :class:`Speaking`."""
        at = int(self._order[number])
        frame, known, track = self._reel.frame(at), self._reference, self._track
        self._talker.speak(frame, known.landmarks[at], known.rest, known.donors, track.opening[number], track.width[number])
        return frame
