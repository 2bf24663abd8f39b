import itertools

import cv2
import numpy as np

from deployments.engines.faces.align import landmarks_5_of_mesh
from deployments.engines.faces.embedding import cosine


def test_embed_is_normalised(people):
    embedding = people["astronaut.png"].embedding
    assert (embedding.shape, embedding.dtype) == ((128,), np.float32)
    assert np.linalg.norm(embedding).round(5) == 1


def test_embed_keeps_strangers_apart(people):
    pairs = itertools.combinations((person.embedding for person in people.values()), 2)
    cosines = [cosine(a, b) for a, b in pairs]
    # Drawn by one generator, two of the synthetic people are a little alike; pictures of one person reach 0.6 and more.
    assert np.mean(cosines) < 0.25
    assert max(cosines) < 0.45


def test_embed_knows_a_person_again_in_another_light_and_size(people, embedder):
    person = people["astronaut.png"]
    darker = np.asarray(cv2.resize(cv2.convertScaleAbs(person.image, alpha=0.6), None, fx=0.7, fy=0.7), np.uint8)
    assert cosine(embedder.embed(darker, landmarks_5_of_mesh(person.landmarks) * np.float32(0.7)), person.embedding) > 0.9
