"""What any way of swapping a face offers, so that the engine need not know whether a mesh or a generator network draws it."""

from __future__ import annotations

from typing import Protocol, TypeVar

from deployments.engines.faces.align import Points
from deployments.engines.images import BgrImage

Handle = TypeVar("Handle")  # what a swapper makes of a source face: an atlas, an embedding; read-only, kept between jobs


class Swapper(Protocol[Handle]):
    """Draws one source face over target faces."""

    def prepare(self, image: BgrImage, landmarks: Points) -> Handle:
        """Turn a source face into what ``swap`` needs; called once a source picture.

        Args:
            image: uint8 BGR, shape (h, w, 3).
            landmarks: (478, 3), pixels of ``image``.
        """

    def swap(self, frame: BgrImage, landmarks: Points, source: Handle) -> None:
        """Draw the source over one face of a frame, in place, writing only around that face.

        Args:
            frame: uint8 BGR, shape (h, w, 3), changed.
            landmarks: (478, 3), pixels of ``frame``.
            source: from ``prepare``.
        """
