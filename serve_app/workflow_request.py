"""How the command line names a workflow and its inputs: ``NAME_OR_FILE``, ``--input`` and ``--set``, made into what a request carries."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from serve_app.client import ApiError, Client, JsonObject, local_file
from serve_app.progress import JobProgress

GRAPH_FILES = frozenset({".json", ".png", ".webp"})  # ComfyUI writes its workflow into the pictures that it saves
MEDIA_TYPES = frozenset({"image", "mask", "audio", "video"})  # x-type of inputs that take media
PARSED_TYPES = frozenset({"integer", "number", "boolean"})


class WorkflowRequest:
    """Asks one server what a workflow takes, and brings the files that its inputs name there."""

    def __init__(self, client: Client, progress: JobProgress) -> None:
        """Take the server, and who shows the uploads."""
        self._client = client
        self._progress = progress

    def build(self, name: str, inputs: Mapping[str, str], overrides: Mapping[str, str]) -> JsonObject:
        """Return the part of ``POST /v1/jobs`` that says what is run.

        Args:
            name: of a workflow that the server knows, or of a file with one in it.
            inputs: words of the command line by the name of an input.
            overrides: words by ``<node id or title>.<input>``.

        Raises:
            ApiError: the server knows no such workflow, or a file that is to be uploaded is not there.
            InvalidInput: the file holds no workflow.
            OSError: the file cannot be read.
        """
        graph, schemas = self._find(name)
        return {
            "kind": "comfyui",
            "workflow": graph,
            "inputs": {key: self._to_input(text, schemas.get(key)) for key, text in inputs.items()},
            "overrides": {key: self._to_untyped(text) for key, text in overrides.items()},
        }

    def _find(self, name: str) -> tuple[str | JsonObject, JsonObject]:
        """Return a workflow as a request names it, and the schemas of its inputs, which a file has none of."""
        path = Path(name)
        if path.suffix.lower() not in GRAPH_FILES:
            return name, self._client.workflow(name)["inputs_schema"]["properties"]
        from deployments.engines.comfyui.graph import read_workflow

        return read_workflow(path.read_bytes()), {}

    def _to_input(self, text: str, schema: Mapping[str, Any] | None) -> Any:  # noqa: ANN401 -- a JSON value
        """Turn a word into what an input takes; what does not fit is sent as it is, and the server says why not."""
        if schema is None:
            return self._to_untyped(text)
        if schema.get("x-type") in MEDIA_TYPES:
            return self._to_media(text)
        if "enum" in schema:
            return next((choice for choice in schema["enum"] if text in {choice, json.dumps(choice)}), text)
        return _from_json(text, int, float) if schema.get("type") in PARSED_TYPES else text

    def _to_untyped(self, text: str) -> Any:  # noqa: ANN401 -- a JSON value
        """Turn a word into a value without a schema: text, from which the server makes a number where one is wanted.

        Only a JSON object or list, and a file behind an ``@``, become something else.
        """
        return self._upload(text[1:]) if text.startswith("@") else _from_json(text, dict, list)

    def _to_media(self, text: str) -> Any:  # noqa: ANN401 -- a JSON value
        """Turn a word into media: a file is uploaded, a reference stays as it is.

        Raises:
            ApiError: it is neither. The server would take it for the name of a file that the ComfyUI server has, and find a typing
                error only there.
        """
        if local_file(text):
            return self._upload(text)
        value = _from_json(text, dict, list)
        if value != text or text[:5].lower() == "data:":
            return value
        try:
            self._client.to_reference(text)
        except ApiError:
            reason = "there is no such file here, and it is no URL and no file id; a file that the ComfyUI server has is named by --set"
            raise ApiError(f"{text}: {reason}", "no_such_file") from None
        return text

    def _upload(self, media: str) -> JsonObject:
        reference = self._progress.upload(self._client, media)
        return {"url" if "://" in reference else "file_id": reference}


def to_pairs(texts: Sequence[str] | None, option: str) -> dict[str, str]:
    """Split words of the form ``name=value``.

    Args:
        texts: as given; None when there were none.
        option: under which, for messages.

    Raises:
        typer.BadParameter: one is not of that form, or a name comes twice.
    """
    pairs: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{text} is not of the form name=value", param_hint=option)
        if name in pairs:
            raise typer.BadParameter(f"{name} is given twice", param_hint=option)
        pairs[name] = value
    return pairs


def _from_json(text: str, *kinds: type) -> Any:  # noqa: ANN401 -- a JSON value
    """Read JSON of some kinds; anything else stays text."""
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, kinds) else text


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("JSON has no such number")
    return number
