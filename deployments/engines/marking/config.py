"""Which marks results get, and in whose name. Apart from what it configures, so that settings load no media library."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

CODE = r"^[\x21\x23-\x5b\x5d-\x7e]{1,64}$"  # what GB 45438-2025, Annex E allows: no blanks, quotation marks or backslashes


class MarkingConfig(BaseModel):
    """How results say that they are generated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Literal["off", "metadata"] = Field(
        "metadata", description="off: results are stored as they were made; metadata: with the AIGC label in their metadata"
    )
    producer: str = Field(
        "atelier",
        pattern=CODE,
        description="code of this service in the label, ContentProducer; providers in China have one of 27 characters",
    )
    propagator: str = Field(
        "",
        pattern=CODE.replace("{1,", "{0,"),
        description="code of the service that distributes the results, ContentPropagator, where it is this one",
    )
