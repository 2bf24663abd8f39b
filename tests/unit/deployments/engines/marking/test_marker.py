from types import SimpleNamespace

import pytest
from PIL import Image
from pydantic import ValidationError

from deployments.engines.marking.config import MarkingConfig
from deployments.engines.marking.marker import build_marker
from deployments.jobs.ports import OutputFile
from tests.unit.deployments.engines.marking.test_carriers import labels_of

JOB = SimpleNamespace(id="5d1c1f0e-58c2-4d0a-9f8b-0d8a7a4c9b11")


def test_a_result_says_who_made_it_and_in_which_job(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    marker = build_marker(MarkingConfig(producer="studio-7", propagator="studio-8"))
    assert marker.mark(JOB, OutputFile(path, "a.png", "image/png"), {}) == {"aigc": "PNG tEXt AIGC"}
    assert labels_of(path) == [
        {
            "Label": "1",
            "ContentProducer": "studio-7",
            "ProduceID": JOB.id,
            "ReservedCode1": "",
            "ContentPropagator": "studio-8",
            "PropagateID": JOB.id,
            "ReservedCode2": "",
        }
    ]


def test_a_result_of_a_format_without_carrier_is_named_as_such(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{}")
    assert build_marker(MarkingConfig()).mark(JOB, OutputFile(path, "a.json", "application/json"), {}) == {"aigc": None}


def test_profile_off_marks_nothing():
    assert build_marker(MarkingConfig(profile="off")) is None


@pytest.mark.parametrize("code", ["", "my studio", 'a"b', "\u540d"])
def test_a_code_that_the_label_cannot_hold_stops_the_start(code):
    with pytest.raises(ValidationError):
        MarkingConfig(producer=code)
