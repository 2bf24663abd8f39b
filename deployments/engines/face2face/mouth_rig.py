"""How a mouth moves on the canonical mesh: the jaw drops, the upper lip lifts, the corners spread or round.

A frame's face is brought into the canonical frame (centimetres, y up, z to the viewer) by the part that speech does not move. There its
mouth is first brought to rest, as it looks when this person is silent, and then to the shape that the sound asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from deployments.engines.faces.align import Points, Similarity, fit_similarity
from deployments.engines.faces.geometry import (
    INNER_LIP_MIDDLES,
    LIPS_INNER_LOWER,
    LIPS_INNER_UPPER,
    LIPS_OUTER,
    NOSE_TIP,
    VERTICES,
    CanonicalMesh,
)

Shape = npt.NDArray[np.float64]  # (468, 3), canonical centimetres

# Rows of lip vertices from the mouth's slit outwards, without the corners; numbers as in the canonical model's drawing.
UPPER_LIP = (
    0, 11, 12, 13, 37, 39, 40, 185, 72, 73, 74, 38, 41, 42, 80, 81, 82, 191,
    267, 269, 270, 409, 302, 303, 304, 268, 271, 272, 310, 311, 312, 415,
)  # fmt: skip
LOWER_LIP = (14, 17, 84, 87, 88, 91, 95, 146, 178, 181, 314, 317, 318, 321, 324, 375, 402, 405)
CORNERS = (61, 291, 78, 308, 62, 292)

# Centimetres of a full movement at strength 1.
JAW_DROP, JAW_BACK, LIP_LIFT = 1.8, 0.35, 0.22
SPREAD, ROUND, POUT = 0.30, 0.50, 0.25

QUIETEST = 5  # the fifth of the frames whose mouths are least open shows the mouth at rest
SLIT = 0.01  # centimetres that the lips at rest stay apart, so that no triangle folds over

RIGID_BELOW_NOSE = 0.2  # centimetres below the nose's tip down to which speech moves nothing


class MouthRig:
    """Weights of every movement by vertex; read-only and shared."""

    def __init__(self, mesh: CanonicalMesh) -> None:
        """Derive the weights from where the vertices are."""
        xyz = mesh.vertices.astype(np.float64)
        self._rest = xyz
        self._rigid = np.flatnonzero(xyz[:, 1] > xyz[NOSE_TIP, 1] - RIGID_BELOW_NOSE)
        self._centre = xyz[list(LIPS_OUTER)].mean(0)
        self._mouth = _around_mouth(xyz, self._centre)
        self._jaw = _jaw(xyz)
        self._lift = np.zeros(VERTICES)
        self._lift[list(UPPER_LIP)] = np.clip((2.4 - np.abs(xyz[list(UPPER_LIP), 0])) / 1.4, 0, 1)
        height = np.exp(-(((xyz[:, 1] - self._centre[1]) / 2.0) ** 2))
        self._wide = height * np.tanh(xyz[:, 0] / 1.2) * np.clip((5.5 - np.abs(xyz[:, 0])) / 2.5, 0, 1)

    def pose_of(self, landmarks: Points) -> Similarity:
        """Return the similarity from canonical centimetres to pixels, by the part of the face that speech does not move."""
        return fit_similarity(self._rest[self._rigid], landmarks[self._rigid].astype(np.float64))

    def mouth_at_rest(self, frames: npt.NDArray[np.float32]) -> Shape:
        """Return this person's shape with the lips closed.

        Args:
            frames: landmarks of each frame, (n, 478, 3), pixels.
        """
        shapes = np.stack([self.pose_of(landmarks).invert(landmarks[:VERTICES]) for landmarks in frames])
        gaps = shapes[:, INNER_LIP_MIDDLES[0], 1] - shapes[:, INNER_LIP_MIDDLES[1], 1]
        rest = shapes[np.argsort(gaps)[: max(1, len(frames) // QUIETEST)]].mean(0)
        upper, lower = list(LIPS_INNER_UPPER), list(LIPS_INNER_LOWER)
        middle = (rest[upper] + rest[lower]) / 2
        # The lips' own flesh follows the slit: closing a smile by its edge alone would stretch the red over the teeth.
        self._close(rest, UPPER_LIP, upper, middle[:, 1] - rest[upper, 1])
        self._close(rest, LOWER_LIP, lower, middle[:, 1] - rest[lower, 1])
        rest[upper, 1], rest[lower, 1] = middle[:, 1] + SLIT, middle[:, 1] - SLIT
        return np.asarray(rest, np.float64)

    def speak(self, landmarks: Points, rest: Shape, opening: float, width: float) -> Points:
        """Return where the vertices of a frame's face go.

        Args:
            landmarks: (468 or more, 3), pixels.
            rest: from ``mouth_at_rest``.
            opening: 0 shut .. 1 as far as the jaw goes.
            width: -1 rounded .. 1 spread.

        Returns:
            float32, shape (468, 3), pixels.
        """
        pose = self.pose_of(landmarks)
        shape = pose.invert(landmarks[:VERTICES])
        shape += (rest - shape) * self._mouth[:, None]
        spread, rounding = max(0.0, width), max(0.0, -width)
        shape[:, 1] += opening * (LIP_LIFT * self._lift - JAW_DROP * self._jaw)
        shape[:, 2] += POUT * rounding * np.exp(-((rest - self._centre)[:, :2] ** 2).sum(1) / 3) - JAW_BACK * opening * self._jaw
        shape[:, 0] += self._wide * (SPREAD * spread - ROUND * rounding)
        return pose.apply(shape).astype(np.float32)

    def _close(self, rest: Shape, lip: Sequence[int], edge: Sequence[int], shift: npt.NDArray[np.float64]) -> None:
        """Move a lip with its inner edge, by what the edge moves at the same distance from the middle of the face."""
        order = np.argsort(rest[edge, 0])
        rest[list(lip), 1] += np.interp(rest[list(lip), 0], rest[edge, 0][order], shift[order])


def _around_mouth(xyz: Shape, centre: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1 around the mouth, fading out over cheeks and chin: how far a vertex is brought to rest."""
    distance = np.sqrt((((xyz - centre) / [5.2, 4.2, 9.0]) ** 2).sum(1))
    fade = np.clip((1.45 - distance) / 0.65, 0, 1)
    return np.asarray(fade * fade * (3 - 2 * fade), np.float64)


def _jaw(xyz: Shape) -> npt.NDArray[np.float64]:
    """How far a vertex goes with the jaw: all of the chin and the lower lip, nothing of the upper lip, the corners in between."""
    below = xyz[list(INNER_LIP_MIDDLES), 1].mean() - xyz[:, 1]
    jaw = np.clip(below / 0.5, 0, 1) * np.clip((5.6 - np.abs(xyz[:, 0])) / 3.2, 0, 1)
    low = list(LOWER_LIP)
    jaw[low] = np.maximum(jaw[low], np.clip((2.6 - np.abs(xyz[low, 0])) / 1.2, 0, 1))
    jaw[list(UPPER_LIP)] = 0
    jaw[list(CORNERS)] = 0.35
    return np.asarray(jaw, np.float64)
