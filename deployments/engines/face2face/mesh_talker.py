"""Has a face in a frame speak: no generator network, some milliseconds a frame on a CPU.

landmarks ─ rig ─ moved vertices ─┐
frame ─────── region ─────────────┴─ warp ─ inside of the mouth ─▶ in place
"""

from __future__ import annotations

from collections.abc import Sequence

from deployments.engines.face2face.mouth_interior import Donor, paint_interior, skin_light
from deployments.engines.face2face.mouth_rig import MouthRig, Shape
from deployments.engines.face2face.mouth_warp import MouthWarp
from deployments.engines.faces.align import Points
from deployments.engines.faces.geometry import VERTICES, CanonicalMesh
from deployments.engines.images import BgrImage


class MeshTalker:
    """Draws mouths. Read-only: threads may share one."""

    def __init__(self, mesh: CanonicalMesh) -> None:
        self.rig = MouthRig(mesh)
        self._warp = MouthWarp(mesh)

    def speak(self, frame: BgrImage, landmarks: Points, rest: Shape, donors: Sequence[Donor], opening: float, width: float) -> None:
        """Change the mouth of a frame, in place; nothing outside of the lower face is written.

        Args:
            frame: uint8 BGR.
            landmarks: (468 or more, 3), pixels.
            rest: the person's mouth at rest, as ``MouthRig.mouth_at_rest``.
            donors: insides of this mouth; may be empty.
            opening: 0 shut .. 1 as far as the jaw goes.
            width: -1 rounded .. 1 spread.
        """
        moved = self.rig.speak(landmarks, rest, opening, width)
        region = self._warp.region_of(landmarks, moved, frame.shape)
        if region is None:
            return
        before, after = landmarks[:VERTICES] - region.origin, moved - region.origin
        speaking = self._warp.warp(frame[region.slices], before, after)
        paint_interior(speaking, after, skin_light(frame, landmarks), donors)
        frame[region.slices] = speaking
