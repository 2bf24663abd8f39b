"""Opening a user's file with FFmpeg: only known demuxers and decoders, only the file itself.

Left alone, FFmpeg follows what a file says: a playlist named .mp4 fetched URLs of our network and read other local files.
The whitelists stop that (an HLS, ffconcat, SDP or DASH text never reaches its demuxer). What an MP4 declares is checked before FFmpeg
builds its index (``iso_boxes``), and what the tracks of a Matroska file expand to before it reads frames (``ebml_tracks``). Every
decoder refuses frames over the limit before it takes memory for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import av
from av.audio.stream import AudioStream
from av.codec import CodecContext
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from deployments.engines.media.ebml_tracks import MaskedFile, check_tracks
from deployments.engines.media.iso_boxes import MAX_TRACKS, check_index
from deployments.engines.media.limits import MediaLimits
from deployments.jobs.errors import UnsupportedMedia

DEMUXERS = {  # sniffed media type -> the one demuxer that may read it
    "video/mp4": "mov",
    "video/quicktime": "mov",
    "audio/mp4": "mov",
    "video/webm": "matroska",
    "video/x-matroska": "matroska",
    "video/x-msvideo": "avi",
    "image/gif": "gif",
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/flac": "flac",
}
VIDEO_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "gif", "prores"})
PCM_CODECS = frozenset({"pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le"})
AUDIO_CODECS = frozenset({"aac", "mp3", "opus", "vorbis", "flac", "alac", "ac3", "eac3"}) | PCM_CODECS
# FFmpeg knows decoders by name, and some codecs by the name of a library.
_DECODERS = ",".join(sorted(VIDEO_CODECS | AUDIO_CODECS | {"libdav1d", "libvpx", "libvpx-vp9", "libopus", "libvorbis", "mp3float"}))

MAX_THREADS = 8  # of a decoder or encoder: each holds frames of its own, 12 MB at 4K; from here on the swap is the slower part


@contextmanager
def open_media(path: Path, media_type: str, limits: MediaLimits) -> Iterator[InputContainer]:
    """Open a file of a sniffed type for demuxing, and turn every FFmpeg error inside the block into one of ours.

    Raises:
        UnsupportedMedia: FFmpeg cannot read it; also for errors while the block demuxes, decodes or encodes.
        MediaTooLarge: the index of an MP4, or the tracks of a Matroska file, are over the limits.
    """
    if DEMUXERS[media_type] == "mov":
        check_index(path, limits)
    masked_places = check_tracks(path) if DEMUXERS[media_type] == "matroska" else ()
    # FFmpeg counts the lines that a codec pads, hence twice: our own check of each frame is the exact one.
    frame_bound = {"max_pixels": str(2 * limits.max_video_pixels)}
    options = {
        "format_whitelist": DEMUXERS[media_type],
        "protocol_whitelist": "file",
        "codec_whitelist": _DECODERS,
        "max_streams": str(MAX_TRACKS),
        **frame_bound,  # for the decoders that look at the first frames while the file is opened
    }
    try:
        # Titles in a file may be in any encoding: a strict reading would fail on them.
        with (
            _input(path, masked_places) as file,
            av.open(file, "r", options=options, metadata_errors="replace") as container,
        ):
            for stream in container.streams.video:
                if codec_name(stream) is not None:
                    stream.codec_context.options = frame_bound  # for the decoder itself: a stream may grow on its way
            yield container
    except av.FFmpegError as error:
        raise UnsupportedMedia(
            f"the file cannot be read to its end as {media_type}: it is cut off or damaged, encode or send it again"
        ) from error


@contextmanager
def _input(path: Path, masked_places: tuple[int, ...]) -> Iterator[Any]:  # PyAV's type asks for IO[bytes], it uses read, seek and tell
    """Give what PyAV opens: the path, or where something has to be hidden, a file of Python's."""
    if not masked_places:
        yield path
        return
    with path.open("rb") as file:
        yield MaskedFile(file, masked_places)


def codec_name(stream: VideoStream | AudioStream) -> str | None:
    """Return the name of a stream's codec, or None where FFmpeg has no decoder for it."""
    context = cast("CodecContext | None", stream.codec_context)  # PyAV's types leave the None out
    return context.codec.canonical_name if context else None


def codec_threads(threads: int) -> int:
    """Return how many threads a decoder or encoder gets: what was asked for, or one per core for 0, and ``MAX_THREADS`` at most."""
    return min(threads or os.cpu_count() or 1, MAX_THREADS)


def video_stream(container: InputContainer) -> VideoStream | None:
    """Return the first stream of moving pictures; the cover picture of a song is none."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None
