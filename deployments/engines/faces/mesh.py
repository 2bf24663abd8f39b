"""Dense face landmarks: 478 points with depth, from MediaPipe's face mesh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from deployments.engines.faces.align import Points
from deployments.engines.faces.detector import Detection
from deployments.engines.faces.geometry import EYE_CORNERS, VERTICES
from deployments.engines.images import BgrImage

INPUT_SIDE_PX = 256
LANDMARKS = 478
ROI_MARGIN = 1.5  # side of the crop in face sizes, as MediaPipe's graph expands its rectangles
MIN_PRESENCE = 0.5  # tiny, averted and blurred detections score 0.00 to 0.09: nothing there can be swapped


@dataclass(frozen=True)
class Roi:
    """A square of the picture, turned so that the eyes are level."""

    centre: npt.NDArray[np.float32]  # (2,), pixels
    side_px: float
    angle: float  # radians, clockwise on screen

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """The 2x3 matrix from picture pixels to pixels of the model's input."""
        scale = INPUT_SIDE_PX / self.side_px
        cos, sin = np.cos(self.angle) * scale, np.sin(self.angle) * scale
        rotation = np.array([[cos, sin], [-sin, cos]])
        return np.hstack([rotation, (INPUT_SIDE_PX / 2 - rotation @ self.centre)[:, None]])


@dataclass(frozen=True)
class MeshFace:
    """The landmarks of one face."""

    landmarks: Points  # (478, 3), pixels of the picture; z in the same scale, away from the viewer
    presence: float  # 0..1, the model's own doubt that there is a face

    @property
    def swappable(self) -> bool:
        """Whether the landmarks can be relied on."""
        return self.presence >= MIN_PRESENCE


def roi_of_detection(detection: Detection) -> Roi:
    """Return the crop for a face that a detector found."""
    left_eye, right_eye = detection.landmarks_5[:2]
    return Roi(detection.centre, detection.side_px * ROI_MARGIN, _angle_between(left_eye, right_eye))


def roi_of_landmarks(landmarks: Points) -> Roi:
    """Return the crop for a face whose landmarks are known, such as those of the frame before."""
    angle = _angle_between(landmarks[EYE_CORNERS[0][0], :2], landmarks[EYE_CORNERS[1][1], :2])
    cos, sin = np.cos(angle), np.sin(angle)
    level = np.array([[cos, -sin], [sin, cos]], np.float32)
    upright = landmarks[:VERTICES, :2] @ level
    low, high = upright.min(0), upright.max(0)
    centre = (low + high) / 2 @ level.T
    return Roi(np.asarray(centre, np.float32), float((high - low).max()) * ROI_MARGIN, angle)


class FaceMesh:
    """Places 478 points on faces whose whereabouts are known.

    Kartynnik et al. 2019, arXiv:1907.06724; with attention, Grishchenko et al. 2020, arXiv:2006.10962.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        """Take an opened ``face_landmarks_detector.onnx``."""
        self._session = session

    def locate(self, image: BgrImage, rois: Sequence[Roi]) -> list[MeshFace]:
        """Place the points on all faces of a picture in one batch.

        Args:
            image: uint8 BGR, shape (h, w, 3).
            rois: one square a face; may be empty.

        Returns:
            One result a square, in order. Look at ``swappable`` before use.
        """
        if not rois:
            return []
        crops = np.stack([_crop(image, roi) for roi in rois])
        points, logits = self._session.run(["out0", "out1"], {"input": crops})
        presences = 1 / (1 + np.exp(-logits.reshape(-1)))
        return [_face_of(raw, roi, presence) for raw, roi, presence in zip(points, rois, presences, strict=True)]


def _crop(image: BgrImage, roi: Roi) -> npt.NDArray[np.float32]:
    crop = cv2.warpAffine(image, roi.affine, (INPUT_SIDE_PX, INPUT_SIDE_PX), flags=cv2.INTER_LINEAR)
    # The model was trained on RGB 0..1; frames are BGR everywhere else.
    return np.asarray(crop[..., ::-1].transpose(2, 0, 1), np.float32) / np.float32(255)


def _face_of(raw: npt.NDArray[np.float32], roi: Roi, presence: float) -> MeshFace:
    in_crop = raw.reshape(LANDMARKS, 3)
    back = cv2.invertAffineTransform(roi.affine)
    xy = in_crop[:, :2] @ back[:, :2].T + back[:, 2]
    z = in_crop[:, 2:] * (roi.side_px / INPUT_SIDE_PX)
    return MeshFace(np.concatenate([xy, z], axis=1).astype(np.float32), float(presence))


def _angle_between(left: npt.NDArray[np.floating], right: npt.NDArray[np.floating]) -> float:
    delta = right - left
    return float(np.arctan2(delta[1], delta[0]))
