"""Marks the results of jobs as the settings and the request say: the label first, the signature last."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from deployments.engines.marking.carriers import put_label, type_of
from deployments.engines.marking.config import MarkingConfig
from deployments.engines.marking.label import AigcLabel
from deployments.engines.marking.manifest import Ingredient, ManifestSigner, has_manifest
from deployments.engines.marking.rhythm import FORMATS, label_sound
from deployments.engines.marking.visible import PICTURES, VIDEOS, label_picture, label_video
from deployments.jobs.errors import MarkingFailed
from deployments.jobs.model import Job, JsonObject
from deployments.jobs.ports import LocalMedia, Marker, OutputFile

CHANGED = frozenset({"target", "video"})  # roles of the input that a face job changes


class FileMarker:
    """Implements :class:`deployments.jobs.ports.Marker`."""

    def __init__(self, config: MarkingConfig) -> None:
        """Take the settings.

        Raises:
            OSError: the certificate cannot be read.
        """
        self._config = config
        self._signer = ManifestSigner(config) if config.can_sign else None

    def mark(self, job: Job, file: OutputFile, inputs: Mapping[str, LocalMedia]) -> JsonObject:
        """See the port."""
        config = self._config
        seen: JsonObject = {"shown": show_label(file.path, config.words)} if config.profile == "cn" else {}
        return seen | self._mark_unseen(job, file, inputs)

    def _mark_unseen(self, job: Job, file: OutputFile, inputs: Mapping[str, LocalMedia]) -> JsonObject:
        config = self._config
        label = AigcLabel(config.producer, job.id, propagator=config.propagator, propagate_id=job.id if config.propagator else "")
        if self._signer is None or not (config.profile == "eu" or job.spec.get("c2pa")):
            return {"aigc": put_label(file.path, label)}  # None: the format has no carrier, which the record says
        ingredients = list(_ingredients(file.path, inputs))
        try:
            marks: JsonObject = {"aigc": put_label(file.path, label)}
            marks["c2pa"] = self._signer.sign(file.path, ingredients, created=job.kind == "comfyui" and not inputs)
        finally:
            _before(file.path).unlink(missing_ok=True)
        return marks | {"ingredients": [ingredient.title for ingredient in ingredients]}


def show_label(path: Path, words: str) -> str | None:
    """Put the label into a file that people see or hear; returns how, None where its kind has no such rule.

    Raises:
        MarkingFailed: it should have one and cannot: it must not be published without.
    """
    with path.open("rb") as file:
        media_type = type_of(file)
    if media_type in PICTURES:
        label_picture(path, media_type, words)
        return words
    if media_type in VIDEOS:
        label_video(path, words)
        return words
    if media_type in FORMATS:
        label_sound(path, media_type)
        return "rhythm"
    if media_type.startswith(("image/", "video/", "audio/")):
        raise MarkingFailed(path.name, f"{media_type} cannot be given a label that people notice: have the workflow save PNG, MP4 or WAV")
    return None


def build_marker(config: MarkingConfig) -> Marker | None:
    """Return what marks results; None when they are stored as they were made."""
    return None if config.profile == "off" else FileMarker(config)


def _ingredients(path: Path, inputs: Mapping[str, LocalMedia]) -> Iterator[Ingredient]:
    """Yield what has a manifest: the file as the engine made it, or else the input that was changed, is the parent."""
    own = has_manifest(path)
    if own:
        shutil.copyfile(path, _before(path))  # the label changes the file, and its manifest would no longer fit
        yield Ingredient(_before(path), path.name, parent=True)
    parent = own
    for role, media in inputs.items():
        if has_manifest(media.path):
            yield Ingredient(media.path, role, parent=role in CHANGED and not parent)
            parent = parent or role in CHANGED


def _before(path: Path) -> Path:
    return path.with_name(f".before-{path.name}")
