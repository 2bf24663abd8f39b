"""The figures of drawing: what people wait for is the time from a stroke to what they see of it."""

from __future__ import annotations

from collections import deque

from deployments.jobs.model import StrokeStats
from deployments.jobs.percentiles import p50_p95
from deployments.jobs.sessions import Strokes

SAMPLES = 2000  # newest, over which the percentiles are taken: some minutes of several people


class StrokeLog:
    """Counts since the store began, and the newest times. In memory: they are figures of now."""

    def __init__(self) -> None:
        self._received = self._dropped = self._skipped = self._refused = 0
        self._to_preview: deque[float] = deque(maxlen=SAMPLES)
        self._to_result: deque[float] = deque(maxlen=SAMPLES)

    def add(self, strokes: Strokes) -> None:
        """Add a replica's report."""
        self._received += strokes.received
        self._dropped += strokes.dropped
        self._skipped += strokes.skipped
        self._refused += strokes.refused
        self._to_preview.extend(strokes.to_preview_s)
        self._to_result.extend(strokes.to_result_s)

    def stats(self) -> StrokeStats:
        """Return the figures."""
        preview, result = p50_p95(self._to_preview), p50_p95(self._to_result)
        return StrokeStats(
            received=self._received,
            dropped=self._dropped,
            skipped=self._skipped,
            refused=self._refused,
            to_preview_p50_s=preview[0],
            to_preview_p95_s=preview[1],
            to_result_p50_s=result[0],
            to_result_p95_s=result[1],
        )
