"""Faces of one picture: detection and landmarks together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from deployments.engines.faces.align import Points
from deployments.engines.faces.detector import FaceDetector
from deployments.engines.faces.following import FaceFollower, Place
from deployments.engines.faces.mesh import FaceMesh
from deployments.engines.faces.tracking import FaceTracker, locate_detections
from deployments.engines.images import BgrImage
from deployments.engines.models import ModelInfo, verified_file
from deployments.engines.onnx import SessionConfig, open_session


class FaceAnalysisConfig(Protocol):
    """What an engine's configuration says about finding faces."""

    @property
    def session(self) -> SessionConfig:
        """Device and threads."""

    @property
    def detection_threshold(self) -> float:
        """Least score of a detection, 0..1."""

    @property
    def detection_overlap(self) -> float:
        """Intersection over union above which two boxes are one face."""

    @property
    def max_faces(self) -> int:
        """Largest faces kept."""


class FaceAnalysis:
    """Finds swappable faces and their landmarks. Stateless: threads may share one."""

    def __init__(self, detector: FaceDetector, mesh: FaceMesh) -> None:
        """Take the opened models; ``load`` opens them."""
        self._detector = detector
        self._mesh = mesh

    @classmethod
    def load(cls, models: Sequence[ModelInfo], config: FaceAnalysisConfig) -> FaceAnalysis:
        """Open YuNet and the face mesh.

        Raises:
            EngineFailed: a file is missing or altered, or the device is not there.
        """
        detector = FaceDetector(
            open_session(verified_file(models, "yunet"), config.session),
            threshold=config.detection_threshold,
            overlap=config.detection_overlap,
            max_faces=config.max_faces,
        )
        mesh = FaceMesh(open_session(verified_file(models, "face_mesh"), config.session))
        return cls(detector, mesh)

    def faces(self, image: BgrImage) -> list[Points]:
        """Return the landmarks (478, 3) of every swappable face, largest first."""
        located = locate_detections(self._mesh, image, self._detector.detect(image))
        return [face.landmarks for face in located if face.swappable]

    def follow(self, place: Place | None = None) -> FaceFollower:
        """Start following one face of one video: the largest, or the one nearest to ``place``."""
        return FaceFollower(self._detector, self._mesh, place)

    def track(self, fps: float, detect_every: int) -> FaceTracker:
        """Start following all faces of one video, looking for new ones each ``detect_every`` frames."""
        return FaceTracker(self._detector, self._mesh, fps=fps, detect_every=detect_every)
