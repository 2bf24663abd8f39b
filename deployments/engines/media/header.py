"""What the beginning of an upload already tells, so that what will not be computed is refused before a job waits for it."""

from __future__ import annotations

from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import open_picture
from deployments.engines.media.probe import PICTURE_TYPES
from deployments.jobs.errors import UnsupportedMedia


def check_header(media_type: str, head: bytes, is_whole: bool, limits: MediaLimits) -> None:  # noqa: FBT001 -- positional as the port has it
    """Refuse a picture that no engine would decode.

    Args:
        media_type: by content; other than pictures are let pass.
        head: first bytes of the file.
        is_whole: whether that is all of it. Else only what is too large is refused: the rest may be cut off and not broken.
        limits: of pictures.

    Raises:
        MediaTooLarge: too many pixels, or a side too long.
        UnsupportedMedia: broken or animated.
    """
    if media_type not in PICTURE_TYPES:
        return
    try:
        with open_picture(head, limits):
            pass
    except UnsupportedMedia:
        if is_whole:
            raise
