"""Opening a user's file with FFmpeg: only known demuxers and decoders, only the file itself.

Left alone, FFmpeg follows what a file says: a playlist named .mp4 fetched URLs of our network and read other local files.
The whitelists stop that (an HLS, ffconcat, SDP or DASH text never reaches its demuxer).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

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


@contextmanager
def open_media(path: Path, media_type: str, limits: MediaLimits) -> Iterator[InputContainer]:
    """Open a file of a sniffed type for demuxing, and turn every FFmpeg error inside the block into one of ours.

    Raises:
        UnsupportedMedia: FFmpeg cannot read it; also for errors while the block demuxes, decodes or encodes.
    """
    options = {
        "format_whitelist": DEMUXERS[media_type],
        "protocol_whitelist": "file",
        "codec_whitelist": _DECODERS,
        "max_pixels": str(2 * limits.max_video_pixels),  # FFmpeg counts padded lines, hence twice; our own check is the exact one
    }
    try:
        # Titles in a file may be in any encoding: a strict reading would fail on them.
        with av.open(path, "r", options=options, metadata_errors="replace") as container:
            yield container
    except av.FFmpegError as error:
        raise UnsupportedMedia(
            f"the file cannot be read to its end as {media_type}: it is cut off or damaged, encode or send it again"
        ) from error


def video_stream(container: InputContainer) -> VideoStream | None:
    """Return the first stream of moving pictures; the cover picture of a song is none."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None
