import hashlib

import pytest

from deployments.engines.models import find_model, load_manifest, verified_file
from deployments.jobs.errors import EngineFailed

ENTRY = """
models:
  - name: net
    file: weights/net.onnx
    sha256: '{sha256}'
    licence: MIT
    commercial_use: true
    source: here
    purpose: testing
"""


@pytest.fixture
def write_manifest(tmp_path):
    def write(text):
        path = tmp_path / "models.yaml"
        path.write_text(text)
        return path

    return write


def test_load_manifest_resolves_files_beside_itself(write_manifest, tmp_path):
    (model,) = load_manifest(write_manifest(ENTRY.format(sha256="0" * 64)))
    assert model.file == tmp_path / "weights" / "net.onnx"


@pytest.mark.parametrize("text", ["models: [{name: x}]", "model: []", "models: [", "- 1"])
def test_load_manifest_refuses_what_is_none(write_manifest, text):
    with pytest.raises(EngineFailed, match=r"cannot read the model manifest models\.yaml"):
        load_manifest(write_manifest(text))


def test_load_manifest_refuses_a_missing_file(tmp_path):
    with pytest.raises(EngineFailed, match="cannot read"):
        load_manifest(tmp_path / "none.yaml")


def test_find_model_names_what_there_is(models):
    with pytest.raises(EngineFailed, match="has no inswapper: it lists yunet"):
        find_model(models, "inswapper")


def test_verified_file_refuses_other_bytes(write_manifest, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "net.onnx").write_bytes(b"changed")
    with pytest.raises(EngineFailed, match="has sha256"):
        verified_file(load_manifest(write_manifest(ENTRY.format(sha256="0" * 64))), "net")


def test_verified_file_refuses_a_missing_file(write_manifest):
    with pytest.raises(EngineFailed, match="is missing"):
        verified_file(load_manifest(write_manifest(ENTRY.format(sha256="0" * 64))), "net")


def test_verified_file_returns_the_file(write_manifest, tmp_path):
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "net.onnx"
    path.write_bytes(b"net")
    manifest = write_manifest(ENTRY.format(sha256=hashlib.sha256(b"net").hexdigest()))
    assert verified_file(load_manifest(manifest), "net") == path


def test_shipped_models_are_verified_and_all_listed(models):
    files = {verified_file(models, model.name) for model in models}
    folder = models[0].file.parent
    assert files == {path for path in folder.iterdir() if path.suffix in {".onnx", ".binarypb"}}


def test_shipped_hashes_agree_with_the_manifest(models):
    lines = (models[0].file.parent / "SHA256SUMS").read_text().splitlines()
    assert {tuple(line.split()) for line in lines} == {(model.sha256, model.file.name) for model in models}


def test_shipped_models_have_a_notice(models):
    notice = (models[0].file.parent / "NOTICE").read_text()
    assert [model.file.name for model in models if model.file.name not in notice] == []
