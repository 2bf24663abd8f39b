"""Similarity transforms between point sets, and the five points that recognisers are aligned by."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from deployments.engines.faces.geometry import EYE_CORNERS, MOUTH_CORNERS, NOSE_TIP
from deployments.engines.images import BgrImage

Points = npt.NDArray[np.float32]  # (n, 2) or (n, 3), pixels; x to the right, y down, z away from the viewer

# Eyes, nose tip and mouth corners in a 112 px crop; Deng et al. 2019, arXiv:1801.07698. SFace was trained on the same crop.
ARCFACE_TEMPLATE_112: Points = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)


@dataclass(frozen=True)
class Similarity:
    """``y = scale * rotation @ x + shift``, in two or three dimensions."""

    scale: float
    rotation: npt.NDArray[np.float64]  # (d, d)
    shift: npt.NDArray[np.float64]  # (d,)

    def apply(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Map points of shape (n, d)."""
        return np.asarray(self.scale * points @ self.rotation.T + self.shift, np.float64)

    def invert(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Map points of shape (n, d) back."""
        return np.asarray((points - self.shift) @ self.rotation / self.scale, np.float64)

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """The 2x3 matrix that OpenCV's ``warpAffine`` takes; only in two dimensions."""
        return np.hstack([self.scale * self.rotation, self.shift[:, None]])


def fit_similarity(points: npt.NDArray[np.floating], onto: npt.NDArray[np.floating]) -> Similarity:
    """Find the similarity that brings ``points`` closest to ``onto``, in least squares.

    Args:
        points: (n, d).
        onto: (n, d), in the same order.

    Umeyama 1991, "Least-squares estimation of transformation parameters between two point patterns".
    """
    mean, mean_onto = points.mean(0, dtype=np.float64), onto.mean(0, dtype=np.float64)
    centred, centred_onto = points - mean, onto - mean_onto
    u, singular, vt = np.linalg.svd(centred_onto.T @ centred / len(points))
    signs = np.ones(points.shape[1])
    signs[-1] = np.sign(np.linalg.det(u @ vt))  # a reflection is never wanted
    rotation = u * signs @ vt
    scale = float((singular * signs).sum() / centred.var(0).sum())
    return Similarity(scale, rotation, mean_onto - scale * rotation @ mean)


def align_crop(image: BgrImage, landmarks_5: Points) -> BgrImage:
    """Cut a face to the 112 px crop of the ArcFace template.

    Args:
        image: uint8 BGR, shape (h, w, 3).
        landmarks_5: (5, 2) pixels: eye on the picture's left, other eye, nose tip, mouth corner on the left, other corner.

    Returns:
        uint8 BGR, shape (112, 112, 3).
    """
    affine = fit_similarity(landmarks_5, ARCFACE_TEMPLATE_112).affine
    return np.asarray(cv2.warpAffine(image, affine, (112, 112), flags=cv2.INTER_LINEAR), np.uint8)


def landmarks_5_of_mesh(landmarks: Points) -> Points:
    """Take the five alignment points from mesh landmarks: steadier in video than the detector's own.

    Args:
        landmarks: (468 or more, 3), pixels.

    Returns:
        float32, shape (5, 2), in the order of ``align_crop``.
    """
    xy = landmarks[:, :2]
    eyes = [(xy[a] + xy[b]) / 2 for a, b in EYE_CORNERS]
    return np.stack([*eyes, xy[NOSE_TIP], *(xy[corner] for corner in MOUTH_CORNERS)]).astype(np.float32)
