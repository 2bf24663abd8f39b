"""The typed inputs of a workflow: the JSON Schema that clients read, and the check of what they send."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from deployments.engines.comfyui.media_inputs import reference_of
from deployments.engines.comfyui.places import closest
from deployments.engines.comfyui.values import Accepted, Refusal, coerce, describe, shown
from deployments.engines.comfyui.workflow_file import FIRST_CHOICE, ParameterSpec, WorkflowMeta
from deployments.jobs.errors import NodeProblem, WorkflowInvalid
from deployments.jobs.model import JsonObject

MAX_INPUTS = 500
MAX_FILE_NAME = 255
MEDIA_WANTED = 'a URL, a file id, the name of an uploaded file, {"url"}, {"file_id"} or {"base64", "media_type"}'

_JSON_TYPES = {"integer": "integer", "number": "number", "boolean": "boolean", "seed": "integer"}
_REQUIRED_BESIDE = {"url": set[str](), "file_id": set[str](), "base64": {"media_type"}}


def parameter_schema(meta: WorkflowMeta) -> JsonObject:
    """Return the JSON Schema (2020-12) of the inputs of a workflow. ``x-type`` is the parameter's own type."""
    return {
        "type": "object",
        "properties": {name: _property(spec) for name, spec in meta.parameters.items()},
        "required": [name for name, spec in meta.parameters.items() if spec.required],
        "additionalProperties": False,
    }


def typed_inputs(meta: WorkflowMeta, inputs: Mapping[str, Any], *, strict: bool = False) -> JsonObject:
    """Check the inputs of a request and fill in defaults.

    A null counts as not given. A default of ``first_choice`` is not filled in: only the backend that runs the job knows it.

    Args:
        meta: of the workflow.
        inputs: as sent.
        strict: refuse names that the workflow does not declare; otherwise they are returned as they are.

    Returns:
        Values by parameter. Media are a reference object, or the plain name of a file.

    Raises:
        WorkflowInvalid: names every parameter that is missing, unknown or of the wrong kind.
    """
    if len(inputs) > MAX_INPUTS:
        raise WorkflowInvalid(f"{len(inputs)} inputs are given: at most {MAX_INPUTS} may be")
    problems: list[NodeProblem] = []
    found: JsonObject = {}
    given = {name: value for name, value in inputs.items() if value is not None}
    for name, value in given.items():
        match _checked(meta, name, value, strict=strict):
            case Accepted(value=accepted):
                found[name] = accepted
            case Refusal() as refusal:
                problems.append(_problem(name, refusal, value))
            case NodeProblem() as problem:
                problems.append(problem)
    for name, spec in meta.parameters.items():
        if name in given:
            continue
        if spec.required:
            problems.append(NodeProblem("", "", name, "required_input_missing", f"{name} is required", None, None))
        elif spec.default is not None and not is_first_choice(spec):
            found[name] = reference_of(spec.default) or spec.default if spec.is_media else spec.default
    raise_if_any(problems)
    return found


def is_first_choice(spec: ParameterSpec) -> bool:
    """Whether a parameter that is not given takes the first value that the backend offers."""
    return spec.type == "choice" and spec.choices is None and spec.default == FIRST_CHOICE


def raise_if_any(problems: list[NodeProblem]) -> None:
    """End a check.

    Raises:
        WorkflowInvalid: there are problems; the first is the sentence.
    """
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise WorkflowInvalid(problems[0].message + more, problems)


def _checked(meta: WorkflowMeta, name: str, value: object, *, strict: bool) -> Accepted | Refusal | NodeProblem:
    spec = meta.parameters.get(name)
    if spec is not None:
        return _reference(value) if spec.is_media else coerce(value, spec.wanted)
    if not strict:
        return Accepted(value)
    names = list(meta.parameters)
    message = f"the workflow has no parameter {describe(name)}"
    return NodeProblem("", "", str(shown(name)), "unknown_parameter", message, None, closest(name, names) or names)


def _reference(value: object) -> Accepted | Refusal:
    if isinstance(value, str):
        found = {"file_id": value} if _is_file_id(value) else reference_of(value)
        if found is not None or _is_file_name(value):
            return Accepted(found or value)
    reference = reference_of(value)
    if reference is None:
        return Refusal("invalid_input_type", f"is {describe(value)}, but has to be {MEDIA_WANTED}")
    kind = next(field for field in _REQUIRED_BESIDE if field in reference)
    beside = set(reference) - {kind}
    if not _REQUIRED_BESIDE[kind] <= beside or beside - {"media_type"} or not isinstance(reference.get("media_type", ""), str | None):
        return Refusal("invalid_input_type", f"is no media reference: it has to be {MEDIA_WANTED}")
    return Accepted(reference)


def _is_file_id(value: str) -> bool:
    try:
        return str(uuid.UUID(value)) == value
    except ValueError:
        return False


def _is_file_name(value: str) -> bool:
    return 0 < len(value) <= MAX_FILE_NAME and value.isprintable() and "://" not in value and ".." not in value.split("/")


def _problem(name: str, refusal: Refusal, value: object) -> NodeProblem:
    return NodeProblem("", "", name, refusal.kind, f"{name} {refusal.message}", shown(value), refusal.allowed)


def _property(spec: ParameterSpec) -> JsonObject:
    if spec.is_media:
        schema: JsonObject = _media_schema()
    else:
        schema = {"type": _JSON_TYPES.get(spec.type, "string")}
        if spec.choices is not None:
            schema = {"enum": list(spec.choices)}
    extras = {
        "minimum": spec.wanted.minimum,
        "maximum": spec.wanted.maximum,
        "default": None if is_first_choice(spec) else spec.default,
        "description": spec.description or ("-1 means random" if spec.type == "seed" else None),
        "x-type": spec.type,
        "x-step": spec.step,
        "x-multiline": spec.multiline or None,
    }
    return schema | {name: value for name, value in extras.items() if value is not None}


def _media_schema() -> JsonObject:
    media_type = {"type": "string", "examples": ["image/png"]}
    fields: dict[str, JsonObject] = {
        "url": {"type": "string", "format": "uri"},
        "file_id": {"type": "string", "format": "uuid"},
        "base64": {"type": "string", "contentEncoding": "base64"},
    }
    objects = [
        {
            "type": "object",
            "properties": {name: field, "media_type": media_type},
            "required": [name, *sorted(_REQUIRED_BESIDE[name])],
            "additionalProperties": False,
        }
        for name, field in fields.items()
    ]
    text = {"type": "string", "minLength": 1, "description": "a URL, a file id, or the name of an uploaded file"}
    return {"anyOf": [text, *objects]}
