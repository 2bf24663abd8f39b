"""Draws a prepared source face over a face of a frame, touching nothing but its surroundings.

    frame ─ region of interest ─ reshape ─┬─ light, mask ───────────────┐
    atlas ─ coordinate map ─ texture ─────┴─ relight ─ blend ─▶ in place

Identity over the 20 ordered pairs of the sample pictures (``bench/face_pairs.py``): mean SFace cosine to the source 0.64, to the
target 0.39; 19 of 20 end closer to the source.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from deployments.engines.face_swap.atlas import AtlasLayout, SourceAtlas, build_atlas
from deployments.engines.face_swap.mask import Mask, face_mask, face_width, feathered, kept_features
from deployments.engines.face_swap.shape import reshape_face
from deployments.engines.faces.align import Points
from deployments.engines.faces.geometry import VERTICES, CanonicalMesh
from deployments.engines.faces.relight import relight
from deployments.engines.faces.warp import CoordinateMap, map_coordinates, paste_blend, rasterise
from deployments.engines.images import BgrImage

SHAPE_PAD = 0.35  # of the face's width around it, over which a changed shape fades out
PAINT_PAD = 0.02  # around the landmarks: the mask ends inside them
MAP_CAP_PX = 256  # longest side of the coordinate map; it is smooth between vertices
PAINT_CAP_PX = 512  # longest side of the drawn texture, the atlas' own size; a larger face gets it enlarged
MIN_SIDE_PX = 8

Rect = tuple[slice, slice]


class MeshSwapper:
    """Swaps faces by texture and shape: no generator network, a few milliseconds a face on a CPU."""

    def __init__(self, mesh: CanonicalMesh, *, shape: float) -> None:
        """Prepare what all sources share.

        Args:
            mesh: the canonical mesh.
            shape: how far the target's face shape moves to the source's, 0..1.
        """
        self._mesh = mesh
        self._layout = AtlasLayout.of(mesh)
        self._shape = shape

    def prepare(self, image: BgrImage, landmarks: Points) -> SourceAtlas:
        """Turn a source face into what ``swap`` draws; about 0.1 s, once a picture."""
        return build_atlas(image, landmarks, self._layout)

    def swap(self, frame: BgrImage, landmarks: Points, source: SourceAtlas) -> None:
        """Draw the source over one face.

        Args:
            frame: uint8 BGR, shape (h, w, 3), changed in place inside ``region_of`` the landmarks only.
            landmarks: (468 or more, 3), pixels of the frame.
            source: from ``prepare``.
        """
        points = landmarks[:VERTICES]
        rect = region_of(points, frame.shape[:2], SHAPE_PAD if self._shape else PAINT_PAD)
        region = frame[rect]
        if min(region.shape[:2]) < MIN_SIDE_PX:
            return
        points = _relative(points, rect)
        if self._shape:
            points = reshape_face(region, points, source.landmarks, self._shape)
        inner = region_of(points, region.shape[:2], PAINT_PAD)
        self._paint(region[inner], _relative(points, inner), source)

    def _paint(self, canvas: BgrImage, points: Points, source: SourceAtlas) -> None:
        height, width = canvas.shape[:2]
        if min(height, width) < MIN_SIDE_PX:
            return
        lookup, map_points = self._look_up(points, (width, height))
        face, kept = _masks(map_points, lookup, source)
        size = _capped((width, height), PAINT_CAP_PX)
        texture = _draw(lookup.resized(size), source, face_width(points) * size[0] / width)
        small = canvas if size == (width, height) else np.asarray(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA), np.uint8)
        lit = relight(texture, small, np.asarray(cv2.min(face, 255 - kept), np.uint8))
        weight = cv2.min(feathered(face, map_points), 255 - kept)
        layer, alpha = (cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR) for part in (lit, weight))
        paste_blend(canvas, np.asarray(layer, np.uint8), np.asarray(alpha, np.float32) / np.float32(255))

    def _look_up(self, points: Points, size: tuple[int, int]) -> tuple[CoordinateMap, Points]:
        """Map the face's pixels to the atlas, at a capped size; return the landmarks at that size too."""
        capped = _capped(size, MAP_CAP_PX)
        scale = np.array([capped[0] / size[0], capped[1] / size[1], capped[0] / size[0]], np.float32)
        scaled = np.asarray(points * scale, np.float32)
        visible = self._visible_triangles(scaled)
        covering = rasterise(scaled, visible, capped)
        return map_coordinates(covering, visible, scaled, self._layout.points), scaled

    def _visible_triangles(self, points: Points) -> npt.NDArray[np.int32]:
        """Triangles that face the viewer, far ones first. Without the selection the averted cheek would be drawn over the nose."""
        triangles = self._mesh.triangles
        nearness = np.argsort(-points[triangles, 2].mean(axis=1), kind="stable")
        return triangles[nearness[self._mesh.facing(points)[nearness] > 0]]


def region_of(points: Points, shape: tuple[int, ...], pad: float) -> Rect:
    """Return the rectangle around a face, cut at the picture's edge.

    Args:
        points: (468, 2 or 3), pixels.
        shape: (height, width) of the picture.
        pad: in face widths, on each side.
    """
    margin = face_width(points) * pad
    edge = (shape[1], shape[0])
    x0, y0 = (int(side) for side in np.floor(points[:, :2].min(0) - margin).clip(0, edge))
    x1, y1 = (int(side) for side in np.ceil(points[:, :2].max(0) + margin).clip(0, edge))
    return slice(y0, y1), slice(x0, x1)


def _relative(points: Points, rect: Rect) -> Points:
    return points - np.array([rect[1].start, rect[0].start, 0], np.float32)


def _capped(size: tuple[int, int], cap: int) -> tuple[int, int]:
    scale = min(1.0, cap / max(size))
    return max(MIN_SIDE_PX, round(size[0] * scale)), max(MIN_SIDE_PX, round(size[1] * scale))


def _draw(lookup: CoordinateMap, source: SourceAtlas, face_px: float) -> BgrImage:
    texture, scale = source.level_for(face_px)
    return lookup.sample(texture, scale, cv2.INTER_CUBIC if scale == 1.0 else cv2.INTER_LINEAR)


def _masks(points: Points, lookup: CoordinateMap, source: SourceAtlas) -> tuple[Mask, Mask]:
    """Return the hard-edged face where the atlas is usable, and what stays the target's inside it."""
    face = cv2.multiply(face_mask(points, lookup.covered), lookup.sample(source.usable), scale=1 / 255)
    return np.asarray(face, np.uint8), kept_features(points, source.landmarks, lookup.covered.shape[::-1])
