"""Piecewise affine warps between two placements of the face mesh, as dense coordinate maps for ``cv2.remap``."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from deployments.engines.images import BgrImage

SUBPIXEL_BITS = 4  # fillConvexPoly takes fixed-point corners: sixteenths of a pixel
MIN_DETERMINANT = 1e-6  # below it a triangle has no area and covers no pixel

Points = npt.NDArray[np.floating]
TriangleMap = npt.NDArray[np.int32]  # (h, w): number of the triangle that covers the pixel, -1 for none


@dataclass(frozen=True)
class CoordinateMap:
    """Where each pixel of a destination comes from."""

    x: npt.NDArray[np.float32]  # (h, w)
    y: npt.NDArray[np.float32]  # (h, w)
    covered: npt.NDArray[np.uint8]  # (h, w): 255 where a triangle defines the coordinates, 0 elsewhere

    def resized(self, size: tuple[int, int]) -> CoordinateMap:
        """Return the map for a destination of another (width, height) in pixels."""
        if size == self.x.shape[::-1]:
            return self
        x, y, covered = (cv2.resize(part, size, interpolation=cv2.INTER_LINEAR) for part in (self.x, self.y, self.covered))
        return CoordinateMap(np.asarray(x, np.float32), np.asarray(y, np.float32), np.asarray(covered, np.uint8))

    def sample(self, image: npt.NDArray[np.uint8], scale: float = 1.0, interpolation: int = cv2.INTER_LINEAR) -> npt.NDArray[np.uint8]:
        """Fetch an image's pixels.

        Args:
            image: what the coordinates point into, shrunk by ``scale``; one channel or BGR.
            scale: size of ``image`` relative to the one that the map was built for.
            interpolation: OpenCV's flag.
        """
        shift = (scale - 1) / 2  # pixel centres lie at half units in both
        x, y = self.x * scale + shift, self.y * scale + shift
        return np.asarray(cv2.remap(image, x, y, interpolation, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def rasterise(points: Points, triangles: npt.NDArray[np.int32], size: tuple[int, int]) -> TriangleMap:
    """Draw triangle numbers; later triangles cover earlier ones, and ``triangles`` may be a selection in painter's order.

    Args:
        points: (n, 2 or 3), pixels.
        triangles: (m, 3), point numbers.
        size: (width, height) of the map.

    Returns:
        int32, shape (height, width): row in ``triangles``, -1 where none is.
    """
    width, height = size
    covering = np.full((height, width), -1, np.int32)
    corners = np.round(points[:, :2] * (1 << SUBPIXEL_BITS)).astype(np.int32)[triangles]
    for number, corner in enumerate(corners):
        cv2.fillConvexPoly(covering, corner, number, cv2.LINE_8, SUBPIXEL_BITS)
    return covering


def map_coordinates(covering: TriangleMap, triangles: npt.NDArray[np.int32], points: Points, onto: Points) -> CoordinateMap:
    """Build the map that takes each pixel of the mesh at ``points`` to its place in the mesh at ``onto``.

    Args:
        covering: from ``rasterise``, of the same points and triangles.
        triangles: (m, 3), point numbers.
        points: (n, 2 or 3), pixels of the destination.
        onto: (n, 2 or 3), pixels of the picture to fetch from.
    """
    rows, columns = np.nonzero(covering >= 0)
    affines = _affines(points, onto, triangles)[covering[rows, columns]]
    fetched = affines[..., 0] * columns[:, None] + affines[..., 1] * rows[:, None] + affines[..., 2]
    x = np.zeros(covering.shape, np.float32)
    y = np.zeros(covering.shape, np.float32)
    x[rows, columns], y[rows, columns] = fetched.T
    return _grown(x, y, covering >= 0)


def interpolate(covering: TriangleMap, triangles: npt.NDArray[np.int32], points: Points, values: Points) -> npt.NDArray[np.float32]:
    """Spread one value a point over the triangles.

    Args:
        covering: from ``rasterise``, of the same points and triangles.
        triangles: (m, 3), point numbers.
        points: (n, 2 or 3), pixels.
        values: (n,).

    Returns:
        float32, shape of ``covering``; 0 where no triangle is.
    """
    spread = map_coordinates(covering, triangles, points, np.stack([values, values], axis=1))
    return np.where(covering >= 0, spread.x, np.float32(0))


def polygon_mask(points: Points, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Fill a closed outline, antialiased.

    Args:
        points: (n, 2), pixels, in order around.
        size: (width, height).

    Returns:
        uint8, shape (height, width), 0..255.
    """
    mask = np.zeros(size[::-1], np.uint8)
    cv2.fillPoly(mask, [np.round(points * (1 << SUBPIXEL_BITS)).astype(np.int32)], 255, cv2.LINE_AA, SUBPIXEL_BITS)
    return mask


def _affines(points: Points, onto: Points, triangles: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """One 2x3 matrix a triangle, shape (m, 2, 3)."""
    corners = np.ones((len(triangles), 3, 3))
    corners[..., :2] = points[triangles][..., :2]
    flat = np.abs(np.linalg.det(corners)) < MIN_DETERMINANT
    corners[flat] = np.eye(3)  # any regular matrix will do, no pixel will ask for it
    return np.linalg.solve(corners, onto[triangles][..., :2].astype(np.float64)).transpose(0, 2, 1).astype(np.float32)


def _grown(x: npt.NDArray[np.float32], y: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_]) -> CoordinateMap:
    """Continue the map a few pixels over its edge, so that enlarging it does not mix in zeros."""
    weight = inside.astype(np.float32)
    around = np.asarray(cv2.blur(weight, (7, 7)), np.float32) + np.float32(1e-6)
    grown_x, grown_y = (np.where(inside, part, cv2.blur(part, (7, 7)) / around) for part in (x, y))
    return CoordinateMap(grown_x.astype(np.float32), grown_y.astype(np.float32), inside.astype(np.uint8) * 255)


def paste_blend(background: BgrImage, layer: BgrImage, weight: npt.NDArray[np.float32]) -> None:
    """Blend a layer over a background in place: ``weight * layer + (1 - weight) * background``.

    Args:
        background: uint8 BGR, changed; pixels of weight 0 keep their bytes.
        layer: uint8 BGR, same shape.
        weight: float32, shape (h, w), 0..1.
    """
    np.copyto(background, cv2.blendLinear(layer, background, weight, 1 - weight))
