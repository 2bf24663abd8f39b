"""The face-swap box."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.engine_box import EngineBox
from deployments.engines.face_swap.config import FaceSwapConfig
from deployments.engines.face_swap.engine import FaceSwapEngine
from deployments.engines.models import ModelInfo


class FaceSwap(EngineBox):
    """Runs face-swap jobs."""

    @staticmethod
    def load(config: FaceSwapConfig, models: Sequence[ModelInfo]) -> FaceSwapEngine:
        """See :class:`EngineBox`."""
        return FaceSwapEngine.load(config, models)

    @staticmethod
    def offers(config: FaceSwapConfig) -> frozenset[str]:  # noqa: ARG004 -- the same whatever is set
        """See :class:`EngineBox`."""
        return frozenset({"mesh"})
