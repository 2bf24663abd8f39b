"""The manifest of model files: what ships or may be used, under which licence, and with which hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.jobs.errors import EngineFailed


class ModelInfo(BaseModel):
    """One model file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="how engines ask for it")
    file: Path = Field(description="absolute, or relative to the manifest's folder")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    licence: str = Field(description="SPDX expression of the weights, not of the package they came in")
    commercial_use: bool = Field(description="whether the licence allows it")
    source: str = Field(description="where the file comes from and how it was made")
    purpose: str = Field(description="what it does, for people")


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[ModelInfo, ...]


def load_manifest(path: Path) -> tuple[ModelInfo, ...]:
    """Read the manifest; the files themselves are not touched.

    Args:
        path: the YAML file, ``configs/models.yaml`` of the project.

    Returns:
        The models in the file's order, ``file`` made absolute.

    Raises:
        EngineFailed: unreadable, or not of the expected form.
    """
    try:
        manifest = _Manifest.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise EngineFailed(f"cannot read the model manifest {path.name}: {error}") from error
    folder = path.resolve().parent
    return tuple(model.model_copy(update={"file": (folder / model.file).resolve()}) for model in manifest.models)


def find_model(models: Sequence[ModelInfo], name: str) -> ModelInfo:
    """Return the model of that name.

    Raises:
        EngineFailed: the manifest has none.
    """
    for model in models:
        if model.name == name:
            return model
    raise EngineFailed(f"the model manifest has no {name}: it lists {', '.join(model.name for model in models) or 'nothing'}")


def verified_file(models: Sequence[ModelInfo], name: str) -> Path:
    """Return a model's file after comparing its SHA-256 with the manifest.

    Raises:
        EngineFailed: not in the manifest, missing on disk, or other bytes than the manifest promises.
    """
    model = find_model(models, name)
    try:
        with model.file.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EngineFailed(f"the model file {model.file.name} is missing: restore it, or rebuild the weights") from error
    if found != model.sha256:
        raise EngineFailed(f"the model file {model.file.name} has sha256 {found[:12]}…, not {model.sha256[:12]}… as the manifest says")
    return model.file
