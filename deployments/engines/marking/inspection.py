"""What marks a file carries, whoever put them there."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, BinaryIO

from deployments.engines.marking.carriers import find_labels, type_of
from deployments.engines.marking.manifest import read_manifest
from deployments.engines.marking.streams import Malformed
from deployments.jobs.errors import UnsupportedMedia
from deployments.jobs.verification import ManifestFound, MarksFound

MAX_SHOWN = 50  # of each list: a manifest may be made to have a million


def inspect(file: BinaryIO, anchors: str = "") -> MarksFound:
    """Read label and manifest of a file.

    Args:
        file: open for reading.
        anchors: PEM certificates by which signers are trusted.

    Raises:
        UnsupportedMedia: of no type that we know.
    """
    media_type = type_of(file)
    if not media_type:
        raise UnsupportedMedia("the content is of no format that we know: GET /v1/capabilities lists the formats")
    problem, labels = None, []
    try:
        labels = find_labels(file)[:MAX_SHOWN]
    except Malformed as error:
        problem = str(error)
    # What is not as its format says is not handed to the next reader, which takes minutes for some of it.
    can_read = problem is None and find_spec("c2pa") is not None
    said = read_manifest(file, anchors) if can_read else None
    return MarksFound(media_type, tuple(labels), _manifest(said) if said is not None else None, can_read, problem)


def _manifest(said: dict[str, Any]) -> ManifestFound:
    active = said.get("manifests", {}).get(said.get("active_manifest"), {})
    generators = active.get("claim_generator_info") or [{}]
    actions = [
        action
        for assertion in active.get("assertions", [])
        if str(assertion.get("label")).startswith("c2pa.actions")
        for action in assertion["data"].get("actions", [])
    ]
    sources = {str(action["digitalSourceType"]).rpartition("/")[2]: None for action in actions if "digitalSourceType" in action}
    return ManifestFound(
        state=str(said.get("validation_state", "Invalid")),
        generator=generators[0].get("name"),
        signer=active.get("signature_info", {}).get("common_name"),
        source_types=tuple(sources)[:MAX_SHOWN],
        ingredients=tuple(str(item.get("title")) for item in active.get("ingredients", [])[:MAX_SHOWN]),
        problems=tuple(str(item.get("code")) for item in said.get("validation_status", [])[:MAX_SHOWN]),
    )
