"""What a file is, by its content: kind, size, length. Limits are checked here, before anything is decoded in full."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from deployments.engines.media.color import VideoColor
from deployments.engines.media.container import AUDIO_CODECS, DEMUXERS, VIDEO_CODECS, codec_name, open_media, video_stream
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import picture_size
from deployments.jobs.errors import MediaTooLarge, UnsupportedMedia
from deployments.jobs.media_types import SNIFF_BYTES, sniff

PICTURE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp"})
READABLE = "PNG, JPEG, WebP, GIF, MP4, MOV, WebM, Matroska, AVI, WAV, MP3, OGG or FLAC"


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a file holds."""

    kind: Literal["picture", "video", "audio"]
    media_type: str
    width: int  # pixels as displayed, after rotation; 0 for audio
    height: int
    frames: int | None = None  # of a video, counted packet by packet
    fps: Fraction | None = None  # average; None where the container does not say
    duration_s: float | None = None  # None for pictures
    has_audio: bool = False


@dataclass(frozen=True, slots=True)
class VideoTraits:
    """What re-encoding a video needs to know beyond ``MediaInfo``."""

    info: MediaInfo
    rotation: int  # degrees counter-clockwise that turn the coded frame upright: 0, 90, 180 or 270
    color: VideoColor
    time_base: Fraction  # seconds per tick of the frames' time stamps
    pixel_aspect: Fraction  # of an upright pixel, width / height


def probe(path: Path, limits: MediaLimits) -> MediaInfo:
    """Find out what a file holds. A GIF is a video; MP4 and WebM files without moving pictures are audio.

    Reads a video to its end (demuxing, not decoding) because declared lengths lie.

    Raises:
        UnsupportedMedia: not a format, codec or file that we read.
        MediaTooLarge: over a limit.
    """
    media_type = sniff_file(path)
    if path.stat().st_size > limits.max_bytes:
        raise MediaTooLarge(f"the file is longer than {limits.max_bytes // 2**20} MiB: shorten it or encode it smaller")
    if media_type in PICTURE_TYPES:
        width, height = picture_size(path, limits)
        return MediaInfo("picture", media_type, width, height)
    if media_type not in DEMUXERS:
        raise UnsupportedMedia(f"{media_type} is not supported: send {READABLE}")
    with open_media(path, media_type, limits) as container:
        stream = video_stream(container)
        return _probe_audio(container, media_type, limits) if stream is None else _probe_video(container, stream, media_type, limits).info


def probe_video(path: Path, limits: MediaLimits) -> VideoTraits:
    """Probe a file that has to be a video.

    Raises:
        UnsupportedMedia: not a video that we read.
        MediaTooLarge: over a limit.
    """
    media_type = sniff_file(path)
    if media_type not in DEMUXERS:
        raise UnsupportedMedia(f"{media_type} is not a video: send GIF, MP4, MOV, WebM, Matroska or AVI")
    with open_media(path, media_type, limits) as container:
        stream = video_stream(container)
        if stream is None:
            raise UnsupportedMedia("the file holds no moving pictures: send a video")
        return _probe_video(container, stream, media_type, limits)


def sniff_file(path: Path) -> str:
    """Return a file's media type by its first bytes.

    Raises:
        UnsupportedMedia: they show none that we know.
    """
    with path.open("rb") as file:
        media_type = sniff(file.read(SNIFF_BYTES))
    if media_type is None:
        raise UnsupportedMedia(f"the content is of no known media type: send {READABLE}")
    return media_type


def _probe_video(container: InputContainer, stream: VideoStream, media_type: str, limits: MediaLimits) -> VideoTraits:
    _check_codec(stream, VIDEO_CODECS, "video", "H.264")
    check_frame_size(stream.codec_context.width, stream.codec_context.height, limits)
    _check_duration(_declared_s(container, stream), limits)
    tally, first = _read_through(container, stream, limits)
    if first is None:
        raise UnsupportedMedia("no frame of the video can be decoded: encode it again, for example as H.264 in MP4")
    check_frame_size(first.width, first.height, limits)
    rotation = round(first.rotation / 90) % 4 * 90
    turned = rotation in (90, 270)
    width, height = (first.height, first.width) if turned else (first.width, first.height)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    info = MediaInfo(
        kind="video",
        media_type=media_type,
        width=width,
        height=height,
        frames=tally.packets,
        fps=stream.average_rate or stream.guessed_rate,
        duration_s=tally.duration_s or _declared_s(container, stream),
        has_audio=bool(container.streams.audio),
    )
    return VideoTraits(info, rotation, VideoColor.of(first), stream.time_base or Fraction(1, 90_000), 1 / aspect if turned else aspect)


def _probe_audio(container: InputContainer, media_type: str, limits: MediaLimits) -> MediaInfo:
    if not container.streams.audio:
        raise UnsupportedMedia("the file holds neither pictures nor sound: send a video, a picture or audio")
    stream = container.streams.audio[0]
    _check_codec(stream, AUDIO_CODECS, "audio", "AAC")
    _check_duration(_declared_s(container, stream), limits)
    tally = _Tally(limits, max_packets=None)
    for packet in container.demux(stream):
        tally.add(packet)
    duration_s = tally.duration_s or _declared_s(container, stream)
    return MediaInfo("audio", media_type.replace("video/", "audio/"), 0, 0, duration_s=duration_s, has_audio=True)


def _read_through(container: InputContainer, stream: VideoStream, limits: MediaLimits) -> tuple[_Tally, VideoFrame | None]:
    """Count all packets, those of sound too; decode only up to the first frame, which shows rotation and colour."""
    tally = _Tally(limits, max_packets=limits.max_frames)
    sounds = {sound.index: _Tally(limits, max_packets=None) for sound in container.streams.audio}
    stream.thread_count = 1  # frame threads would swallow a packet each before the first frame comes out
    first: VideoFrame | None = None
    for packet in container.demux(stream, *container.streams.audio):
        if packet.stream.index in sounds:
            sounds[packet.stream.index].add(packet)
            continue
        tally.add(packet)
        if first is None:
            first = next(iter(stream.decode(packet)), None)
    return tally, first


class _Tally:
    """Counts packets and the time they span, and stops at the limits."""

    def __init__(self, limits: MediaLimits, max_packets: int | None) -> None:
        self._limits = limits
        self._max_packets = max_packets
        self.packets = 0
        self._start_s: float | None = None
        self._end_s = 0.0

    @property
    def duration_s(self) -> float:
        return 0.0 if self._start_s is None else self._end_s - self._start_s

    def add(self, packet: Packet[Any]) -> None:
        if not packet.size or packet.is_discard:  # the flush packet at the end, or one that an edit list cuts away
            return
        self.packets += 1
        if self._max_packets is not None and self.packets > self._max_packets:
            raise MediaTooLarge(f"the video has more than {self._max_packets} frames: shorten it or lower its frame rate")
        if packet.pts is not None and packet.time_base is not None:
            start_s = float(packet.pts * packet.time_base)
            self._start_s = start_s if self._start_s is None else min(self._start_s, start_s)
            self._end_s = max(self._end_s, start_s + float((packet.duration or 0) * packet.time_base))
        _check_duration(self.duration_s, self._limits)


def check_frame_size(width: int, height: int, limits: MediaLimits) -> None:
    """Refuse a frame that would not fit in our queues.

    Raises:
        MediaTooLarge: over the limits.
    """
    if width * height > limits.max_video_pixels or max(width, height) > limits.max_side_px:
        allowed = f"{limits.max_video_pixels / 1e6:.1f} million pixels a frame and {limits.max_side_px} pixels a side"
        raise MediaTooLarge(f"the video is {width}x{height}: scale it to at most {allowed}")


def _check_codec(stream: VideoStream | AudioStream, allowed: frozenset[str], what: str, advice: str) -> None:
    codec = codec_name(stream)
    if codec not in allowed:
        raise UnsupportedMedia(f"the {what} codec {codec or 'of this file'} is not supported: encode it as {advice}")


def _check_duration(duration_s: float, limits: MediaLimits) -> None:
    if duration_s > limits.max_duration_s:
        raise MediaTooLarge(f"the media is longer than {limits.max_duration_s:g} seconds: shorten it")


def _declared_s(container: InputContainer, stream: VideoStream | AudioStream) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else 0.0  # FFmpeg's global unit is the microsecond
