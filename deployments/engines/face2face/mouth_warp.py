"""Moves the pixels of a frame as the vertices of its lower face move: one remap of a small region, everything else keeps its bytes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from deployments.engines.faces.align import Points
from deployments.engines.faces.geometry import NOSE_TIP, VERTICES, CanonicalMesh
from deployments.engines.faces.warp import map_coordinates, rasterise
from deployments.engines.images import BgrImage

LOWER_FACE_BELOW = 1.2  # canonical centimetres above the nose's tip where the moving part ends
WORK_PX = 320  # longest side at which displacements are computed: they are smooth
MIN_SIDE_PX = 8

# Around the moving vertices, in face widths: room for the movement to fade out over neck and cheeks.
PAD_SIDES, PAD_TOP, PAD_BOTTOM = 0.06, 0.02, 0.16

GRID_PX = 40  # on which the movement is carried on beyond the mesh
REACHES = ((1.0, 1.0), (2.2, 0.12), (4.5, 0.0144))  # sigma in grid cells, weight: the near mesh decides where there is any
LEAST_WEIGHT = 0.012  # far from the mesh the movement dies out
EDGE_SIDES, EDGE_BOTTOM, EDGE_TOP = 0.10, 0.14, 0.12  # of the region, over which it is forced to nothing

Displacement = npt.NDArray[np.float32]  # (h, w, 2): from a pixel to the one that it shows


@dataclass(frozen=True)
class Region:
    """A rectangle of a frame."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the region in the frame."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.x1 - self.x0, self.y1 - self.y0

    @property
    def origin(self) -> npt.NDArray[np.float32]:
        """Upper left corner, for points with z."""
        return np.array([self.x0, self.y0, 0], np.float32)


class MouthWarp:
    """Warps lower faces. Read-only: threads may share one."""

    def __init__(self, mesh: CanonicalMesh) -> None:
        height = mesh.vertices[:, 1]
        self._triangles = mesh.triangles[height[mesh.triangles].max(1) < height[NOSE_TIP] + LOWER_FACE_BELOW]
        self._vertices = np.unique(self._triangles)

    def region_of(self, before: Points, after: Points, shape: tuple[int, ...]) -> Region | None:
        """Return the part of a frame that a movement touches; None when it is too small to matter.

        Args:
            before: (468 or more, 3), pixels.
            after: (468, 3), pixels.
            shape: of the frame.
        """
        width = float(np.ptp(before[:VERTICES, 0]))
        points = np.concatenate([before[self._vertices, :2], after[self._vertices, :2]])
        edge = np.array(shape[1::-1])
        low = np.floor(points.min(0) - width * np.array([PAD_SIDES, PAD_TOP])).clip(0, edge).astype(int)
        high = np.ceil(points.max(0) + width * np.array([PAD_SIDES, PAD_BOTTOM])).clip(0, edge).astype(int)
        region = Region(int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        return region if min(region.size) >= MIN_SIDE_PX else None

    def warp(self, image: BgrImage, before: Points, after: Points) -> BgrImage:
        """Return a region with its lower face moved.

        Args:
            image: uint8 BGR, the region of a frame.
            before: (468 or more, 3), pixels of the region, where the face is.
            after: (468, 3), where it goes.
        """
        height, width = image.shape[:2]
        scale = min(1.0, WORK_PX / max(height, width))
        size = max(MIN_SIDE_PX, round(width * scale)), max(MIN_SIDE_PX, round(height * scale))
        factors = np.array([size[0] / width, size[1] / height], np.float32)
        moved = self._displacement(before[:VERTICES, :2] * factors, after[:, :2] * factors, size)
        if size != (width, height):
            moved = np.asarray(cv2.resize(moved, (width, height), interpolation=cv2.INTER_LINEAR) / factors, np.float32)
        x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        return np.asarray(
            cv2.remap(image, x + moved[..., 0], y + moved[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.uint8
        )

    def _displacement(self, before: Points, after: Points, size: tuple[int, int]) -> Displacement:
        covering = rasterise(after, self._triangles, size)
        found = map_coordinates(covering, self._triangles, after, before)
        x, y = np.meshgrid(np.arange(size[0], dtype=np.float32), np.arange(size[1], dtype=np.float32))
        inside = (covering >= 0).astype(np.float32)
        moved = np.dstack([(found.x - x) * inside, (found.y - y) * inside]).astype(np.float32)
        around = _carried_on(moved, inside)
        share = np.asarray(cv2.GaussianBlur(cv2.erode(inside, np.ones((5, 5))), (0, 0), 1.5), np.float32)[..., None]
        top = np.clip(y / (size[1] * EDGE_TOP), 0, 1)[..., None]
        return np.asarray((moved * share + around * (1 - share)) * top, np.float32)


def _carried_on(moved: Displacement, inside: npt.NDArray[np.float32]) -> Displacement:
    """Continue a movement beyond the mesh: the neck goes with the chin, and less the further it is."""
    height, width = inside.shape
    small = cv2.resize(np.dstack([moved, inside]), (GRID_PX, GRID_PX), interpolation=cv2.INTER_AREA)
    total = np.sum([cv2.GaussianBlur(small, (0, 0), sigma) * weight for sigma, weight in REACHES], axis=0)
    carried = total[..., :2] / (total[..., 2:] + LEAST_WEIGHT)
    row, column = np.mgrid[:GRID_PX, :GRID_PX]
    sides = np.minimum(column, GRID_PX - 1 - column) / (GRID_PX * EDGE_SIDES)
    bottom = (GRID_PX - 1 - row) / (GRID_PX * EDGE_BOTTOM)
    faded = carried * np.clip(np.minimum(sides, bottom), 0, 1)[..., None]
    return np.asarray(cv2.resize(faded.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
