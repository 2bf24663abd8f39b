import cv2
import numpy as np
import pytest

from deployments.engines.faces.detector import FaceDetector
from deployments.engines.models import find_model


def reference(path, image):
    """OpenCV's own decoding of the same model, largest first: rows of x, y, width, height, ten coordinates of points, score."""
    scale = 640 / max(image.shape[:2])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    square = np.zeros((640, 640, 3), np.uint8)
    square[: small.shape[0], : small.shape[1]] = small
    _, rows = cv2.FaceDetectorYN.create(str(path), "", (640, 640), 0.6, 0.3).detect(square)
    rows[:, :14] /= scale
    return rows[np.argsort(-rows[:, 2] * rows[:, 3])]


@pytest.mark.parametrize("name", ["astronaut.png", "grace_hopper.jpg", "synthetic_man_1.jpg", "solvay_1927.jpg"])
def test_detect_agrees_with_opencv(detector, models, load, name):
    image = load(name)
    rows = reference(find_model(models, "yunet").file, image)
    found = detector.detect(image)
    assert len(found) == len(rows)
    assert np.abs(found[0].box - [*rows[0, :2], *(rows[0, :2] + rows[0, 2:4])]).max() < 1
    assert np.abs(found[0].landmarks_5 - rows[0, 4:14].reshape(5, 2)).max() < 1
    assert found[0].score == pytest.approx(rows[0, 14], abs=0.01)


def test_detect_orders_the_five_points(detector, load):
    left_eye, right_eye, nose, left_mouth, right_mouth = detector.detect(load("astronaut.png"))[0].landmarks_5
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]


def test_detect_finds_a_crowd_largest_first(detector, load):
    found = detector.detect(load("solvay_1927.jpg"))
    areas = [face.area_px for face in found]
    assert 28 <= len(found) <= 32
    assert areas == sorted(areas, reverse=True)


@pytest.mark.parametrize("name", ["coffee_no_face.png", "rocket_no_face.jpg"])
def test_detect_finds_nothing_where_nobody_is(detector, load, name):
    assert detector.detect(load(name)) == []


def test_detect_keeps_the_largest(detector, load):
    few = FaceDetector(detector._session, threshold=0.6, overlap=0.3, max_faces=3)
    image = load("solvay_1927.jpg")
    assert [face.score for face in few.detect(image)] == [face.score for face in detector.detect(image)[:3]]


def test_detect_finds_a_face_that_overfills_the_picture(detector, load):
    image = load("grace_hopper.jpg")
    face = detector.detect(image)[0]
    half = face.side_px * 0.35
    low, high = (face.centre - half).astype(int), (face.centre + half).astype(int)
    (found,) = detector.detect(np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]]))
    assert found.side_px > half * 1.5


def test_detect_gives_pixels_of_the_picture_at_any_size(detector, load):
    image = load("astronaut.png")
    small, large = (detector.detect(np.asarray(cv2.resize(image, None, fx=scale, fy=scale), np.uint8))[0] for scale in (0.5, 3))
    assert np.abs(large.box / 3 - small.box / 0.5).max() < 6


def test_detect_takes_a_strip(detector):
    assert detector.detect(np.full((1, 3000, 3), 128, np.uint8)) == []
