"""How far a job is, from how far its video is."""

from __future__ import annotations

import time
from collections.abc import Iterator

from deployments.engines.media.video import FrameProgress
from deployments.jobs.model import Progress, Stage


def with_eta(frames: Iterator[FrameProgress], begin: float = 0.0) -> Iterator[Progress]:
    """Tell for each frame of a video how far the work is, and how long the rest takes at the pace so far.

    Args:
        frames: from ``transform_video`` or ``compose_video``.
        begin: share of the work that was done before the first frame, 0..1.
    """
    start = time.monotonic()
    for done in frames:
        if not done.frames or not done.frame:  # a long sound may come before the first frame
            yield Progress(Stage.COMPUTING, begin, frame=done.frame)
            continue
        left_s = (time.monotonic() - start) / done.frame * max(done.frames - done.frame, 0)
        share = min(done.frame / done.frames, 1.0)
        yield Progress(Stage.COMPUTING, begin + (1 - begin) * share, done.frame, done.frames, round(left_s, 1))
