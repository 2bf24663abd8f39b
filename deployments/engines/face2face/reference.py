"""What is known of a reference once it was looked at: where the face is in each frame that can be used, and how its mouth looks.

Looking takes most of the time of a first job, and none of a second one: see ``reference_store``.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from fractions import Fraction

import cv2
import numpy as np
import numpy.typing as npt

from deployments.engines.face2face.mouth_interior import Donor, keep_donors, take_donor
from deployments.engines.face2face.mouth_rig import MouthRig, Shape
from deployments.engines.face2face.visibility import MouthSignature, Signature, free_frames, longest_run
from deployments.engines.faces.align import Points
from deployments.engines.faces.following import FaceFollower
from deployments.engines.images import BgrImage
from deployments.jobs.errors import InvalidInput, NoFaceDetected

# Both neighbours in time are known, so a plain symmetric filter calms the landmarks, and unlike a causal one it does not lag behind a nod.
CALM_S = 0.04

MAX_DONORS = 240  # insides of mouths kept while looking, 18 kB each: beyond, every second one is dropped, so that they stay spread

FIRST_CHECK = 50  # frames after which it is asked for the first time whether enough were seen; then each time twice as many


@dataclass(frozen=True)
class Reference:
    """A clip or a still whose face may be made to speak; read-only, kept between jobs."""

    size: tuple[int, int]  # (width, height) of the frames that were looked at, pixels
    fps: Fraction  # of the clip; of a still, the rate that it is played at
    first: int  # number of the clip's frame that the loop begins with
    landmarks: npt.NDArray[np.float32]  # (n, 478, 3), pixels, of the frames of the loop; n is 1 for a still
    rest: Shape
    donors: tuple[Donor, ...]
    seen: int  # frames looked at
    covered: int  # of them, with a face whose mouth is hidden
    whole: bool  # whether the clip was looked at to its end

    @property
    def frames(self) -> int:
        """Frames of the loop."""
        return len(self.landmarks)

    def serves(self, wanted: int | None) -> bool:
        """Whether looking further would give no better loop for so many frames; None: for any number."""
        return self.whole or (wanted is not None and self.frames >= wanted)


@dataclass
class _Seen:
    """What was seen of a clip so far."""

    landmarks: list[Points] = field(default_factory=list)
    presences: list[float] = field(default_factory=list)
    signatures: list[Signature] = field(default_factory=list)
    donors: dict[int, Donor] = field(default_factory=dict)  # by frame
    size: tuple[int, int] = (0, 0)

    def free(self, fps: float) -> npt.NDArray[np.bool_]:
        return free_frames(np.stack(self.signatures), np.array(self.presences, np.float32), fps)


class ReferenceReader:
    """Looks at references. Read-only: threads may share one."""

    def __init__(self, rig: MouthRig, signature: MouthSignature) -> None:
        self._rig = rig
        self._signature = signature

    def read_still(self, image: BgrImage, landmarks: Points, fps: Fraction) -> Reference:
        """Prepare a picture."""
        donor = take_donor(image, landmarks)
        rest = self._rig.mouth_at_rest(landmarks[None])
        return Reference(_size(image), fps, 0, landmarks[None], rest, (donor,) if donor else (), 1, 0, whole=True)

    def read_clip(
        self, frames: Iterable[BgrImage], follower: FaceFollower, fps: Fraction, wanted: int | None
    ) -> Generator[int, None, Reference]:
        """Look at a clip until it has a loop that is long enough, yielding after each frame how many were looked at.

        Args:
            frames: of the clip, from its first on.
            follower: fresh.
            fps: of the clip.
            wanted: frames that the loop should have; None: as many as there are.

        Raises:
            NoFaceDetected: no frame shows a face.
            InvalidInput: every frame with a face hides its mouth.
        """
        seen, check_at, whole = _Seen(), FIRST_CHECK, True
        for frame in frames:
            self._look(frame, follower, seen)
            yield len(seen.presences)
            if wanted is not None and len(seen.presences) >= max(check_at, wanted):
                begin, end = longest_run(seen.free(float(fps)))
                if end - begin >= wanted:
                    whole = False
                    break
                check_at = 2 * len(seen.presences)
        return self._conclude(seen, fps, whole=whole)

    def _look(self, frame: BgrImage, follower: FaceFollower, seen: _Seen) -> None:
        face = follower.update(frame)
        seen.size = _size(frame)
        if face is None:
            seen.presences.append(0.0)
            seen.landmarks.append(np.zeros((0, 3), np.float32))
            seen.signatures.append(self._signature.blank)
            return
        donor = take_donor(frame, face.landmarks)
        if donor is not None:
            seen.donors[len(seen.presences)] = donor
            if len(seen.donors) > MAX_DONORS:
                seen.donors = dict(list(seen.donors.items())[::2])
        seen.presences.append(face.presence)
        seen.landmarks.append(face.landmarks)
        seen.signatures.append(self._signature.read(frame, face.landmarks))

    def _conclude(self, seen: _Seen, fps: Fraction, *, whole: bool) -> Reference:
        if not any(seen.presences):
            raise NoFaceDetected("video")
        free = seen.free(float(fps))
        begin, end = longest_run(free)
        if begin == end:
            raise InvalidInput("the mouth is hidden in every frame of the video: send a clip in which it can be seen")
        landmarks = _calmed(np.stack(seen.landmarks[begin:end]), float(fps))
        donors = keep_donors([donor for number, donor in seen.donors.items() if free[number]])
        covered = sum(1 for presence, is_free in zip(seen.presences, free, strict=True) if presence and not is_free)
        rest = self._rig.mouth_at_rest(landmarks)
        return Reference(seen.size, fps, begin, landmarks, rest, donors, len(seen.presences), covered, whole)


def _size(image: BgrImage) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _calmed(landmarks: npt.NDArray[np.float32], fps: float) -> npt.NDArray[np.float32]:
    """Smooth landmarks over time, shape (n, points, 3)."""
    flat = landmarks.reshape(len(landmarks), -1)
    smooth = cv2.GaussianBlur(flat, (1, 0), sigmaX=0, sigmaY=CALM_S * fps, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(smooth, np.float32).reshape(landmarks.shape)
