"""The face as Wav2Lip sees it, cut out of a frame, and its mouth put back into the frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from deployments.engines.face2face.wav2lip import SIDE
from deployments.engines.faces.align import Points
from deployments.engines.faces.geometry import EYE_CORNERS, LIPS_OUTER, NOSE_TIP, VERTICES, CanonicalMesh
from deployments.engines.faces.relight import relight
from deployments.engines.faces.warp import paste_blend, polygon_mask
from deployments.engines.images import BgrImage

FOREHEAD = 0.125  # of the box from brows to chin, added above: as FaceFusion cuts the faces
BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)  # upper edges, as the 68 points of other models end there
FEATHER = 0.05  # sigma of the mask's edge, in widths of the face
MASK_TOP = 0.35  # canonical centimetres below the nose's tip where the changed part begins
MIN_SIDE_PX = 8


@dataclass(frozen=True)
class MouthCrop:
    """A face cut out of a frame."""

    face: BgrImage  # uint8 BGR, (96, 96, 3), upright
    affine: npt.NDArray[np.float64]  # (2, 3): from the frame to the crop


class MouthCropper:
    """Cuts faces and pastes mouths. Read-only: threads may share one."""

    def __init__(self, mesh: CanonicalMesh) -> None:
        height = mesh.vertices[:, 1]
        self._lower = np.flatnonzero(height < height[NOSE_TIP] - MASK_TOP)

    def cut(self, frame: BgrImage, landmarks: Points) -> MouthCrop:
        """Cut the face out.

        Args:
            frame: uint8 BGR.
            landmarks: (468 or more, 3), pixels.
        """
        affine = _affine_of(landmarks[:VERTICES, :2].astype(np.float64))
        # Bilinear over a picture that is first made small enough: of a large face, every fifth pixel alone would flicker.
        shrunk = min(1.0, 2 * float(np.sqrt(abs(np.linalg.det(affine[:, :2])))))
        if shrunk < 1.0:
            size = max(1, round(frame.shape[1] * shrunk)), max(1, round(frame.shape[0] * shrunk))
            small = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
            scaled = affine / np.array([size[0] / frame.shape[1], size[1] / frame.shape[0], 1.0])
        else:
            small, scaled = frame, affine
        face = cv2.warpAffine(small, scaled, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return MouthCrop(np.asarray(face, np.uint8), affine)

    def paste(self, frame: BgrImage, landmarks: Points, crop: MouthCrop, spoken: BgrImage) -> None:
        """Put the lower half of what the network made into the frame, in place, under the frame's light.

        Args:
            frame: uint8 BGR, from which the crop was cut.
            landmarks: (468 or more, 3), pixels.
            crop: from ``cut``.
            spoken: uint8 BGR, (96, 96, 3).
        """
        width = float(np.ptp(landmarks[:VERTICES, 0]))
        sigma = max(1.0, FEATHER * width)
        lower = landmarks[self._lower, :2].astype(np.float64)
        edge = np.array(frame.shape[1::-1])
        low = np.floor(lower.min(0) - 3 * sigma).clip(0, edge).astype(int)
        high = np.ceil(lower.max(0) + 3 * sigma).clip(0, edge).astype(int)
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        if min(size) < MIN_SIDE_PX:
            return
        shift = np.array([[1, 0, low[0]], [0, 1, low[1]], [0, 0, 1]], np.float64)
        affine = (np.vstack([crop.affine, [0, 0, 1]]) @ shift)[:2]  # from the region to the crop
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        layer = np.asarray(cv2.warpAffine(spoken, affine, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)
        outline = cv2.convexHull((lower - low).astype(np.float32))[:, 0]
        mask = polygon_mask(outline, size)
        inside = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=max(1, round(sigma)), borderValue=0)
        weight = np.asarray(cv2.GaussianBlur(inside, (0, 0), sigma), np.float32) / np.float32(255)
        skin = mask - cv2.min(mask, polygon_mask(landmarks[list(LIPS_OUTER), :2] - low, size))  # an open mouth is no shadow
        region = (slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0])))
        target = np.ascontiguousarray(frame[region])
        paste_blend(target, relight(layer, target, np.asarray(skin, np.uint8)), weight)
        frame[region] = target


def _affine_of(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the map that turns the face upright and brings its box to the crop."""
    left, right = ((points[a] + points[b]) / 2 for a, b in EYE_CORNERS)
    x, y = (right - left) / max(float(np.linalg.norm(right - left)), 1e-6)
    upright = np.array([[x, y], [-y, x]])
    turned = points @ upright.T
    top, bottom = turned[list(BROWS), 1].min(), turned[:, 1].max()
    top -= FOREHEAD * (bottom - top)
    begin, end = turned[:, 0].min(), turned[:, 0].max()
    scale = np.diag([SIDE / max(end - begin, 1.0), SIDE / max(bottom - top, 1.0)])
    return np.hstack([scale @ upright, -(scale @ np.array([begin, top]))[:, None]])
