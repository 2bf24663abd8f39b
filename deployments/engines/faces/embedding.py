"""Face embeddings with SFace: what "the same person" means, in one number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from deployments.engines.faces.align import Points, align_crop
from deployments.engines.faces.dequantise import fold_constants
from deployments.engines.images import BgrImage
from deployments.engines.onnx import SessionConfig, open_session

Embedding = npt.NDArray[np.float32]  # (128,), L2-normalised


class FaceEmbedder:
    """Maps aligned faces to 128 numbers.

    SFace: Zhong et al. 2021, arXiv:2205.12010.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        """Take an opened, folded SFace model; ``load`` does both."""
        self._session = session

    @classmethod
    def load(cls, path: Path, config: SessionConfig) -> FaceEmbedder:
        """Open the shipped file: ONNX Runtime takes it only with its weights folded to float32 (about 0.7 s)."""
        return cls(open_session(fold_constants(onnx.load(path)).SerializeToString(), config))

    def embed(self, image: BgrImage, landmarks_5: Points) -> Embedding:
        """Describe one face.

        Args:
            image: uint8 BGR, shape (h, w, 3).
            landmarks_5: (5, 2), pixels, in the order of ``align_crop``.

        Returns:
            float32, shape (128,), L2-normalised.
        """
        crop = align_crop(image, landmarks_5)
        # Trained on RGB 0..255 without further scaling.
        blob = np.ascontiguousarray(crop[..., ::-1].transpose(2, 0, 1)[None], np.float32)
        (vector,) = self._session.run(None, {"data": blob})[0]
        return np.asarray(vector / np.linalg.norm(vector), np.float32)


def cosine(a: Embedding, b: Embedding) -> float:
    """Return how alike two normalised embeddings are: 1 the same, around 0 strangers, 0.363 OpenCV Zoo's threshold for one person."""
    return float(a @ b)
