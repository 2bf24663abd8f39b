"""Moves the target's face shape towards the source's: jaw, cheeks, nose and eye spacing carry as much identity as the skin."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from deployments.engines.faces.align import Points, fit_similarity
from deployments.engines.faces.geometry import LIPS_INNER, LIPS_OUTER, VERTICES
from deployments.engines.images import BgrImage

GRID = 48  # cells a side: finer would carry expression and landmark noise along
SPREAD = 0.045  # sigma of the smoothing, in grid sides
BORDER = 0.18  # of the region's side, over which the displacement fades to nothing, so that the region joins its surroundings

# Mouths move with speech and mood, which stay the target's.
LIP_SHARE = {**dict.fromkeys(LIPS_OUTER, 0.35), **dict.fromkeys(LIPS_INNER, 0.25)}
SHARE = np.array([LIP_SHARE.get(vertex, 1.0) for vertex in range(VERTICES)])

Displacement = npt.NDArray[np.float32]  # (GRID, GRID, 2): pixels to move, by cell of the region


def reshape_face(region: BgrImage, points: Points, source: Points, strength: float) -> Points:
    """Warp a region of the target in place and move its landmarks along.

    Args:
        region: uint8 BGR around the face, changed.
        points: (468, 3), pixels of the region.
        source: (468, 3), landmarks of the source in its own picture.
        strength: 0 leaves the target's shape, 1 gives it the source's as far as the grid resolves it.

    Returns:
        float32, shape (468, 3): where the landmarks are now.
    """
    height, width = region.shape[:2]
    cells = np.clip((points[:, :2] * (GRID / np.array([width, height]))).astype(int), 0, GRID - 1)
    displacement = _displacement(points, source, cells) * strength
    _warp(region, displacement)
    moved = points.copy()
    moved[:, :2] += displacement[cells[:, 1], cells[:, 0]]
    return moved


def _displacement(points: Points, source: Points, cells: npt.NDArray[np.int_]) -> Displacement:
    """Difference of the shapes once pose and size are taken out, smoothed over the grid."""
    aligned = fit_similarity(source, points).apply(source)
    wanted = (aligned - points)[:, :2] * SHARE[:, None]
    sums = np.zeros((GRID, GRID, 3), np.float32)
    np.add.at(sums, (cells[:, 1], cells[:, 0]), np.concatenate([wanted, np.ones((VERTICES, 1))], axis=1).astype(np.float32))
    smooth = np.asarray(cv2.GaussianBlur(sums, (0, 0), GRID * SPREAD), np.float32)
    return np.asarray(smooth[..., :2] / (smooth[..., 2:] + 0.02) * _fade()[..., None], np.float32)


def _fade() -> npt.NDArray[np.float32]:
    """1 in the middle, 0 at the region's edge."""
    position = np.linspace(0, 1, GRID, dtype=np.float32)
    ramp = np.clip(np.minimum(position, 1 - position) / BORDER, 0, 1)
    return np.minimum(ramp[:, None], ramp[None])


def _warp(region: BgrImage, displacement: Displacement) -> None:
    height, width = region.shape[:2]
    dense = cv2.resize(displacement, (width, height), interpolation=cv2.INTER_LINEAR)
    x = np.arange(width, dtype=np.float32) - dense[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] - dense[..., 1]
    # Fixed-point maps: on a large face this halves the cost of the remap.
    coarse, fine = cv2.convertMaps(x, y, cv2.CV_16SC2)
    np.copyto(region, cv2.remap(region, coarse, fine, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
