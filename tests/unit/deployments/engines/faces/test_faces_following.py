import numpy as np
import pytest

from deployments.engines.faces.detector import Detection
from deployments.engines.faces.following import FaceFollower
from deployments.engines.faces.mesh import MeshFace

FRAME = np.zeros((400, 1000, 3), np.uint8)


def face_at(x, width):
    angle = np.linspace(0, 2 * np.pi, 478, endpoint=False)
    return np.stack([x + np.cos(angle) * width / 2, 200 + np.sin(angle) * width / 2, np.zeros(478)], axis=1).astype(np.float32)


class Stage:
    """Plays detector and mesh: faces stand where ``faces`` says, (x, width) each, largest first."""

    def __init__(self, *faces):
        self.faces = list(faces)
        self.looks = 0

    def detect(self, _frame):
        self.looks += 1
        ordered = sorted(self.faces, key=lambda face: -face[1])
        return [
            Detection(
                np.array([x - w / 2, 200 - w / 2, x + w / 2, 200 + w / 2], np.float32),
                np.array([[x - w / 5, 180], [x + w / 5, 180], [x, 200], [x - w / 6, 220], [x + w / 6, 220]], np.float32),
                0.9,
            )
            for x, w in ordered
        ]

    def locate(self, _frame, rois):
        return [self._nearest(float(roi.centre[0])) for roi in rois]

    def _nearest(self, x):
        near = [face for face in self.faces if abs(face[0] - x) < face[1]]
        return MeshFace(face_at(*min(near, key=lambda face: abs(face[0] - x))), 1.0) if near else MeshFace(face_at(x, 100), 0.0)


def seen_at(follower):
    sighting = follower.update(FRAME)
    return None if sighting is None else pytest.approx(float(sighting.landmarks[:, 0].mean()), abs=2)


@pytest.mark.parametrize(("place", "x"), [(None, 700), ((0.1, 0.5), 200), ((0.95, 0.5), 700)])
def test_the_largest_face_is_followed_or_the_one_pointed_at(place, x):
    stage = Stage((200, 100), (700, 140))
    assert seen_at(FaceFollower(stage, stage, place)) == x


def test_it_is_followed_without_looking_again_though_another_grows():
    stage = Stage((200, 100), (700, 140))
    follower = FaceFollower(stage, stage)
    assert seen_at(follower) == 700
    stage.faces = [(200, 300), (720, 140)]
    assert seen_at(follower) == 720
    assert stage.looks == 1


def test_it_is_found_again_where_it_was_and_no_other_is_taken_for_it():
    stage = Stage((200, 100), (700, 140))
    follower = FaceFollower(stage, stage)
    seen_at(follower)
    stage.faces = [(200, 100)]
    assert seen_at(follower) is None
    stage.faces = [(200, 100), (760, 140)]
    assert seen_at(follower) == 760


def test_no_face_is_none():
    stage = Stage()
    assert FaceFollower(stage, stage).update(FRAME) is None
