"""Which older services are answered, and how."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

DialectName = Literal["tasks", "middleware", "gateway", "drawing", "face2face"]


def split_names(value: object) -> object:
    """Read names that an operator separates by commas or writes as a JSON list."""
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise ValueError("names are separated by commas or written as a JSON list") from None


class DialectsConfig(BaseModel):
    """The dialects of an installation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: Annotated[frozenset[DialectName], NoDecode, BeforeValidator(split_names)] = Field(
        frozenset({"tasks", "middleware", "gateway", "drawing", "face2face"}),
        description="APIs of older services that are answered besides the native one: tasks (/api/tasks/create and the like), "
        "middleware (/api/workflow/submit and the like, /ws), gateway (/api/v1), drawing (/api/sketch), "
        "face2face (/api/generate_video)",
    )
    gateway_http_status: Literal["envelope", "mapped"] = Field(
        "envelope",
        description="HTTP status of the gateway's answers: always 200 with the code in the body, or 400, 404, 500, 502 by the code",
    )
    face2face_timeout_s: float = Field(
        1800.0,
        ge=1,
        le=86400,
        description="longest time that POST /api/generate_video takes, waiting in the queue included; proxies in front must wait longer",
    )
    patience_s: float = Field(
        10.0,
        ge=0,
        description="how long no ComfyUI server may have been healthy before clients of the gateway are told so instead of queued",
    )
