"""Median and 95th percentile, as the figures for people show them."""

from __future__ import annotations

from collections.abc import Collection
from statistics import quantiles


def p50_p95(values: Collection[float]) -> tuple[float | None, float | None]:
    """Return both by linear interpolation between the ranks; None without a value."""
    if len(values) < 2:
        only = next(iter(values), None)
        return only, only
    cuts = quantiles(values, n=20, method="inclusive")
    return cuts[9], cuts[18]
