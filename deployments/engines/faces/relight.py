"""Gives the source's texture the light of the target: slow changes of colour from the target, detail from the source."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from deployments.engines.images import BgrImage

GRID_PX = 64  # light changes slowly: a small picture holds all of it
SPREAD = 0.25  # sigma that parts light from detail, in sides of the face's box
GAIN_RANGE = (0.55, 1.35)  # of the source's detail; a free quotient posterises dark sources on bright targets
CONTRAST_RANGE = (0.45, 1.0)
CONTRAST_MARGIN = 1.15  # how much more contrast than the target the source may keep; it never gets more than its own
COLOUR_MARGIN = 1.3  # and more colour: only a target that is nearly grey takes colour away
LUMA = np.array([0.114, 0.587, 0.299], np.float32)  # of blue, green, red; ITU-R BT.601
BLACK = 6.0  # added to both sides of the quotient: noise in the dark must not become gain

Small = npt.NDArray[np.float32]  # (GRID_PX, GRID_PX, 3), 0..255


def relight(texture: BgrImage, target: BgrImage, mask: npt.NDArray[np.uint8]) -> BgrImage:
    """Return the texture under the target's light.

    Args:
        texture: uint8 BGR, shape (h, w, 3), the source drawn in the target's pose.
        target: uint8 BGR, same shape, what it will cover.
        mask: uint8, any size: where the texture will be drawn, 0..255. Hair of either face is no light.
    """
    weight = np.asarray(_small(mask) / np.float32(255) + np.float32(1e-4), np.float32)
    source, goal = _small(texture).astype(np.float32), _small(target).astype(np.float32)
    source_light, goal_light = _light(source, weight), _light(goal, weight)
    gain = np.asarray(np.clip((goal_light + BLACK) / (source_light + BLACK), *GAIN_RANGE), np.float32)
    gain *= np.float32(_contrast_limit((source - source_light) * gain, goal - goal_light, weight))
    colours = _colour_limit((source - source_light) * gain, goal - goal_light, weight)
    # colours @ (texture - light) + goal's light, arranged so that only one product runs at full size.
    offset = goal_light - (source_light * gain) @ colours.T
    size = texture.shape[1::-1]
    scaled = cv2.multiply(texture, cv2.resize(gain, size, interpolation=cv2.INTER_LINEAR), dtype=cv2.CV_32F)
    lit = cv2.add(cv2.transform(scaled, colours), cv2.resize(offset, size, interpolation=cv2.INTER_LINEAR), dtype=cv2.CV_8U)
    return np.asarray(lit, np.uint8)


def _small(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, (GRID_PX, GRID_PX), interpolation=cv2.INTER_AREA), np.uint8)


def _light(image: Small, weight: npt.NDArray[np.float32]) -> Small:
    """Blur within the mask only: hair and background are no light."""
    sigma = GRID_PX * SPREAD
    total = cv2.GaussianBlur(image * weight[..., None], (0, 0), sigma)
    return np.asarray(total / cv2.GaussianBlur(weight, (0, 0), sigma)[..., None], np.float32)


def _contrast_limit(detail: Small, goal: Small, weight: npt.NDArray[np.float32]) -> float:
    """One factor that keeps the source's contrast near the target's."""
    return float(np.clip((_deviation(goal, weight) * CONTRAST_MARGIN + 4) / (_deviation(detail, weight) + 1e-3), *CONTRAST_RANGE))


def _colour_limit(detail: Small, goal: Small, weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The 3x3 matrix that takes as much colour out of the source's detail as the target lacks: all of it in a black and white one."""
    own, other = (_deviation(part - (part @ LUMA)[..., None], weight) for part in (detail, goal))
    share = np.float32(np.clip((other * COLOUR_MARGIN + 0.5) / (own + 1e-3), 0, 1))
    return share * np.eye(3, dtype=np.float32) + (1 - share) * np.tile(LUMA, (3, 1))


def _deviation(detail: Small, weight: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt((detail**2 * weight[..., None]).sum() / (3 * weight.sum())))
