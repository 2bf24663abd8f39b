import numpy as np
import pytest

from deployments.engines.faces.detector import Detection
from deployments.engines.faces.mesh import MeshFace
from deployments.engines.faces.tracking import MAX_MISSES, FaceTracker, OneEuroFilter

FRAME = np.zeros((4, 4, 3), np.uint8)
WIDTH = 100.0


def face_at(x, y=100.0):
    """478 points on a disc of WIDTH."""
    angle = np.linspace(0, 2 * np.pi, 478, endpoint=False)
    return np.stack([x + np.cos(angle) * WIDTH / 2, y + np.sin(angle) * WIDTH / 2, np.zeros(478)], axis=1).astype(np.float32)


class Stage:
    """Plays detector and mesh: faces stand where ``faces`` says."""

    def __init__(self, *faces):
        self.faces = list(faces)
        self.looks = 0

    def detect(self, _frame):
        self.looks += 1
        return [
            Detection(
                np.array([x - 50, 50, x + 50, 150], np.float32),
                np.array([[x - 20, 80], [x + 20, 80], [x, 100], [x - 15, 120], [x + 15, 120]], np.float32),
                0.9,
            )
            for x in self.faces
        ]

    def locate(self, _frame, rois):
        return [self._nearest(roi.centre[0]) for roi in rois]

    def _nearest(self, x):
        near = [face for face in self.faces if abs(face - x) < WIDTH]
        return MeshFace(face_at(min(near, key=lambda face: abs(face - x))), 1.0) if near else MeshFace(face_at(x), 0.0)


@pytest.fixture
def track():
    def start(stage, detect_every=15):
        return FaceTracker(stage, stage, fps=25, detect_every=detect_every)

    return start


def centres(faces):
    return sorted(round(float(face[:468, 0].mean()), -1) for face in faces)


def test_update_follows_without_looking_again(track):
    stage = Stage(100.0, 400.0)
    tracker = track(stage)
    for _ in range(15):
        assert centres(tracker.update(FRAME)) == [100, 400]
    assert stage.looks == 1
    tracker.update(FRAME)
    assert stage.looks == 2


def test_update_looks_at_every_frame_while_it_knows_nobody(track):
    stage = Stage()
    tracker = track(stage)
    assert [tracker.update(FRAME) for _ in range(3)] == [[], [], []]
    assert stage.looks == 3
    stage.faces = [200.0]
    assert centres(tracker.update(FRAME)) == [200]


def test_update_finds_a_new_face_at_the_next_look(track):
    stage = Stage(100.0)
    tracker = track(stage, detect_every=4)
    tracker.update(FRAME)
    stage.faces.append(400.0)
    assert [len(tracker.update(FRAME)) for _ in range(4)] == [1, 1, 1, 2]


def test_update_looks_at_once_when_a_face_is_lost(track):
    stage = Stage(100.0)
    tracker = track(stage)
    tracker.update(FRAME)
    stage.faces = [900.0]  # a cut
    assert centres(tracker.update(FRAME)) == [900]


def test_update_forgets_a_face_that_left(track):
    stage = Stage(100.0, 400.0)
    tracker = track(stage)
    tracker.update(FRAME)
    stage.faces = [100.0]
    assert [centres(tracker.update(FRAME)) for _ in range(MAX_MISSES)] == [[100]] * MAX_MISSES
    assert len(tracker._tracks) == 1


def test_update_swaps_a_face_once_when_two_tracks_slid_together(track):
    stage = Stage(100.0, 190.0)
    tracker = track(stage)
    assert centres(tracker.update(FRAME)) == [100, 190]
    stage.faces = [150.0]
    assert centres(tracker.update(FRAME)) == [150]


def test_one_euro_calms_still_points(noise):
    still = face_at(300)
    trembling = [still + noise.normal(0, 1, still.shape).astype(np.float32) for _ in range(60)]
    euro = OneEuroFilter(25)
    calm = [euro.smooth(points) for points in trembling]
    assert np.abs(np.diff(calm[10:], 2, axis=0)).mean() < 0.5 * np.abs(np.diff(trembling[10:], 2, axis=0)).mean()


def test_one_euro_follows_a_steady_movement():
    euro = OneEuroFilter(25)
    smooth = [euro.smooth(face_at(300 + 4 * step)) for step in range(40)]
    assert abs(smooth[-1][:, 0].mean() - (300 + 4 * 39)) < 0.1 * WIDTH


def test_one_euro_starts_anew_after_a_cut():
    euro = OneEuroFilter(25)
    euro.smooth(face_at(100))
    assert np.array_equal(euro.smooth(face_at(900)), face_at(900))


@pytest.mark.slow
def test_update_follows_the_sample_clip(analysis, media):
    import av

    tracker = analysis.track(24, detect_every=5)
    with av.open(media / "woman_face.mp4") as container:
        counts = [len(tracker.update(frame.to_ndarray(format="bgr24"))) for frame in container.decode(video=0)]
    assert counts == [1] * 50
