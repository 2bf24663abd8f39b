"""Which frame of a reference is shown when, and how it is had again: a clip is played to and fro for as long as the sound lasts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from deployments.engines.images import BgrImage
from deployments.jobs.errors import EngineFailed

Loop = Literal["pingpong", "loop"]


def play_order(frames: int, shown: int, loop: Loop, window: int) -> npt.NDArray[np.intp]:
    """Return which frame is shown each time, from 0.

    Args:
        frames: of the clip.
        shown: how many are needed.
        loop: to and fro, or from the beginning again, which jumps.
        window: frames at the end of the clip that can be had again; at most ``frames``.
    """
    forward = np.arange(min(frames, shown))
    again = shown - len(forward)
    if again <= 0:
        return forward
    window = min(window, frames)
    steps = np.arange(again)
    if loop == "loop" or window == 1:
        return np.concatenate([forward, frames - window + steps % window])
    turn = (steps + 1) % (2 * window - 2)  # 0 is the last frame, which was just shown
    back = np.where(turn < window, turn, 2 * window - 2 - turn)
    return np.concatenate([forward, frames - 1 - back])


def resampled(frames: int, from_fps: float, to_fps: float) -> npt.NDArray[np.intp]:
    """Return which of the steps at one rate is current at each of ``frames`` steps at another."""
    return np.asarray(np.floor(np.arange(frames) * (from_fps / to_fps) + 1e-6), np.intp)


class FrameReel:
    """The frames of a loop: decoded once in order, those at its end kept on disk to be shown again."""

    def __init__(self, frames: Iterator[BgrImage], *, first: int, count: int, scratch: Path | None, window: int) -> None:
        """Prepare; nothing is decoded yet.

        Args:
            frames: of the whole clip, from its first on.
            first: number of the frame that the loop begins with.
            count: frames of the loop.
            scratch: file to keep frames in, removed by the caller with its folder; None when none is shown twice.
            window: how many are kept.
        """
        self._frames = frames
        self._skip = first
        self._count = count
        self._scratch = scratch
        self._window = min(window, count)
        self._kept: np.memmap[tuple[int, ...], np.dtype[np.uint8]] | None = None
        self._decoded = 0
        self._last: BgrImage | None = None

    def frame(self, number: int) -> BgrImage:
        """Return a frame of the loop, a copy that may be drawn on.

        Raises:
            EngineFailed: it is neither ahead nor kept.
        """
        while self._decoded <= number:
            self._decode()
        if number == self._decoded - 1 and self._last is not None:
            return self._last.copy()
        if self._kept is None or number < self._count - self._window:
            raise EngineFailed("a frame of the reference was asked for that is not kept any more")
        return np.array(self._kept[number - (self._count - self._window)])

    def _decode(self) -> None:
        for _ in range(self._skip):
            next(self._frames, None)
        self._skip = 0
        frame = next(self._frames, None)
        if frame is None:
            raise EngineFailed("the reference has fewer frames than were seen when it was prepared")
        kept_at = self._decoded - (self._count - self._window)
        if self._scratch is not None and kept_at >= 0:
            if self._kept is None:
                self._kept = np.memmap(self._scratch, np.uint8, "w+", shape=(self._window, *frame.shape))
            self._kept[kept_at] = frame
        self._last = frame
        self._decoded += 1
