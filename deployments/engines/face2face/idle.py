"""Life for a still: a head that sways a little and blinks, so that a picture that speaks is not a mask."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from deployments.engines.faces.align import Points
from deployments.engines.faces.geometry import VERTICES, CanonicalMesh
from deployments.engines.faces.warp import map_coordinates, rasterise
from deployments.engines.images import BgrImage

# Sums of slow waves whose periods have no common multiple within minutes: (amplitude, period in seconds).
SHIFT_X = ((0.006, 5.3), (0.003, 2.9))  # face widths
SHIFT_Y = ((0.004, 4.1), (0.002, 2.3))
TURN = ((0.008, 6.7), (0.004, 3.7))  # radians: half a degree

# Of the head, in face widths from its middle: all of it goes along within the first, nothing beyond the second.
HEAD_REACH, STILL_FROM = 0.8, 1.7

BLINK_EVERY_S = (2.4, 5.5)  # Bentivoglio et al. 1997: 17 a minute at rest, more in conversation
SHUTTING_S, OPENING_S = 0.09, 0.17

# Vertices of upper and lower lids from the left corner to the right one, and the two rows of skin above; canonical model's drawing.
UPPER_LIDS = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (362, 398, 384, 385, 386, 387, 388, 466, 263))
LOWER_LIDS = ((33, 7, 163, 144, 145, 153, 154, 155, 133), (362, 382, 381, 380, 374, 373, 390, 249, 263))
ABOVE_LIDS = (((247, 30, 29, 27, 28, 56, 190), 0.55), ((414, 286, 258, 257, 259, 260, 467), 0.55),
              ((113, 225, 224, 223, 222, 221, 189), 0.15), ((413, 441, 442, 443, 444, 445, 342), 0.15))  # fmt: skip
MEETING = 0.9  # of the way down is where the lids meet

Wave = tuple[tuple[float, float], ...]


class IdleMotion:
    """What a still does besides speaking, by time. The same seed moves the same way."""

    def __init__(self, seed: int, duration_s: float) -> None:
        """Plan the blinks of ``duration_s`` seconds."""
        random = np.random.default_rng(seed)
        self._phases = random.uniform(0, 2 * np.pi, 8)
        gaps = random.uniform(*BLINK_EVERY_S, size=int(duration_s / BLINK_EVERY_S[0]) + 1)
        self._blinks = np.cumsum(gaps) - gaps[0] / 2  # the first one soon: a clip of a few seconds should have one

    def blink(self, time_s: float) -> float:
        """Return how far the eyes are shut, 0..1."""
        since = time_s - self._blinks
        shutting = np.clip((since + SHUTTING_S) / SHUTTING_S, 0, 1)
        opening = np.clip(1 - since / OPENING_S, 0, 1)
        return float(_eased(np.minimum(shutting, opening)).max())

    def pose(self, time_s: float) -> npt.NDArray[np.float64]:
        """Return (shift to the right, shift down, turn): face widths and radians."""
        waves = (SHIFT_X, SHIFT_Y, TURN)
        return np.array([self._wave(wave, 2 * number, time_s) for number, wave in enumerate(waves)])

    def _wave(self, wave: Wave, first: int, time_s: float) -> float:
        parts = (size * np.sin(2 * np.pi * time_s / period + self._phases[first + n]) for n, (size, period) in enumerate(wave))
        return float(sum(parts))


class StillAnimator:
    """Moves one picture's head and lids."""

    def __init__(self, mesh: CanonicalMesh, landmarks: Points, shape: tuple[int, ...]) -> None:
        """Prepare.

        Args:
            mesh: canonical.
            landmarks: (478, 3), pixels.
            shape: of the picture.
        """
        self._points = landmarks[:VERTICES]
        eyes = {vertex for row, _ in ABOVE_LIDS for vertex in row} | {vertex for row in (*UPPER_LIDS, *LOWER_LIDS) for vertex in row}
        self._triangles = mesh.triangles[np.isin(mesh.triangles, list(eyes)).any(1)]
        self._centre = self._points[:, :2].mean(0)
        self._width = float(np.ptp(self._points[:, 0]))
        height, width = shape[:2]
        x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        distance = np.hypot(x - self._centre[0], (y - self._centre[1]) / 1.25) / self._width  # a head is higher than wide
        self._share = _eased(np.clip((STILL_FROM - distance) / (STILL_FROM - HEAD_REACH), 0, 1)).astype(np.float32)
        self._x, self._y = x, y

    def blink(self, image: BgrImage, shut: float) -> None:
        """Lower the upper lids by ``shut`` (0..1), in place."""
        moved = self._points.copy()
        for number, (upper, lower) in enumerate(zip(UPPER_LIDS, LOWER_LIDS, strict=True)):
            drop = self._points[list(lower), :2] - self._points[list(upper), :2]
            moved[list(upper), :2] += shut * MEETING * drop
            for row, share in ABOVE_LIDS[number::2]:
                moved[list(row), :2] += shut * share * drop[1:-1]
        corners = np.concatenate([self._points[self._triangles.ravel(), :2], moved[self._triangles.ravel(), :2]])
        low = np.floor(corners.min(0)).clip(0).astype(int)
        high = (np.ceil(corners.max(0)).astype(int) + 1).clip(0, image.shape[1::-1])
        if min(high - low) < 2:
            return
        region = image[low[1] : high[1], low[0] : high[0]]
        origin = np.array([*low, 0], np.float32)
        covering = rasterise(moved - origin, self._triangles, (region.shape[1], region.shape[0]))
        found = map_coordinates(covering, self._triangles, moved - origin, self._points - origin)
        region[:] = np.where((covering >= 0)[..., None], found.sample(region.copy(), interpolation=cv2.INTER_CUBIC), region)

    def sway(self, image: BgrImage, pose: npt.NDArray[np.float64]) -> BgrImage:
        """Return the picture with the head moved; the background stays.

        Args:
            image: uint8 BGR, of the picture's size.
            pose: as ``IdleMotion.pose``.
        """
        shift_x, shift_y, turn = (np.float32(part) for part in pose * [self._width, self._width, 1.0])
        # Small movements: the inverse is the negative, and a turn moves each point across its distance from the chin's height.
        from_x, from_y = self._x - np.float32(self._centre[0]), self._y - np.float32(self._centre[1] + self._width)
        x = self._x - self._share * (shift_x - turn * from_y)
        y = self._y - self._share * (shift_y + turn * from_x)
        return np.asarray(cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _eased(share: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return np.asarray(share * share * (3 - 2 * share))
