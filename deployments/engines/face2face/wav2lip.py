"""A Wav2Lip network in ONNX: from the sound of a moment and a face to the face that says it.

Contract (FaceFusion's export): ``source`` (n, 1, 80, 16) mel; ``target`` (n, 6, 96, 96), BGR / 255, three channels of the face with its
lower half black and three of the same face whole; the answer (n, 3, 96, 96), BGR, 0..1. Its published weights are for research only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deployments.engines.face2face.mel import BANDS, COLUMNS, MelWindow
from deployments.engines.images import BgrImage
from deployments.engines.onnx import SessionConfig, open_session
from deployments.jobs.errors import EngineFailed

SIDE = 96  # pixels of a face
INPUTS = {"source": (1, BANDS, COLUMNS), "target": (6, SIDE, SIDE)}  # without the first dimension


class Wav2Lip:
    """An opened network. Threads may share one."""

    def __init__(self, path: Path, config: SessionConfig, batch: int) -> None:
        """Open it.

        Args:
            path: of the ONNX file.
            config: device and threads.
            batch: frames in one call, as far as the network takes several.

        Raises:
            EngineFailed: it cannot be opened, or is another network.
        """
        if not path.is_file():
            raise EngineFailed(f"the Wav2Lip network {path.name} is not there: look at ATELIER_FACE2FACE__WAV2LIP")
        self._session: Any = open_session(path, config)
        shapes = {found.name: tuple(found.shape) for found in self._session.get_inputs()}
        if {name: shape[1:] for name, shape in shapes.items()} != INPUTS:
            raise EngineFailed(f"{path.name} is no Wav2Lip network: it should take source (n, 1, 80, 16) and target (n, 6, 96, 96)")
        fixed = {shape[0] for shape in shapes.values() if isinstance(shape[0], int)}
        self.batch = min(fixed, default=batch)

    def speak(self, windows: Sequence[MelWindow], faces: Sequence[BgrImage]) -> list[BgrImage]:
        """Return the faces as they say what is heard; at most ``batch`` at once.

        Args:
            windows: from ``mel.window_at``.
            faces: uint8 BGR, (96, 96, 3), one a window.
        """
        whole = np.stack(faces).astype(np.float32).transpose(0, 3, 1, 2) / np.float32(255)
        half = whole.copy()
        half[:, :, SIDE // 2 :] = 0
        given = {"source": np.stack(windows)[:, None], "target": np.concatenate([half, whole], axis=1)}
        (answer,) = self._session.run(None, given)
        if answer.shape != whole.shape:
            raise EngineFailed(f"the Wav2Lip network answers with the shape {answer.shape}, not {whole.shape}")
        pixels = np.clip(np.rint(answer.transpose(0, 2, 3, 1) * 255), 0, 255).astype(np.uint8)
        return [np.ascontiguousarray(face) for face in pixels]
