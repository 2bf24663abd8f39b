"""Judges pictures and videos by a classifier of the operator's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from deployments.engines.content_filter.config import FilterConfig
from deployments.engines.images import BgrImage
from deployments.engines.media.container import open_media, video_stream
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import load_picture
from deployments.engines.media.probe import PICTURE_TYPES
from deployments.engines.onnx import SessionConfig, open_session
from deployments.jobs.errors import ContentRefused, EngineFailed

RGB = 3


class ContentClassifier:
    """Implements :class:`deployments.jobs.ports.ContentFilter`."""

    def __init__(self, config: FilterConfig, limits: MediaLimits) -> None:
        """Open the model and try it on a black picture.

        Raises:
            EngineFailed: it cannot be opened, takes no pictures, or has no such class.
        """
        assert config.model is not None, "the caller asked"
        self._config = config
        self._limits = limits
        self._session = open_session(config.model, SessionConfig())
        entry = self._session.get_inputs()[0]
        self._input = entry.name
        shape = entry.shape
        if len(shape) != 4 or RGB not in (shape[1], shape[3]):
            raise EngineFailed(f"{config.model.name} takes {shape}: a filter takes one RGB picture, as (1, 3, H, W) or (1, H, W, 3)")
        self._channels_first = shape[1] == RGB
        sides = shape[2:] if self._channels_first else shape[1:3]
        self._size = tuple(side if isinstance(side, int) else config.size for side in sides)
        self._lock = threading.Lock()
        scores = self.scores(np.zeros((8, 8, 3), np.uint8))
        if max(config.class_index) >= scores.size:
            raise EngineFailed(f"{config.model.name} has {scores.size} classes: filter.class_index counts from 0")

    def check(self, path: Path, media_type: str, shown: str) -> None:
        """See the port. What is neither a picture nor a video passes, and so does what cannot be decoded: it makes no result."""
        worst = max((self._badness(image) for image in self._images(path, media_type)), default=0.0)
        if worst >= self._config.threshold:
            raise ContentRefused(shown)

    def scores(self, image: BgrImage) -> npt.NDArray[np.float32]:
        """Return the score of each class.

        Args:
            image: uint8 BGR, any size.

        Returns:
            float32, shape (classes,).
        """
        height, width = self._size
        scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)[..., ::-1].astype(np.float32) / 255
        normal = (scaled - np.asarray(self._config.mean)) / np.asarray(self._config.std)
        batch = normal.transpose(2, 0, 1)[None] if self._channels_first else normal[None]
        with self._lock:  # slots share the session, and its threads are few
            (found, *_) = self._session.run(None, {self._input: np.ascontiguousarray(batch, np.float32)})
        numbers = np.asarray(found, np.float32).ravel()
        match self._config.scores:
            case "softmax":
                powers = np.exp(numbers - numbers.max())
                return np.asarray(powers / powers.sum(), np.float32)
            case "sigmoid":
                return np.asarray(1 / (1 + np.exp(-numbers)), np.float32)
        return numbers

    def _badness(self, image: BgrImage) -> float:
        return float(self.scores(image)[list(self._config.class_index)].max())

    def _images(self, path: Path, media_type: str) -> Iterator[BgrImage]:
        if media_type in PICTURE_TYPES:
            yield load_picture(path, self._limits)
        elif media_type.startswith("video/"):
            yield from self._frames(path, media_type)

    def _frames(self, path: Path, media_type: str) -> Iterator[BgrImage]:
        """Yield frames spread over a video: those at which a decoder can begin, near the wanted times."""
        with open_media(path, media_type, self._limits) as container:
            stream = video_stream(container)
            if stream is None:
                return
            length = container.duration or 0  # microseconds
            for n in range(self._config.frames if length else 1):
                if n:
                    container.seek(length * n // self._config.frames, backward=True)
                frame = next(container.decode(stream), None)
                if frame is None:
                    return
                yield np.ascontiguousarray(frame.to_ndarray(format="bgr24"))


def build_filter(config: FilterConfig, limits: MediaLimits) -> ContentClassifier | None:
    """Return what judges inputs and results; None where no model is set."""
    return None if config.model is None else ContentClassifier(config, limits)
