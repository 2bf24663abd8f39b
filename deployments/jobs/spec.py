"""What a client may ask for: one pydantic model per kind of job, strict about unknown fields.

A spec is the part of a job that the engines read. It is stored as JSON, so a model here may only grow optional fields:
jobs accepted by an older release must still load.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from deployments.jobs.errors import InvalidInput
from deployments.jobs.media_url import is_data_url, to_reference

MAX_SIDE_PX = 4096  # H.264 level 5.2 ends at 4096 x 2304; pictures of more are refused before decoding

UNKNOWN_SHOWN = 3  # keys named by an error about too many of them
KEY_SHOWN = 40  # characters of each

RESOLUTION = re.compile(r"(\d{2,4})x(\d{2,4})")


class StrictModel(BaseModel):
    """A typo in a field's name is an error, not a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _no_more_keys_than_fields(cls, value: Any) -> Any:  # noqa: ANN401 -- a before-validator sees whatever the client sent
        # pydantic makes an error of every unknown key: a body of nothing else would cost a thousand times its size.
        if isinstance(value, dict) and len(value) > len(cls.model_fields):
            unknown = (str(key)[:KEY_SHOWN] for key in value if key not in cls.model_fields)
            shown = ", ".join(islice(unknown, UNKNOWN_SHOWN))
            raise PydanticCustomError("unknown_fields", "there are unknown fields, such as {shown}: leave them out", {"shown": shown})
        return value


MediaType = Annotated[
    str, Field(pattern=r"^[a-z]+/([a-zA-Z0-9.+-]+|\*)$", max_length=100, description="or a range such as video/*", examples=["image/png"])
]


class UrlRef(StrictModel):
    """Media behind a URL, downloaded by the guarded fetcher when the job runs; or in a bucket that the operator has opened."""

    url: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^(https?|s3|gs)://", examples=["https://example.com/portrait.jpg"])]
    media_type: MediaType | None = None


class FileRef(StrictModel):
    """Media uploaded before by ``POST /v1/files``, or an output of another job."""

    file_id: Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$", examples=["0b0f7a35-7c3e-4c67-8f0f-6a3b0f9f1c11"])]
    media_type: MediaType | None = None


class InlineRef(StrictModel):
    """Small media inside the request; stored as a file before the job is accepted."""

    base64: Annotated[str, Field(min_length=4, description="standard base64, without a data: prefix")]
    media_type: MediaType


def _from_string(value: Any) -> Any:  # noqa: ANN401 -- a before-validator sees whatever the client sent
    url = value.get("url") if isinstance(value, dict) else value
    if isinstance(url, str) and is_data_url(url):
        return _from_data_url(url, value.get("media_type") if isinstance(value, dict) else None)
    if not isinstance(value, str):
        return value
    return {"url": value} if "://" in value else {"file_id": value}


def _from_data_url(url: str, media_type: Any) -> Any:  # noqa: ANN401 -- same
    try:
        return to_reference(url, media_type if isinstance(media_type, str) else None)
    except InvalidInput as error:
        raise PydanticCustomError("data_url", "{reason}", {"reason": str(error)}) from None


def _reference_kind(value: Any) -> str | None:  # noqa: ANN401 -- see above
    """Tell the member of the union by its field, so that an error is about that member and not about all three."""
    present = value if isinstance(value, dict) else vars(value) if isinstance(value, BaseModel) else {}
    return next((f"{name} reference" for name in ("url", "file_id", "base64") if name in present), None)


# A bare string is a URL or a file id. What the store keeps never holds base64: the ingress swaps it for a file id.
MediaRef = Annotated[
    Annotated[UrlRef, Tag("url reference")]  # a tag is a part of an error's place and must not be taken for a field
    | Annotated[FileRef, Tag("file_id reference")]
    | Annotated[InlineRef, Tag("base64 reference")],
    Discriminator(
        _reference_kind, custom_error_type="media_reference", custom_error_message='a media reference is {"url"}, {"file_id"} or {"base64"}'
    ),
    BeforeValidator(_from_string, json_schema_input_type=UrlRef | FileRef | InlineRef | str),
]


def _check_resolution(value: str) -> str:
    width, height = parse_resolution(value)
    if not (16 <= width <= MAX_SIDE_PX and 16 <= height <= MAX_SIDE_PX):
        raise ValueError(f"each side of a resolution lies between 16 and {MAX_SIDE_PX} pixels")
    return value


def parse_resolution(value: str) -> tuple[int, int]:
    """Read ``"1280x720"`` as (width, height) in pixels.

    Raises:
        ValueError: not of that form.
    """
    found = RESOLUTION.fullmatch(value)
    if found is None:
        raise ValueError("a resolution is WIDTHxHEIGHT in pixels, such as 1280x720")
    return int(found[1]), int(found[2])


Resolution = Annotated[
    str,
    AfterValidator(_check_resolution),
    Field(description="box in pixels that the result is scaled to fit, up or down, aspect kept", examples=["1280x720"]),
]


@dataclass(frozen=True, slots=True)
class Taken:
    """What one role of a job may be."""

    role: str
    types: frozenset[str]
    ranges: tuple[str, ...]
    words: str


_PICTURES = frozenset({"image/png", "image/jpeg", "image/webp"})
TAKEN: Mapping[str, Taken] = {  # by the field's name, in every kind that has it
    "source": Taken("source", _PICTURES, (), "a PNG, JPEG or WebP picture"),
    "target": Taken("target", _PICTURES, ("video/",), "a PNG, JPEG or WebP picture, or a video"),
    "video": Taken("video", _PICTURES, ("video/",), "a video, or a PNG, JPEG or WebP picture"),
    "audio": Taken("audio", frozenset(), ("audio/", "video/"), "sound, or a video with sound"),
}


class OutputOptions(StrictModel):
    """How the result is written."""

    resolution: Resolution | None = None  # None: the target's size
    format: Literal["png", "jpeg", "webp", "mp4"] | None = None  # None: the target's own for pictures, mp4 for videos


class FaceSwapSpec(StrictModel):
    """Give the faces of a picture or video the identity of the source's largest face."""

    kind: Literal["faceswap"] = "faceswap"
    source: MediaRef
    target: MediaRef
    output: OutputOptions = OutputOptions()


class FacePlace(StrictModel):
    """Where a face is, in shares of the picture."""

    x: float = Field(ge=0, le=1, description="0 at the left edge, 1 at the right", examples=[0.25])
    y: float = Field(ge=0, le=1, description="0 at the upper edge, 1 at the lower", examples=[0.4])


class ReferenceOptions(StrictModel):
    """Which face of a reference is meant."""

    face: FacePlace | None = Field(None, description="the face nearest to it speaks; default: the largest of the first frame with a face")


class Face2FaceOptions(ReferenceOptions):
    """How a face is made to speak."""

    analysis: Literal["auto", "phones", "dsp"] = Field(
        "auto",
        description="what the mouth follows: phones (English), dsp (loudness and formants, any language), auto: what can be relied on",
    )
    fps: Annotated[float, Field(ge=1, le=60, description="frames a second of the result; default: the clip's, 25 for a still")] | None = (
        None
    )
    loop: Literal["pingpong", "loop"] = Field(
        "pingpong", description="how a clip that is shorter than the audio goes on: to and fro, or anew"
    )
    resolution: Resolution | None = None  # None: the reference's size
    enhance: bool = Field(False, description="sharpen the face by super-resolution, several times as slow; only engine duix can")


class Face2FaceSpec(StrictModel):
    """Have the face of a clip or a picture speak an audio."""

    kind: Literal["face2face"] = "face2face"
    audio: MediaRef
    video: MediaRef
    engine: Literal["auto", "mesh", "wav2lip", "duix"] = Field(
        "auto",
        description="mesh: draws the mouth, without any weights; wav2lip: a network that the operator installs; duix: a Duix service; "
        "auto: the first of those installed here that can do what the options ask for",
    )
    options: Face2FaceOptions = Face2FaceOptions()


class ReferenceSpec(StrictModel):
    """Look at a clip or a picture once, ahead of the jobs that have its face speak."""

    kind: Literal["reference"] = "reference"
    video: MediaRef
    options: ReferenceOptions = ReferenceOptions()


class ComfyOptions(StrictModel):
    """How a workflow is run."""

    timeout_s: Annotated[float, Field(gt=0, le=7 * 24 * 3600, description="longest running time; default: that of the job")] | None = None
    previews: bool = Field(True, description="have the sampler paint previews: for GET /v1/events?previews=1, at a small cost a step")
    partial_outputs: bool = Field(True, description="publish what was finished before a node failed")
    allow_node_errors: bool = Field(False, description="run the valid outputs of a graph of which others are not")
    backend_tags: Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$")], ...], Field(max_length=6)] = Field(
        (), description="tags that the backend must have, all of them", examples=[["sdxl"]]
    )


class ComfySpec(StrictModel):
    """Run a ComfyUI workflow."""

    kind: Literal["comfyui"] = "comfyui"
    workflow: Annotated[str, Field(min_length=1, max_length=100)] | dict[str, Any] = Field(
        description="name of a workflow (`name@3` for version 3), or a graph in API or UI format", examples=["text-to-image"]
    )
    inputs: Annotated[dict[Annotated[str, Field(max_length=200)], Any], Field(max_length=500)] = Field(
        default_factory=dict, description="values by parameter of the workflow", examples=[{"prompt": "a lighthouse at dusk", "seed": -1}]
    )
    overrides: Annotated[dict[Annotated[str, Field(max_length=400)], Any], Field(max_length=500)] = Field(
        default_factory=dict, description="values by `<node id or title>.<input>`", examples=[{"6.text": "a lighthouse"}]
    )
    options: ComfyOptions = ComfyOptions()


JobSpec = FaceSwapSpec | Face2FaceSpec | ReferenceSpec | ComfySpec

DUIX_POOL = "duix"  # of face2face jobs that a Duix service runs

POOL_BY_KIND = {"faceswap": "faceswap", "face2face": "face2face", "reference": "face2face", "comfyui": "comfyui"}
POOLS = frozenset({*POOL_BY_KIND.values(), DUIX_POOL})
