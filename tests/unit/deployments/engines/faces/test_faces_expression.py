import pytest

from deployments.engines.faces.expression import eye_openness, mouth_openness


@pytest.mark.parametrize(("name", "smiles"), [("astronaut.png", True), ("grace_hopper.jpg", False), ("synthetic_man_2.jpg", False)])
def test_mouth_openness_tells_a_smile_with_teeth(people, name, smiles):
    assert (mouth_openness(people[name].landmarks) > 0.1) == smiles


def test_eye_openness_of_open_eyes(people):
    assert all(0.2 < share < 0.4 for person in people.values() for share in eye_openness(person.landmarks))
