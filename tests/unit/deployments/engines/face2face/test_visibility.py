import cv2
import numpy as np

from deployments.engines.face2face.visibility import ALIKE, MouthSignature, free_frames, longest_run


def test_what_covers_a_mouth_is_no_part_of_the_largest_group():
    random = np.random.default_rng(0)
    mouth, signatures = random.normal(size=80), []
    for number in range(40):
        pattern = mouth + 0.1 * random.normal(size=80) if number < 18 else random.normal(size=80)
        pattern -= pattern.mean()
        signatures.append(pattern / np.linalg.norm(pattern))
    presences = np.ones(40, np.float32)
    presences[3] = 0.5
    free = free_frames(np.array(signatures, np.float32), presences, fps=10)  # a margin of one frame
    assert free.tolist() == [number < 17 and number != 3 for number in range(40)]
    assert longest_run(free) == (4, 17)


def test_nothing_free_is_no_run():
    assert longest_run(np.zeros(5, bool)) == (0, 0)
    assert not free_frames(np.zeros((3, 4), np.float32), np.zeros(3, np.float32), 25).any()


def test_a_patch_over_the_mouth_changes_the_signature_and_light_does_not(canonical, people):
    person, signature = people["synthetic_woman.jpg"], MouthSignature(canonical)
    free = signature.read(person.image, person.landmarks)
    darker = signature.read((person.image * 0.6).astype(np.uint8), person.landmarks)
    covered = person.image.copy()
    centre = person.landmarks[13, :2].astype(int)
    width = np.ptp(person.landmarks[:468, 0])
    cv2.circle(covered, tuple(int(part) for part in centre), int(width * 0.3), (140, 160, 200), cv2.FILLED)
    assert abs(free @ free - 1) < 1e-5
    assert free @ darker > 0.98
    assert free @ signature.read(covered, person.landmarks) < ALIKE
