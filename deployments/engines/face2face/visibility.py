"""Where in a clip the mouth is free: a hand over it fools the landmarks, which stay sure of themselves, but not the colours.

Each frame gets a signature: the brightness at the vertices of the lower face, as a pattern. Free mouths of one clip have nearly the same
pattern, moving lips included (their inner edge is left out); what comes before a mouth differs from it and from itself. So the largest
group of frames that are alike is taken for the free ones. Measured on a clip whose mouth is covered from frame 57: correlation with the
group 0.9 to 1.0 before, -0.2 to 0.8 behind the hand, while the landmark model's presence stayed 1.0.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from deployments.engines.faces.align import Points
from deployments.engines.faces.geometry import FACE_OVAL, LIPS_INNER, NOSE_TIP, VERTICES, CanonicalMesh
from deployments.engines.images import BgrImage

MIN_PRESENCE = 0.9  # of the landmark model: below it there is no face that could speak
ALIKE = 0.86  # correlation from which two mouths are the same, free one
MARGIN_S = 0.12  # before and after a covered mouth: fingers come in before they cover
LOOKED_AT = 300  # frames compared with each other, evenly spread: the comparison grows with the square

BELOW_NOSE, REACH = 0.8, 4.5  # canonical centimetres: what counts as the lower face
BLUR = 0.015  # of the face's width: noise and pores are no pattern

Signature = npt.NDArray[np.float32]


class MouthSignature:
    """Reads signatures. Read-only: threads may share one."""

    def __init__(self, mesh: CanonicalMesh) -> None:
        x, y = mesh.vertices[:, 0], mesh.vertices[:, 1]
        lower = (y < y[NOSE_TIP] - BELOW_NOSE) & (np.abs(x) < REACH)
        lower[list(LIPS_INNER)] = lower[list(FACE_OVAL)] = False
        self._vertices = np.flatnonzero(lower)

    @property
    def blank(self) -> Signature:
        """The signature of a frame without a face."""
        return np.zeros(len(self._vertices), np.float32)

    def read(self, frame: BgrImage, landmarks: Points) -> Signature:
        """Return a frame's signature: float32, zero mean, length one.

        Args:
            frame: uint8 BGR.
            landmarks: (468 or more, 3), pixels.
        """
        points = landmarks[self._vertices, :2]
        width = float(np.ptp(landmarks[:VERTICES, 0]))
        edge = np.array(frame.shape[1::-1])
        low = np.clip(np.floor(points.min(0)).astype(int) - 2, 0, edge - 1)
        high = np.clip(np.ceil(points.max(0)).astype(int) + 3, low + 1, edge)
        grey = cv2.cvtColor(frame[low[1] : high[1], low[0] : high[0]], cv2.COLOR_BGR2GRAY)
        smooth = cv2.GaussianBlur(grey, (0, 0), max(0.8, width * BLUR)).astype(np.float32)
        at = (points - low).astype(np.float32)
        values = cv2.remap(smooth, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
        centred = values - values.mean()
        return np.asarray(centred / (np.linalg.norm(centred) + 1e-6), np.float32)


def free_frames(signatures: npt.NDArray[np.float32], presences: npt.NDArray[np.float32], fps: float) -> npt.NDArray[np.bool_]:
    """Tell which frames of a clip show a free mouth.

    Args:
        signatures: (n, k), a row of zeros for a frame without a face.
        presences: (n,), 0 for a frame without a face.
        fps: frames a second.
    """
    present = presences >= MIN_PRESENCE
    if not present.any():
        return present
    looked_at = np.flatnonzero(present)
    looked_at = looked_at[np.unique(np.linspace(0, len(looked_at) - 1, LOOKED_AT).round().astype(int))]
    alike = signatures[looked_at] @ signatures[looked_at].T >= ALIKE
    group = signatures[looked_at][alike[alike.sum(1).argmax()]]
    model = group.mean(0) / np.linalg.norm(group.mean(0))
    covered = present & (signatures @ model < ALIKE)
    reach = round(MARGIN_S * fps)
    near = np.convolve(covered, np.ones(2 * reach + 1), "same") > 0
    return np.asarray(present & ~near, np.bool_)


def longest_run(free: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return (begin, end) of the longest unbroken run of free frames; end is excluded, and both are 0 when there is none."""
    edges = np.diff(np.concatenate([[0], free.astype(np.int8), [0]]))
    begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if not len(begins):
        return 0, 0
    longest = (ends - begins).argmax()
    return int(begins[longest]), int(ends[longest])
