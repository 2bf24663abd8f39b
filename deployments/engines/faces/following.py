"""Following one face through a video: the largest of the first frame that has any, or the one that was pointed at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deployments.engines.faces.align import Points
from deployments.engines.faces.detector import FaceDetector
from deployments.engines.faces.geometry import VERTICES
from deployments.engines.faces.mesh import FaceMesh, MeshFace, roi_of_landmarks
from deployments.engines.faces.tracking import locate_detections
from deployments.engines.images import BgrImage

Place = tuple[float, float]  # in shares of the picture's width and height

NEAR = 1.0  # of a face's width: a face that far from where the lost one was is taken for it


@dataclass(frozen=True)
class Sighting:
    """The followed face in one frame."""

    landmarks: Points  # (478, 3), pixels, as the model has placed them
    presence: float  # 0..1, the model's own doubt


class FaceFollower:
    """Follows one face. One per video: it has state."""

    def __init__(self, detector: FaceDetector, mesh: FaceMesh, place: Place | None = None) -> None:
        """Start with no face known.

        Args:
            detector: finds the face, and finds it again.
            mesh: places landmarks.
            place: the face nearest to it is followed; None: the largest.
        """
        self._detector = detector
        self._mesh = mesh
        self._place = place
        self._last: Points | None = None
        self._seen = False  # in the frame before

    def update(self, frame: BgrImage) -> Sighting | None:
        """Take the next frame; None while the face is not to be seen."""
        face = self._follow(frame) or self._find(frame)
        self._seen = face is not None
        if face is None:
            return None
        self._last = face.landmarks
        return Sighting(face.landmarks, face.presence)

    def _follow(self, frame: BgrImage) -> MeshFace | None:
        if self._last is None or not self._seen:
            return None
        face = self._mesh.locate(frame, [roi_of_landmarks(self._last)])[0]
        return face if face.swappable else None

    def _find(self, frame: BgrImage) -> MeshFace | None:
        faces = [face for face in locate_detections(self._mesh, frame, self._detector.detect(frame)) if face.swappable]
        if self._last is not None:
            reach = NEAR * float(np.ptp(self._last[:VERTICES, 0]))
            return _nearest([face for face in faces if _distance(face, _centre(self._last)) < reach], _centre(self._last))
        if self._place is not None:
            return _nearest(faces, np.array(self._place) * frame.shape[1::-1])
        return next(iter(faces), None)


def _nearest(faces: list[MeshFace], point: npt.NDArray[np.floating]) -> MeshFace | None:
    return min(faces, key=lambda face: _distance(face, point), default=None)


def _distance(face: MeshFace, point: npt.NDArray[np.floating]) -> float:
    return float(np.linalg.norm(_centre(face.landmarks) - point))


def _centre(landmarks: Points) -> npt.NDArray[np.floating]:
    return np.asarray(landmarks[:VERTICES, :2].mean(0))
