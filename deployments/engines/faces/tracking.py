"""Following faces through a video: landmarks from the frame before say where to look, a detector finds new ones, a filter calms jitter."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from deployments.engines.faces.align import Points
from deployments.engines.faces.detector import Detection, FaceDetector
from deployments.engines.faces.geometry import VERTICES
from deployments.engines.faces.mesh import FaceMesh, MeshFace, roi_of_detection, roi_of_landmarks
from deployments.engines.images import BgrImage

MAX_MISSES = 3  # frames without landmarks after which a track is dropped: a blink of an occluder must not restart its filter
SAME_FACE = 0.4  # of a face's width: centres closer than this are one face
JUMP = 0.5  # of a face's width between two frames: a cut, not a movement

# Casiez, Roussel, Vogel 2012, "1 € Filter". Tuned on faces at 24 fps: the second difference of the landmarks falls from
# 4.05 to 2.16 per mille of the face's width without a visible lag.
MIN_CUTOFF_HZ = 1.2
SPEED_COEFFICIENT = 0.02
DERIVATIVE_CUTOFF_HZ = 1.0


class OneEuroFilter:
    """Low-pass whose cut-off rises with speed: still points stop trembling, fast ones do not lag."""

    def __init__(self, fps: float) -> None:
        """Start empty; the first points pass unchanged."""
        self._step_s = 1 / fps
        self._points: Points | None = None
        self._speed: npt.NDArray[np.float32] = np.zeros(1, np.float32)

    def smooth(self, points: Points) -> Points:
        """Take the next frame's points, shape (n, 3), and return them calmed; speeds are measured in face widths."""
        width = _width(points)
        if self._points is None or _distance(self._points, points) > JUMP * width:
            self._points, self._speed = points, np.zeros_like(points)
            return points
        speed = (points - self._points) * (100 / (width * self._step_s))
        self._speed = self._speed + self._weight(DERIVATIVE_CUTOFF_HZ) * (speed - self._speed)
        cutoff = MIN_CUTOFF_HZ + SPEED_COEFFICIENT * np.linalg.norm(self._speed, axis=1, keepdims=True)
        self._points = np.asarray(self._points + self._weight(cutoff) * (points - self._points), np.float32)
        return self._points

    def _weight(self, cutoff_hz: float | npt.NDArray[np.floating]) -> float | npt.NDArray[np.floating]:
        return 1 / (1 + 1 / (2 * np.pi * cutoff_hz * self._step_s))


@dataclass
class _Track:
    landmarks: Points
    filter: OneEuroFilter
    misses: int = field(default=0)


class FaceTracker:
    """Follows all faces of one video. One per video: it has state."""

    def __init__(self, detector: FaceDetector, mesh: FaceMesh, *, fps: float, detect_every: int) -> None:
        """Start with no face known.

        Args:
            detector: finds faces.
            mesh: places landmarks.
            fps: frames a second of the video.
            detect_every: frames between two looks for new faces; a frame on which a face is lost, or none is known, is looked at anyway.
        """
        self._detector = detector
        self._mesh = mesh
        self._fps = fps
        self._detect_every = detect_every
        self._tracks: list[_Track] = []
        self._frame = 0

    def update(self, frame: BgrImage) -> list[Points]:
        """Take the next frame.

        Returns:
            The landmarks (478, 3) of every face that can be swapped; empty when there is none.
        """
        visible = self._follow(frame)
        if self._frame % self._detect_every == 0 or len(visible) < max(1, len(self._tracks)):
            visible += self._find_new(frame)
        self._frame += 1
        return [track.filter.smooth(track.landmarks) for track in visible]

    def _follow(self, frame: BgrImage) -> list[_Track]:
        """Look for the known faces where they were; return those that are seen."""
        faces = self._mesh.locate(frame, [roi_of_landmarks(track.landmarks) for track in self._tracks])
        seen: list[_Track] = []
        for track, face in zip(self._tracks, faces, strict=True):
            # Two tracks on one face: after an occlusion the crop of one may have slid onto the other's.
            if face.swappable and not _is_among(face.landmarks, seen):
                track.landmarks, track.misses = face.landmarks, 0
                seen.append(track)
            else:
                track.misses += 1
        self._tracks = [track for track in self._tracks if track.misses < MAX_MISSES]
        return seen

    def _find_new(self, frame: BgrImage) -> list[_Track]:
        """Start tracks for faces that no track covers."""
        known = [track for track in self._tracks if track.misses == 0]
        detections = [found for found in self._detector.detect(frame) if not _is_covered(found, known)]
        started: list[_Track] = []
        for face in locate_detections(self._mesh, frame, detections):
            if face.swappable and not _is_among(face.landmarks, known + started):
                started.append(_Track(face.landmarks, OneEuroFilter(self._fps)))
        # A face that comes back has a new track by now: the old one, unseen at the same place, must not be followed as well.
        self._tracks = [track for track in self._tracks if track.misses == 0 or not _is_among(track.landmarks, started)] + started
        return started


def locate_detections(mesh: FaceMesh, image: BgrImage, detections: list[Detection]) -> list[MeshFace]:
    """Place landmarks on detected faces, twice: the second crop, cut by the first landmarks, is the one the model was trained on."""
    first = mesh.locate(image, [roi_of_detection(detection) for detection in detections])
    return mesh.locate(image, [roi_of_landmarks(face.landmarks) for face in first])


def _is_covered(detection: Detection, tracks: list[_Track]) -> bool:
    return any(np.linalg.norm(_centre(track.landmarks) - detection.centre) < SAME_FACE * detection.side_px for track in tracks)


def _is_among(landmarks: Points, tracks: list[_Track]) -> bool:
    return any(_distance(track.landmarks, landmarks) < SAME_FACE * _width(landmarks) for track in tracks)


def _centre(landmarks: Points) -> npt.NDArray[np.floating]:
    return np.asarray(landmarks[:VERTICES, :2].mean(0))


def _distance(a: Points, b: Points) -> float:
    return float(np.linalg.norm(_centre(a) - _centre(b)))


def _width(landmarks: Points) -> float:
    return float(np.ptp(landmarks[:VERTICES, 0]))
