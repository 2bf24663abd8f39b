"""What a client may ask for: the bodies of ``POST /v1/jobs``, one by kind, and of a workflow's own endpoint.

A body is a spec, which says what to compute, and the options of a job, which say how to run it.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from deployments.jobs.errors import InvalidInput
from deployments.jobs.model import JsonObject
from deployments.jobs.options import JobOptions
from deployments.jobs.spec import ComfyOptions, ComfySpec, Face2FaceSpec, FaceSwapSpec, ReferenceSpec
from serve_app.api.errors import UNKNOWN_KIND, pointer_to
from serve_app.api.schemas import FILE_ID_EXAMPLE

ERRORS_SAID = 3  # in the sentence of an error that has no list beside it

GRAPH_EXAMPLE: JsonObject = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "https://example.com/me.jpg"}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "inverted"}},
}


def _readable_by_all(value: Any) -> Any:  # noqa: ANN401 -- any JSON value
    # NaN and halves of surrogate pairs are what Python reads as JSON and neither a database nor another client does:
    # once stored, they would break every answer that shows the job.
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise PydanticCustomError("no_json", "this is no JSON: NaN, half of a surrogate pair, or nested too deeply") from None
    return value


JsonDocument = Annotated[dict[str, Any], AfterValidator(_readable_by_all)]
InputValues = Annotated[dict[Annotated[str, Field(max_length=200)], Any], Field(max_length=500), AfterValidator(_readable_by_all)]
OverrideValues = Annotated[dict[Annotated[str, Field(max_length=400)], Any], Field(max_length=500), AfterValidator(_readable_by_all)]


class _Request(JobOptions):
    """How to run what a request asks for."""

    def to_options(self) -> JobOptions:
        """Return the part that the job system reads."""
        return JobOptions.model_construct(**_fields_of(JobOptions, self))


class FaceSwapRequest(FaceSwapSpec, _Request):
    """A face swap: what to compute, and how to run it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"kind": "faceswap", "source": "https://example.com/me.jpg", "target": "https://example.com/film.mp4"},
                {
                    "kind": "faceswap",
                    "source": {"file_id": FILE_ID_EXAMPLE},
                    "target": {"url": "https://example.com/group.png", "media_type": "image/png"},
                    "output": {"resolution": "1280x720", "format": "jpeg"},
                    "priority": 5,
                    "labels": {"project": "spring"},
                },
            ]
        }
    )

    def to_spec(self) -> FaceSwapSpec:
        """Return the part that the engine reads."""
        return FaceSwapSpec.model_construct(**_fields_of(FaceSwapSpec, self))


class Face2FaceRequest(Face2FaceSpec, _Request):
    """A face that speaks: what to compute, and how to run it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"kind": "face2face", "audio": "https://example.com/speech.wav", "video": "https://example.com/me.mp4"},
                {
                    "kind": "face2face",
                    "audio": {"file_id": FILE_ID_EXAMPLE},
                    "video": {"url": "https://example.com/portrait.png", "media_type": "image/png"},
                    "options": {"fps": 30, "face": {"x": 0.3, "y": 0.4}},
                    "priority": 5,
                },
            ]
        }
    )

    def to_spec(self) -> Face2FaceSpec:
        """Return the part that the engine reads."""
        return Face2FaceSpec.model_construct(**_fields_of(Face2FaceSpec, self))


class ReferenceRequest(ReferenceSpec, _Request):
    """A clip or a picture to look at ahead, and how to run it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"kind": "reference", "video": "https://example.com/me.mp4"}]})

    def to_spec(self) -> ReferenceSpec:
        """Return the part that the engine reads."""
        return ReferenceSpec.model_construct(**_fields_of(ReferenceSpec, self))


class ComfyRequest(ComfySpec, _Request):
    """A ComfyUI workflow, named or brought along: what to compute, and how to run it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"kind": "comfyui", "workflow": "text-to-image", "inputs": {"prompt": "a lighthouse at dusk", "seed": -1}},
                {
                    "kind": "comfyui",
                    "workflow": GRAPH_EXAMPLE,
                    "overrides": {"3.filename_prefix": "negative"},
                    "options": {"previews": False},
                    "priority": 5,
                },
            ]
        }
    )

    _is_json = field_validator("workflow", "inputs", "overrides")(_readable_by_all)

    def to_spec(self) -> ComfySpec:
        """Return the part that the engine reads."""
        return ComfySpec.model_construct(**_fields_of(ComfySpec, self))


class WorkflowRun(_Request):
    """A run of the workflow that the address names."""

    inputs: InputValues = Field(default_factory=dict, description="values by parameter of the workflow; others are refused")
    overrides: OverrideValues = Field(
        default_factory=dict, description="values by `<node id or title>.<input>`, as GET …/parameters lists them", examples=[{}]
    )
    options: ComfyOptions = ComfyOptions()

    def to_spec(self, workflow: str) -> ComfySpec:
        """Return the part that the engine reads."""
        return ComfySpec(workflow=workflow, inputs=self.inputs, overrides=self.overrides, options=self.options)


def _kind_of(value: Any) -> str | None:  # noqa: ANN401 -- a discriminator sees whatever the client sent
    """Tell the member of the union; a request without a kind is a face swap, as it was when there was nothing else."""
    kind = value.get("kind", "faceswap") if isinstance(value, dict) else getattr(value, "kind", "faceswap")
    return f"{kind} job" if isinstance(kind, str) else None


AnyJobRequest = FaceSwapRequest | Face2FaceRequest | ReferenceRequest | ComfyRequest

JobRequest = Annotated[
    Annotated[FaceSwapRequest, Tag("faceswap job")]  # a tag is a part of an error's place and must not be taken for a field
    | Annotated[Face2FaceRequest, Tag("face2face job")]
    | Annotated[ReferenceRequest, Tag("reference job")]
    | Annotated[ComfyRequest, Tag("comfyui job")],
    Discriminator(
        _kind_of,
        custom_error_type=UNKNOWN_KIND,
        custom_error_message="there are jobs of kind faceswap, face2face, reference and comfyui, and no other",
    ),
]

_JOB_REQUEST: TypeAdapter[AnyJobRequest] = TypeAdapter(JobRequest)


def parse_job_request(raw: object) -> AnyJobRequest:
    """Read the body of ``POST /v1/jobs``.

    Raises:
        InvalidInput: says what is wrong, and where.
    """
    try:
        return _JOB_REQUEST.validate_python(raw)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        said = dict.fromkeys(f"{pointer_to(item, raw) or 'the request'}: {item['msg']}" for item in found[:ERRORS_SAID])
        raise InvalidInput("the request is not valid: " + "; ".join(said)) from None


def _fields_of(model: type[BaseModel], request: BaseModel) -> dict[str, Any]:
    return {name: getattr(request, name) for name in model.model_fields}
