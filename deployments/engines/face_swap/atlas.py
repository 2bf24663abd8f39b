"""The source face as a texture: one picture, unwrapped into the canonical mesh's texture coordinates.

In the atlas every vertex of every face has the same place, so drawing the source on a target is one lookup. What the picture does
not show (the averted cheek) is filled with the other half of the face; what is not skin at the forehead is marked unusable.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from deployments.engines.face_swap.mask import OPEN_MOUTH
from deployments.engines.faces.align import Points
from deployments.engines.faces.expression import mouth_openness
from deployments.engines.faces.geometry import BROWS, CHEEKS, FOREHEAD_TOP, LIPS_INNER, LIPS_OUTER, MOUTH_CORNERS, VERTICES, CanonicalMesh
from deployments.engines.faces.warp import TriangleMap, interpolate, map_coordinates, polygon_mask, rasterise
from deployments.engines.images import BgrImage

SIDE_PX = 512
MARGIN = 0.03  # empty border, in sides: blurs and mip levels must not reach over the edge
SMALLEST_LEVEL_PX = 32

INPAINT_RADIUS_PX = 3.0
LIP_LINE_SHADE = 0.7  # lips are darker where they meet

# Visibility of a vertex from the cosine of its angle to the viewer.
GRAZING, SQUARE = 0.05, 0.35
MIRROR_TOLERANCE, MIRROR_SOFTNESS = 0.175, 0.5  # how much worse than its mirror image a vertex may be seen before the mirror is used

WELL_SEEN = 0.5  # visibility, on either half, that a texel needs: below it the unwrapped picture is a smear

# Skin-likeness: distance to the cheeks' colour in deviations, 1 below 2.5, 0 above 4.
SKIN_LIMIT, SKIN_SOFTNESS = 4.0, 1.5
SKIN_LAB_DEVIATION = np.array([15.5, 4, 5], np.float32)  # of L, a, b on one evenly lit face; hair is darker by 50 and more
FOREHEAD_RAMP = (0.02, 0.35)  # start and length of the fade at the hairline, in forehead heights


@dataclass(frozen=True)
class AtlasLayout:
    """Where the vertices lie in every atlas."""

    mesh: CanonicalMesh
    points: Points  # (468, 2), pixels of the atlas
    covering: TriangleMap

    @classmethod
    def of(cls, mesh: CanonicalMesh) -> AtlasLayout:
        """Fit the mesh's texture coordinates into the square."""
        low, high = mesh.uv.min(0), mesh.uv.max(0)
        points = (((mesh.uv - low) / (high - low)) * (1 - 2 * MARGIN) + MARGIN) * SIDE_PX
        return cls(mesh, points.astype(np.float32), rasterise(points, mesh.triangles, (SIDE_PX, SIDE_PX)))


@dataclass(frozen=True)
class SourceAtlas:
    """A prepared source; read-only, shared by all frames and jobs that use the same picture."""

    levels: tuple[BgrImage, ...]  # the texture, and each half as large as the one before
    usable: npt.NDArray[np.uint8]  # (512, 512): 255 where the texture may be drawn, 0 where it shows hair
    landmarks: Points  # (468, 3), pixels of the source picture: the shape of the face

    def level_for(self, face_px: float) -> tuple[BgrImage, float]:
        """Return the level that a face of this size needs, and its scale: a large texture on a small face would alias."""
        ratio = SIDE_PX * (1 - 2 * MARGIN) / max(face_px, 1.0)
        level = int(np.clip(np.floor(np.log2(max(ratio, 1.0))), 0, len(self.levels) - 1))
        return self.levels[level], self.levels[level].shape[0] / SIDE_PX


def build_atlas(image: BgrImage, landmarks: Points, layout: AtlasLayout) -> SourceAtlas:
    """Unwrap a face.

    Args:
        image: uint8 BGR, shape (h, w, 3).
        landmarks: (468 or more, 3), pixels.
        layout: of the canonical mesh.
    """
    shape = landmarks[:VERTICES]
    sharp = _antialiased(image, shape)
    seen = _unwrap(sharp, shape, layout)
    mirrored = _unwrap(sharp, shape[layout.mesh.mirror], layout)
    facing = _facing_of_vertices(shape, layout.mesh)
    weight = cv2.GaussianBlur(_spread(_preference(facing, layout.mesh), layout), (0, 0), SIDE_PX * 0.012).astype(np.float32)
    texture = np.asarray(cv2.blendLinear(seen, mirrored, weight, 1 - weight), np.uint8)
    if mouth_openness(shape) > OPEN_MOUTH:
        texture = _shut_mouth(texture, layout)
    visibility = _spread(_shown(np.maximum(facing, facing[layout.mesh.mirror])), layout)
    return SourceAtlas(_pyramid(texture), _usable(texture, visibility, layout), shape.copy())


def _antialiased(image: BgrImage, shape: Points) -> BgrImage:
    shrink = float(np.ptp(shape[:, 0])) / SIDE_PX
    return image if shrink < 1.5 else np.asarray(cv2.GaussianBlur(image, (0, 0), shrink * 0.5), np.uint8)


def _unwrap(image: BgrImage, shape: Points, layout: AtlasLayout) -> BgrImage:
    lookup = map_coordinates(layout.covering, layout.mesh.triangles, layout.points, shape)
    return lookup.sample(image, interpolation=cv2.INTER_CUBIC)


def _shut_mouth(texture: BgrImage, layout: AtlasLayout) -> BgrImage:
    """Take the teeth out: an open target mouth shows its own, and on a shut one the source's would be a white line."""
    gap = polygon_mask(layout.points[list(LIPS_INNER)], (SIDE_PX, SIDE_PX))
    gap = np.asarray(cv2.dilate(gap, np.ones((5, 5), np.uint8)), np.uint8)
    filled = cv2.inpaint(texture, gap, INPAINT_RADIUS_PX, cv2.INPAINT_TELEA)
    weight = np.asarray(cv2.GaussianBlur(gap, (0, 0), 2.0), np.float32) * np.float32((1 - LIP_LINE_SHADE) / 255)
    return np.asarray(filled * (1 - weight[..., None]), np.uint8)


def _facing_of_vertices(shape: Points, mesh: CanonicalMesh) -> npt.NDArray[np.float64]:
    """Mean over its triangles of how squarely each vertex looks at the viewer, shape (468,)."""
    total, count = np.zeros(VERTICES), np.zeros(VERTICES)
    np.add.at(total, mesh.triangles.ravel(), np.repeat(mesh.facing(shape), 3))
    np.add.at(count, mesh.triangles.ravel(), 1)
    return total / count


def _shown(facing: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.clip((facing - GRAZING) / (SQUARE - GRAZING), 0, 1)


def _preference(facing: npt.NDArray[np.float64], mesh: CanonicalMesh) -> npt.NDArray[np.float64]:
    """How far to take each vertex from its own side, 0..1: little where it turns away or its other half is seen much better."""
    beside = np.clip((facing - facing[mesh.mirror] + MIRROR_TOLERANCE) / MIRROR_SOFTNESS + 1, 0, 1)
    return np.minimum(_shown(facing), beside)


def _spread(values: npt.NDArray[np.float64], layout: AtlasLayout) -> npt.NDArray[np.float32]:
    return interpolate(layout.covering, layout.mesh.triangles, layout.points, values)


def _usable(texture: BgrImage, visibility: npt.NDArray[np.float32], layout: AtlasLayout) -> npt.NDArray[np.uint8]:
    """Mark what may be drawn: the features always; around them what the picture shows well and what is not hair."""
    hairline, mouth = layout.points[FOREHEAD_TOP, 1], layout.points[list(MOUTH_CORNERS), 1].mean()
    brows = layout.points[list(BROWS), 1].min() - SIDE_PX * 0.02
    rows = np.arange(SIDE_PX, dtype=np.float32)[:, None]
    # Beards begin below the mouth and belong to the person.
    skin = np.where(rows < mouth, _skin_likeness(texture, layout), np.float32(1))
    skin[: int(brows)] = np.minimum.accumulate(skin[: int(brows)][::-1])[::-1]  # nothing above hair is skin again, however it shines
    start, length = FOREHEAD_RAMP
    ramp = np.clip(((rows - hairline) / (brows - hairline) - start) / length, 0, 1)
    around = np.minimum(np.minimum(skin, ramp), np.clip(visibility / WELL_SEEN, 0, 1))
    usable = np.maximum(cv2.erode(around, np.ones((9, 9))), _features(layout))
    return np.clip(cv2.GaussianBlur(usable, (0, 0), SIDE_PX * 0.02) * 255, 0, 255).astype(np.uint8)


def _features(layout: AtlasLayout) -> npt.NDArray[np.float32]:
    """1 on brows, eyes, nose, cheeks and mouth and between them: they carry the identity, whatever their colour."""
    return _hull(BROWS + CHEEKS[0] + CHEEKS[1] + LIPS_OUTER, layout).astype(np.float32) / np.float32(255)


def _skin_likeness(texture: BgrImage, layout: AtlasLayout) -> npt.NDArray[np.float32]:
    """How near each texel's colour is to the cheeks', 0..1; brighter is never less like skin, foreheads shine."""
    lab = cv2.GaussianBlur(cv2.cvtColor(texture, cv2.COLOR_BGR2LAB).astype(np.float32), (0, 0), SIDE_PX * 0.012)
    cheeks = cv2.max(_hull(CHEEKS[0], layout), _hull(CHEEKS[1], layout)) > 127
    difference = lab - np.median(lab[cheeks], axis=0)
    difference[..., 0] = np.minimum(difference[..., 0], 0)
    distance = np.linalg.norm(difference / SKIN_LAB_DEVIATION, axis=2)
    return np.asarray(np.clip((SKIN_LIMIT - distance) / SKIN_SOFTNESS, 0, 1), np.float32)


def _hull(vertices: tuple[int, ...], layout: AtlasLayout) -> npt.NDArray[np.uint8]:
    hull = np.asarray(cv2.convexHull(layout.points[list(vertices)])[:, 0], np.float32)
    return polygon_mask(hull, (SIDE_PX, SIDE_PX))


def _pyramid(texture: BgrImage) -> tuple[BgrImage, ...]:
    levels = [texture]
    while levels[-1].shape[0] > SMALLEST_LEVEL_PX:
        levels.append(np.asarray(cv2.pyrDown(levels[-1]), np.uint8))
    return tuple(levels)
