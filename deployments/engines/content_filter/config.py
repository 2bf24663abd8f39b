"""Which model judges pictures, and how its answer is read. Apart from what it configures, so that settings load no media library."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class FilterConfig(BaseModel):
    """A classifier of your own that inputs and results must pass. None ships: what is not wanted differs from service to service."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path | None = Field(
        None,
        description="ONNX file of an image classifier on every machine with workers, float32 RGB in, a row of scores out; none: no filter",
    )
    class_index: tuple[int, ...] = Field((1,), min_length=1, description="scores of what is refused, from 0; the highest counts")
    threshold: float = Field(0.8, description="score from which a picture is refused; lower refuses more that is harmless")
    scores: Literal["probabilities", "softmax", "sigmoid"] = Field(
        "softmax", description="how the model's numbers become scores: as they are, or by softmax or sigmoid"
    )
    size: int = Field(224, ge=16, le=1024, description="side of the square that a picture is scaled to, where the model does not say")
    mean: tuple[float, float, float] = Field((0.485, 0.456, 0.406), description="taken from RGB in 0..1; ImageNet's")
    std: tuple[float, float, float] = Field((0.229, 0.224, 0.225), description="what RGB is divided by then; ImageNet's")
    frames: int = Field(8, ge=1, le=1000, description="frames of a video that are looked at, spread over its length")

    @model_validator(mode="after")
    def _is_there(self) -> FilterConfig:
        if self.model is not None and not self.model.is_file():
            raise ValueError(f"filter.model: there is no file {self.model}")
        if any(value == 0 for value in self.std):
            raise ValueError("filter.std divides: it cannot be 0")
        return self
