"""Where the source's face is drawn: inside the oval, softly, and not over an open mouth or eyes that are shut."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from deployments.engines.faces.align import Points
from deployments.engines.faces.expression import eye_openness, mouth_openness
from deployments.engines.faces.geometry import EYE_CORNERS, FACE_OVAL, LIPS_INNER
from deployments.engines.faces.warp import polygon_mask

Mask = npt.NDArray[np.uint8]  # (h, w), 0..255

# In widths of the face.
INSET = 0.035  # the oval runs along the silhouette, where the background begins
FEATHER = 0.022
MOUTH_FEATHER = 0.006
MIN_FEATHER_PX, MIN_MOUTH_FEATHER_PX = 0.8, 0.6

OPEN_MOUTH = 0.06  # mouth openness below which no teeth are seen

SHUT_EYE = 0.05  # openness that landmarks report of shut eyes; added to both, so that two shut eyes are alike
EYES_ALIKE, EYES_SOFTNESS = 0.6, 0.2  # quotient of opennesses above which the source's eye is drawn, and below which by 0.2 it is not
EYE_AXES = (0.6, 0.32)  # half axes of what is kept, in eye widths
EYE_FEATHER = 0.02


def face_mask(points: Points, covered: Mask) -> Mask:
    """Return the hard-edged face area.

    Args:
        points: (468, 3), pixels.
        covered: where the mesh turns to the viewer: it ends at the silhouette of a turned head.
    """
    size = covered.shape[::-1]
    inside = cv2.min(polygon_mask(points[list(FACE_OVAL), :2], size), covered)
    inset = max(1, int(face_width(points) * INSET))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * inset + 1, 2 * inset + 1))
    return np.asarray(cv2.erode(inside, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0), np.uint8)


def feathered(mask: Mask, points: Points) -> Mask:
    """Soften a face mask in proportion to the face."""
    return _softened(mask, max(MIN_FEATHER_PX, face_width(points) * FEATHER))


def kept_features(points: Points, source: Points, size: tuple[int, int]) -> Mask:
    """Return what stays the target's inside the face: an open mouth, and eyes that the source cannot fill.

    Args:
        points: (468, 3), pixels, of the target.
        source: (468, 3), of the source in its own picture.
        size: (width, height) of the mask.
    """
    width = face_width(points)
    kept = np.zeros(size[::-1], np.uint8)
    if mouth_openness(points) > OPEN_MOUTH:
        kept = _softened(polygon_mask(points[list(LIPS_INNER), :2], size), max(MIN_MOUTH_FEATHER_PX, width * MOUTH_FEATHER))
    for corners, own, other in zip(EYE_CORNERS, eye_openness(points), eye_openness(source), strict=True):
        share = _kept_share(own, other)
        if share > 0:
            kept = np.maximum(kept, _softened(_eye(points, corners, size, share), width * EYE_FEATHER))
    return kept


def _kept_share(own: float, other: float) -> float:
    """How far an eye stays the target's, 0..1: an open eye squeezed into a shut one leaves glints, the reverse a smear."""
    low, high = sorted((own + SHUT_EYE, other + SHUT_EYE))
    return float(np.clip((EYES_ALIKE - low / high) / EYES_SOFTNESS, 0, 1))


def _eye(points: Points, corners: tuple[int, int], size: tuple[int, int], share: float) -> Mask:
    """An ellipse over lids and lashes; the outline of a shut eye itself is but a line."""
    a, b = (points[corner, :2] for corner in corners)
    centre, along = (a + b) / 2, b - a
    length = float(np.linalg.norm(along))
    axes = (length * EYE_AXES[0], length * EYE_AXES[1])
    mask = np.zeros(size[::-1], np.uint8)
    angle = float(np.degrees(np.arctan2(along[1], along[0])))
    cv2.ellipse(
        mask, ((float(centre[0]), float(centre[1])), (2 * axes[0], 2 * axes[1]), angle), round(255 * share), cv2.FILLED, cv2.LINE_AA
    )
    return mask


def _softened(mask: Mask, sigma_px: float) -> Mask:
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), sigma_px), np.uint8)


def face_width(points: Points) -> float:
    """Longer side of the face's box, pixels."""
    return float(np.ptp(points[:, :2], axis=0).max())
