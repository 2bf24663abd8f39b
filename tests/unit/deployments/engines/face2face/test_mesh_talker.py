import numpy as np
import pytest

from deployments.engines.face2face.mesh_talker import MeshTalker
from deployments.engines.face2face.mouth_interior import DONORS, PATCH_SIZE, Donor, keep_donors, skin_light, take_donor
from deployments.engines.faces.expression import mouth_openness
from deployments.engines.faces.geometry import LIPS_INNER


@pytest.fixture
def talker(canonical):
    return MeshTalker(canonical)


def spoken(talker, person, opening, donors=()):
    frame = person.image.copy()
    talker.speak(frame, person.landmarks, talker.rig.mouth_at_rest(person.landmarks[None]), donors, opening, 0.0)
    return frame


@pytest.mark.parametrize("name", ["synthetic_woman.jpg", "grace_hopper.jpg", "synthetic_man_2.jpg"])
def test_the_mouth_is_as_open_as_asked_and_nothing_else_is_touched(talker, people, analysis, name):
    person = people[name]
    shut, wide = (spoken(talker, person, opening) for opening in (0.0, 0.8))
    before, after = (mouth_openness(analysis.faces(frame)[0]) for frame in (shut, wide))
    assert before < 0.06
    assert after > before + 0.2
    width, (x, y) = np.ptp(person.landmarks[:468, 0]), person.landmarks[1, :2]
    outside = np.ones(shut.shape[:2], bool)
    outside[int(y - 0.15 * width) : int(y + 1.3 * width), max(0, int(x - 0.9 * width)) : int(x + 0.9 * width)] = False
    np.testing.assert_array_equal(wide[outside], person.image[outside])


def test_a_face_at_the_edge_of_the_picture_is_no_reason_to_fail(talker, people):
    person = people["astronaut.png"]
    x, y = person.landmarks[13, :2].astype(int)
    cut = np.ascontiguousarray(person.image[: y + 5, :x])
    talker.speak(cut, person.landmarks, talker.rig.mouth_at_rest(person.landmarks[None]), (), 0.7, 0.3)


def test_own_teeth_are_shown_in_place_of_drawn_ones(talker, people):
    person = people["astronaut.png"]
    donor = take_donor(person.image, person.landmarks)
    assert donor is not None
    assert donor.patch.shape == (PATCH_SIZE[1], PATCH_SIZE[0], 3)
    marked = Donor(np.full_like(donor.patch, (0, 255, 0)), donor.openness, donor.light)
    frame = spoken(talker, person, 0.6, (marked,))
    green = (frame.astype(int) - person.image)[..., 1] > 60
    assert green.sum() > 100
    lips = person.landmarks[list(LIPS_INNER), :2]
    rows, columns = np.nonzero(green)
    assert abs(columns.mean() - lips[:, 0].mean()) < 0.15 * np.ptp(person.landmarks[:468, 0])
    assert rows.min() > lips[:, 1].min() - 10


def test_a_shut_mouth_lends_nothing(people):
    assert take_donor(people["synthetic_woman.jpg"].image * 0, people["grace_hopper.jpg"].landmarks) is None


def test_donors_that_are_kept_differ_most():
    donors = [Donor(np.zeros((1, 1, 3), np.uint8), openness / 100, 1.0) for openness in range(12, 72)]
    kept = keep_donors(donors)
    assert (len(kept), kept[0].openness, kept[-1].openness) == (DONORS, 0.12, 0.71)
    assert keep_donors(donors[:2]) == tuple(donors[:2])


def test_light_is_that_of_the_cheeks(people):
    person = people["astronaut.png"]
    assert skin_light(person.image // 2, person.landmarks) == pytest.approx(skin_light(person.image, person.landmarks) / 2, rel=0.05)
    assert skin_light(np.full_like(person.image, 255), person.landmarks) == 1.2
