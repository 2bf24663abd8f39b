"""The face2face box."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.engine_box import EngineBox
from deployments.engines.face2face.config import Face2FaceConfig
from deployments.engines.face2face.engine import Face2FaceEngine
from deployments.engines.models import ModelInfo


class Face2Face(EngineBox):
    """Runs face2face and reference jobs."""

    @staticmethod
    def load(config: Face2FaceConfig, models: Sequence[ModelInfo]) -> Face2FaceEngine:
        """See :class:`EngineBox`."""
        return Face2FaceEngine.load(config, models)

    @staticmethod
    def offers(config: Face2FaceConfig) -> frozenset[str]:
        """See :class:`EngineBox`."""
        return frozenset({"mesh", "wav2lip"} if config.wav2lip else {"mesh"})
