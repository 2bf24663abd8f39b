import cv2
import numpy as np
import pytest

from deployments.engines.face_swap.atlas import SIDE_PX, AtlasLayout, build_atlas
from deployments.engines.faces.geometry import BROWS, CHEEKS, EYE_CORNERS, FOREHEAD_TOP


@pytest.fixture(scope="module")
def layout(canonical):
    return AtlasLayout.of(canonical)


def texel(layout, vertex, image):
    x, y = layout.points[vertex].round().astype(int)
    return image[y, x]


def test_layout_fits_the_square(layout):
    assert layout.points.min() > 0
    assert layout.points.max() < SIDE_PX
    assert (layout.covering >= 0).mean() > 0.6


def test_build_atlas_puts_each_vertex_in_its_place(people, layout):
    person = people["synthetic_man_2.jpg"]
    atlas = build_atlas(person.image, person.landmarks, layout)
    smooth, blurred = cv2.GaussianBlur(atlas.levels[0], (0, 0), 4), cv2.GaussianBlur(person.image, (0, 0), 4)
    for vertex in (*CHEEKS[0][:3], *CHEEKS[1][:3], 1, 9):
        x, y = person.landmarks[vertex, :2].round().astype(int)
        assert np.abs(texel(layout, vertex, smooth).astype(int) - blurred[y, x]).max() < 20


def test_build_atlas_halves_the_levels(people, layout):
    person = people["astronaut.png"]
    atlas = build_atlas(person.image, person.landmarks, layout)
    assert [level.shape for level in atlas.levels] == [(side, side, 3) for side in (512, 256, 128, 64, 32)]


@pytest.mark.parametrize(("face_px", "side"), [(2000, 512), (480, 512), (230, 256), (60, 64), (1, 32)])
def test_level_for_fits_the_face(people, layout, face_px, side):
    person = people["astronaut.png"]
    level, scale = build_atlas(person.image, person.landmarks, layout).level_for(face_px)
    assert (level.shape[0], scale) == (side, side / 512)


def test_usable_leaves_a_fringe_out(people, layout):
    # Her fringe reaches down to one brow.
    person = people["astronaut.png"]
    usable = build_atlas(person.image, person.landmarks, layout).usable
    assert texel(layout, FOREHEAD_TOP, usable) == 0
    assert texel(layout, 299, usable) < 128  # forehead over the brow on the picture's right, under the fringe


def test_usable_keeps_a_bare_forehead_and_all_features(people, layout):
    person = people["synthetic_man_1.jpg"]
    usable = build_atlas(person.image, person.landmarks, layout).usable
    features = [*BROWS[2:-2], EYE_CORNERS[0][1], EYE_CORNERS[1][0], 1, 13, 50, 280, 205, 425, 151]  # 151: middle of the forehead
    assert min(int(texel(layout, vertex, usable)) for vertex in features) > 230


def test_build_atlas_takes_the_teeth_out_of_a_smile(people, layout):
    person = people["synthetic_man_1.jpg"]
    smile = build_atlas(person.image, person.landmarks, layout).levels[0]
    left, right = layout.points[[78, 308]].round().astype(int)
    line = smile[left[1] - 3 : left[1] + 4, left[0] : right[0]]
    assert line.max(axis=2).mean() < smile[200:300, 200:300].max(axis=2).mean()
