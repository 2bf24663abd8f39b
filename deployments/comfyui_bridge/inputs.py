"""Bringing a job's media to the backend that runs it, and to no other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from deployments.comfyui_bridge.backend import Backend
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import load_picture
from deployments.engines.media.probe import probe
from deployments.jobs.errors import UnsupportedMedia
from deployments.jobs.ports import LocalMedia

EXTENSIONS: Mapping[str, str] = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "video/x-matroska": "mkv",
    "video/x-msvideo": "avi",
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/flac": "flac",
    "audio/mp4": "m4a",
}
TAKEN: Mapping[str, tuple[str, ...]] = {  # kind of an input -> kinds of media that it takes
    "image": ("picture",),
    "mask": ("picture",),
    "audio": ("audio", "video"),  # the sound of a video
    "video": ("video",),
}


async def send_input(backend: Backend, media: LocalMedia, kind: str, place: str, limits: MediaLimits | None) -> str:
    """Check a file by decoding it, put it on the backend and return the name that a node loads it by.

    The name is the content's hash: sending it again changes nothing, and no client's name becomes a path. Without ``limits`` it is not
    checked: somebody has done that before.

    Raises:
        UnsupportedMedia: not what the input takes.
        MediaTooLarge: over a limit.
        BackendLost: the backend does not take it.
    """
    name = f"{media.sha256}.{EXTENSIONS.get(media.media_type, 'bin')}"
    if name not in backend.uploaded:
        if limits is not None:
            await asyncio.to_thread(_check, media, kind, place, limits)
        backend.uploaded[name] = await backend.http.upload(media.path, name, media.media_type)
    return backend.uploaded[name]


def _check(media: LocalMedia, kind: str, place: str, limits: MediaLimits) -> None:
    # The server stores whatever it is sent without a look, and a node that cannot read it fails with a traceback.
    found = probe(media.path, limits).kind
    is_animation = media.media_type == "image/gif" and kind == "image"  # a video to us, and LoadImage reads it
    if found not in TAKEN.get(kind, ("picture", "video", "audio")) and not is_animation:
        raise UnsupportedMedia(f"the input {place} takes a file of kind {kind}, and was given {media.media_type}")
    if found == "picture":
        load_picture(media.path, limits)
