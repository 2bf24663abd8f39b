"""What the doctor says of Duix services and of a Wav2Lip network."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.duix_bridge.config import DuixConfig
from deployments.engines.face2face.config import Face2FaceConfig
from serve_app import doctor
from tests.fake_duix import FakeDuix


@pytest.fixture
def service(tmp_path):
    with FakeDuix(tmp_path / "data") as running:
        yield running


def test_without_a_service_nothing_is_said():
    assert doctor.check_duix(DuixConfig()) == []


def test_a_service_that_answers_is_named_with_the_way_of_its_files(service):
    (finding,) = doctor.check_duix(DuixConfig(upstreams=(f"{service.url}#name=gpu1",), data_dir=service.data_dir))
    assert (finding.ok, finding.text) == (True, f"gpu1 ({service.url}) answers; files go by {service.data_dir}")


@pytest.mark.parametrize("foreign", [True, False])
def test_one_that_does_not_is_named_with_what_to_do(service, foreign):
    if foreign:
        service.habits.foreign = True
    else:
        service.kill()
    (finding,) = doctor.check_duix(DuixConfig(upstreams=(f"{service.url}#name=gpu1",), data_dir=service.data_dir))
    assert not finding.ok
    assert "gpu1 does not answer" in finding.text
    assert "DUIX_INTERNAL_URL" in finding.text


def test_a_folder_that_is_not_mounted_is_named(service, tmp_path):
    (finding,) = doctor.check_duix(DuixConfig(upstreams=(service.url,), data_dir=tmp_path / "nowhere"))
    assert (finding.ok, "DUIX_DATA_DIR" in finding.text) == (False, True)


def test_a_wav2lip_network_is_opened(tmp_path):
    path = tmp_path / "lips.onnx"
    finding = doctor.check_wav2lip(Face2FaceConfig(wav2lip=path))
    assert (finding.ok, "is not there" in finding.text) == (False, True)
    path.write_bytes(Path(__file__).read_bytes())
    finding = doctor.check_wav2lip(Face2FaceConfig(wav2lip=path))
    assert (finding.ok, "ONNX Runtime cannot open lips.onnx" in finding.text) == (False, True)
