import itertools

import cv2
import numpy as np
import pytest

from deployments.engines.face_swap.render import SHAPE_PAD, MeshSwapper, region_of
from deployments.engines.faces.align import landmarks_5_of_mesh
from deployments.engines.faces.embedding import cosine


@pytest.fixture(scope="module")
def swapper(canonical):
    return MeshSwapper(canonical, shape=0.7)


@pytest.fixture(scope="module")
def source(swapper, people):
    return swapper.prepare(people["astronaut.png"].image, people["astronaut.png"].landmarks)


@pytest.fixture
def swap(swapper, source):
    def run(person, scale=1.0):
        image = np.asarray(cv2.resize(person.image, None, fx=scale, fy=scale), np.uint8) if scale != 1 else person.image.copy()
        swapper.swap(image, person.landmarks * np.float32(scale), source)
        return image

    return run


@pytest.mark.slow
def test_swap_gives_the_sources_identity_on_all_pairs(swapper, people, analysis, embedder):
    handles = {name: swapper.prepare(person.image, person.landmarks) for name, person in people.items()}
    to_source, to_target = [], []
    for source_name, target_name in itertools.permutations(people, 2):
        target, image = people[target_name], people[target_name].image.copy()
        swapper.swap(image, target.landmarks, handles[source_name])
        embedding = embedder.embed(image, landmarks_5_of_mesh(analysis.faces(image)[0]))
        to_source.append(cosine(embedding, people[source_name].embedding))
        to_target.append(cosine(embedding, target.embedding))
    assert sum(a > b for a, b in zip(to_source, to_target, strict=True)) >= 17
    assert np.mean(to_source) >= 0.55


def test_swap_writes_only_around_the_face(people, swap):
    person = people["grace_hopper.jpg"]
    image = swap(person)
    rect = region_of(person.landmarks[:468], image.shape, SHAPE_PAD)
    inside = np.zeros(image.shape[:2], bool)
    inside[rect] = True
    assert np.array_equal(image[~inside], person.image[~inside])
    assert (image[inside] != person.image[inside]).any(axis=1).mean() > 0.3


def test_swap_is_deterministic(people, swap):
    assert np.array_equal(swap(people["synthetic_woman.jpg"]), swap(people["synthetic_woman.jpg"]))


def test_swap_of_an_enlarged_face_looks_like_the_small_one(people, swap):
    person = people["grace_hopper.jpg"]
    large = swap(person, 4.0)
    small = cv2.resize(large, person.image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - swap(person)).mean() < 3


def test_swap_without_shape_keeps_the_outline(canonical, people):
    person = people["grace_hopper.jpg"]
    flat = MeshSwapper(canonical, shape=0.0)
    image = person.image.copy()
    flat.swap(image, person.landmarks, flat.prepare(people["astronaut.png"].image, people["astronaut.png"].landmarks))
    rect = region_of(person.landmarks[:468], image.shape, 0.03)
    outside = np.ones(image.shape[:2], bool)
    outside[rect] = False
    assert np.array_equal(image[outside], person.image[outside])
    assert not np.array_equal(image, person.image)


@pytest.mark.parametrize("shift", [(-330, 0), (0, -400), (900, 900), (-2000, 0)])
def test_swap_takes_faces_that_hang_over_the_edge(people, swapper, source, shift):
    person = people["synthetic_man_2.jpg"]
    image = person.image.copy()
    swapper.swap(image, person.landmarks + np.array([*shift, 0], np.float32), source)
    assert image.shape == person.image.shape


def test_swap_takes_a_tiny_face(people, swap):
    person = people["astronaut.png"]
    assert swap(person, 0.05).shape == (26, 26, 3)


def test_region_of_is_cut_at_the_edge(people):
    points = people["astronaut.png"].landmarks[:468]
    assert region_of(points - [2000, 0, 0], (512, 512), 0.3)[1] == slice(0, 0)
    assert region_of(points - [-2000, 0, 0], (512, 512), 0.3)[1] == slice(512, 512)
    assert region_of((points - [223, 122, 0]) * 10, (300, 200), 0.3) == (slice(0, 300), slice(0, 200))
