"""How far mouth and eyes are open, from mesh landmarks."""

from __future__ import annotations

import numpy as np

from deployments.engines.faces.align import Points
from deployments.engines.faces.geometry import EYE_CORNERS, EYE_LIDS, INNER_LIP_CORNERS, INNER_LIP_MIDDLES


def mouth_openness(points: Points) -> float:
    """Return the gap between the lips over the mouth's width: about 0 shut, 0.15 smiling with teeth, 0.5 and more shouting."""
    return _distance(points, INNER_LIP_MIDDLES) / (_distance(points, INNER_LIP_CORNERS) + 1e-6)


def eye_openness(points: Points) -> tuple[float, float]:
    """Return lid gap over eye width, of the eye on the picture's left and of the other: below 0.1 shut, 0.25 to 0.36 open."""
    left, right = (_distance(points, lids) / (_distance(points, ends) + 1e-6) for lids, ends in zip(EYE_LIDS, EYE_CORNERS, strict=True))
    return left, right


def _distance(points: Points, pair: tuple[int, int]) -> float:
    return float(np.linalg.norm(points[pair[0], :2] - points[pair[1], :2]))
