import numpy as np
import pytest

from deployments.engines.faces.align import landmarks_5_of_mesh
from deployments.engines.faces.mesh import Roi, roi_of_detection, roi_of_landmarks
from deployments.engines.faces.tracking import locate_detections


@pytest.mark.parametrize("name", ["astronaut.png", "grace_hopper.jpg", "synthetic_woman.jpg", "synthetic_man_1.jpg", "synthetic_man_2.jpg"])
def test_locate_agrees_with_the_detector(detector, face_mesh, load, name):
    image = load(name)
    detection = detector.detect(image)[0]
    (face,) = locate_detections(face_mesh, image, [detection])
    assert face.swappable
    assert face.landmarks.shape == (478, 3)
    assert face.landmarks.dtype == np.float32
    # Two independent models on the same five points.
    assert np.linalg.norm(landmarks_5_of_mesh(face.landmarks) - detection.landmarks_5, axis=1).max() < 0.12 * detection.side_px


def test_locate_takes_no_faces(face_mesh, load):
    assert face_mesh.locate(load("astronaut.png"), []) == []


def test_locate_gives_a_batch_what_it_gives_one_by_one(detector, face_mesh, load):
    image = load("solvay_1927.jpg")
    rois = [roi_of_detection(detection) for detection in detector.detect(image)[:4]]
    together = face_mesh.locate(image, rois)
    alone = [face_mesh.locate(image, [roi])[0] for roi in rois]
    assert np.allclose([face.landmarks for face in together], [face.landmarks for face in alone], atol=0.05)


def test_locate_doubts_where_no_face_is(face_mesh, load):
    image = load("coffee_no_face.png")
    (face,) = face_mesh.locate(image, [Roi(np.array([300, 200], np.float32), 200.0, 0.0)])
    assert not face.swappable


def test_roi_of_landmarks_turns_with_the_head(people):
    landmarks = people["astronaut.png"].landmarks
    turn = np.deg2rad(30)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]], np.float32)
    upright, turned = roi_of_landmarks(landmarks), roi_of_landmarks(landmarks @ rotation.T)
    assert turned.angle - upright.angle == pytest.approx(turn, abs=1e-3)
    assert turned.side_px == pytest.approx(upright.side_px, rel=1e-3)


def test_roi_affine_puts_its_centre_in_the_middle():
    roi = Roi(np.array([40, 60], np.float32), 100.0, 0.7)
    assert np.allclose(roi.affine @ [40, 60, 1], [128, 128])
