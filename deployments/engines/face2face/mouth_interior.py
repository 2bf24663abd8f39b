"""What is seen between the lips: the person's own teeth where the reference shows them, else a drawn mouth.

Both are painted into the outline of the inner lips, under the light of the skin around.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from deployments.engines.faces.align import Points
from deployments.engines.faces.expression import mouth_openness
from deployments.engines.faces.geometry import (
    CHEEKS,
    INNER_LIP_CORNERS,
    INNER_LIP_MIDDLES,
    LIPS_INNER,
    LIPS_INNER_LOWER,
    LIPS_INNER_UPPER,
    VERTICES,
)
from deployments.engines.faces.warp import polygon_mask
from deployments.engines.images import BgrImage

SHOWS_TEETH = 0.12  # mouth openness from which a frame can lend its mouth
DONORS = 6  # kept of one reference, spread over how far they are open
PATCH_SIZE = (96, 64)  # (width, height) of a donor: the mouths of a 720p portrait

SHUT = 0.012  # of the face's width: a smaller gap shows nothing
FEATHER = 0.0045  # of the face's width
MIN_FEATHER_PX = 0.5
PAD_PX = 4
FINE_BELOW_PX = 160  # faces narrower than this are drawn at twice their size

# Colours under the light of skin whose mean is SKIN_MEAN, BGR.
SKIN_MEAN, LIGHT_RANGE = 150.0, (0.3, 1.2)
CAVITY, TONGUE, TOOTH = ((38.0, 30.0, 62.0), (74.0, 68.0, 122.0), (160.0, 167.0, 176.0))
TOOTH_HEIGHT, TOOTH_SHARE = 0.055, 0.45  # of the face's width, and of the gap at most
TOOTH_REACH = 0.86  # of the mouth's half width: further out they lie in the dark of the cheek
LIP_SHADOW = 0.022  # of the face's width, below the upper lip

Grid = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Donor:
    """The inside of a mouth as a frame showed it, straightened: rows run from the upper to the lower lip."""

    patch: BgrImage  # PATCH_SIZE
    openness: float
    light: float  # of the skin around, as ``skin_light``


@dataclass(frozen=True)
class _Place:
    """Where the inside of a mouth goes in a picture, and its own coordinates there."""

    rows: slice
    columns: slice
    across: Grid  # (h, w): 0 at the corner on the left .. 1 at the other
    down: Grid  # (h, w): 0 at the upper lip .. 1 at the lower
    gap_px: Grid  # (w,): between the lips
    mask: Grid  # (h, w): 0..1


def take_donor(frame: BgrImage, landmarks: Points) -> Donor | None:
    """Cut the inside of a frame's mouth out; None when it shows none.

    Args:
        frame: uint8 BGR.
        landmarks: (468 or more, 3), pixels.
    """
    openness = mouth_openness(landmarks)
    if openness < SHOWS_TEETH:
        return None
    width, height = PATCH_SIZE
    upper, lower = (_resampled(landmarks[list(row), :2], width) for row in (LIPS_INNER_UPPER, LIPS_INNER_LOWER))
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    places = upper[None] * (1 - down) + lower[None] * down
    patch = cv2.remap(frame, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return Donor(np.asarray(patch, np.uint8), openness, skin_light(frame, landmarks))


def keep_donors(donors: Sequence[Donor]) -> tuple[Donor, ...]:
    """Choose ``DONORS`` that differ most in how far they are open."""
    ordered = sorted(donors, key=lambda donor: donor.openness)
    if len(ordered) <= DONORS:
        return tuple(ordered)
    return tuple(ordered[round(place)] for place in np.linspace(0, len(ordered) - 1, DONORS))


def skin_light(frame: BgrImage, landmarks: Points) -> float:
    """Return how light a face is: the mean of its cheeks over ``SKIN_MEAN``, kept in ``LIGHT_RANGE``."""
    cheeks = landmarks[[vertex for side in CHEEKS for vertex in side], :2]
    height, width = frame.shape[:2]
    columns, rows = np.clip(np.round(cheeks).astype(int), 0, [width - 1, height - 1]).T
    return float(np.clip(np.median(frame[rows, columns].mean(1)) / SKIN_MEAN, *LIGHT_RANGE))


def paint_interior(image: BgrImage, points: Points, light: float, donors: Sequence[Donor]) -> None:
    """Fill the gap between the lips, in place.

    Args:
        image: uint8 BGR, a region of a frame in which the lips have been moved.
        points: (468, 3), pixels of the region, after the movement.
        light: of the skin, as ``skin_light``.
        donors: from the same reference; may be empty.
    """
    face_px = float(np.ptp(points[:VERTICES, 0]))
    if np.linalg.norm(np.subtract(*points[list(INNER_LIP_MIDDLES), :2])) < SHUT * face_px:
        return
    fine = 2 if face_px < FINE_BELOW_PX else 1
    place = _place_of(points, image.shape, face_px, fine)
    if place is None:
        return
    donor = min(donors, key=lambda donor: abs(donor.openness - mouth_openness(points)), default=None)
    drawn = _drawn(place, face_px * fine, light) if donor is None else _lent(place, donor, light)
    target = image[place.rows, place.columns]
    size = target.shape[1::-1]
    mask = cv2.resize(place.mask, size, interpolation=cv2.INTER_AREA)
    weight = np.asarray(cv2.GaussianBlur(mask, (0, 0), max(MIN_FEATHER_PX, face_px * FEATHER)), np.float32)[..., None]
    inside = np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA), np.float32)
    target[:] = np.clip(target * (1 - weight) + inside * weight + 0.5, 0, 255).astype(np.uint8)


def _place_of(points: Points, shape: tuple[int, ...], face_px: float, fine: int) -> _Place | None:
    outline = points[list(LIPS_INNER), :2]
    pad = PAD_PX + face_px * FEATHER * 2
    edge = np.array(shape[1::-1])
    low = np.floor(outline.min(0) - pad).clip(0, edge).astype(int)
    high = np.ceil(outline.max(0) + pad).clip(0, edge).astype(int)
    width, height = (high - low) * fine
    if min(width, height) < 2 * fine:
        return None
    upper, lower = ((points[list(row), :2] - low) * fine for row in (LIPS_INNER_UPPER, LIPS_INNER_LOWER))
    columns = np.arange(width, dtype=np.float32)
    top, bottom = (_height_at(row, columns) for row in (upper, lower))
    left, right = sorted((points[list(INNER_LIP_CORNERS), 0] - low[0]) * fine)
    gap = np.maximum(bottom - top, 1)
    down = (np.arange(height, dtype=np.float32)[:, None] - top) / gap
    across = np.broadcast_to((columns - left) / max(right - left, 1), down.shape)
    mask = polygon_mask((outline - low) * fine, (int(width), int(height))).astype(np.float32) / np.float32(255)
    return _Place(slice(low[1], high[1]), slice(low[0], high[0]), across.astype(np.float32), down.astype(np.float32), gap, mask)


def _height_at(row: npt.NDArray[np.float32], columns: Grid) -> Grid:
    order = np.argsort(row[:, 0])  # a head that lies on its side has them in another order
    return np.asarray(np.interp(columns, row[order, 0], row[order, 1]), np.float32)


def _lent(place: _Place, donor: Donor, light: float) -> Grid:
    width, height = PATCH_SIZE
    x, y = place.across * (width - 1), np.clip(place.down, 0, 1) * (height - 1)
    patch = cv2.remap(donor.patch, np.clip(x, 0, width - 1), y.astype(np.float32), cv2.INTER_LINEAR)
    return np.asarray(patch * np.float32(light / donor.light), np.float32)


def _drawn(place: _Place, face_px: float, light: float) -> Grid:
    """Draw a dark cavity with a tongue, and a row of upper teeth in the lip's shadow."""
    across = place.across * 2 - 1
    image = np.ones((*place.mask.shape, 3), np.float32) * np.array(CAVITY, np.float32)
    tongue = np.exp(-(((place.down - 1.05) / 0.38) ** 2) - (across / 0.62) ** 2)[..., None] * np.float32(0.8)
    image = image * (1 - tongue) + np.array(TONGUE, np.float32) * tongue
    below_lip = place.down * place.gap_px
    height = np.minimum(TOOTH_HEIGHT * face_px, TOOTH_SHARE * place.gap_px)
    shown = np.clip((height - below_lip) / (0.35 * height), 0, 1) * np.clip((TOOTH_REACH - np.abs(across)) / 0.25, 0, 1)
    shade = (1 - 0.45 * across**2)[..., None]
    image = image * (1 - shown[..., None]) + np.array(TOOTH, np.float32) * shade * shown[..., None]
    shadow = np.clip(0.55 + 0.45 * below_lip / (LIP_SHADOW * face_px), 0.55, 1)
    floor = np.clip(0.5 + 0.5 * (1 - place.down) * place.gap_px / (LIP_SHADOW * face_px), 0.5, 1)
    return np.asarray(image * (shadow * floor * light)[..., None], np.float32)


def _resampled(row: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    """Place points evenly along a row of vertices."""
    lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(row, axis=0), axis=1))])
    at = np.linspace(0, lengths[-1], count)
    return np.stack([np.interp(at, lengths, row[:, axis]) for axis in range(2)], axis=1).astype(np.float32)
