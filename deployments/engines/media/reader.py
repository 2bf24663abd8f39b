"""A video as a stream of upright BGR frames and untouched audio packets, in file order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from deployments.engines.images import BgrImage
from deployments.engines.media.color import FrameConverter
from deployments.engines.media.container import AUDIO_CODECS, codec_name, codec_threads
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import resize
from deployments.engines.media.probe import VideoTraits, check_frame_size
from deployments.jobs.errors import MediaTooLarge

# What every browser plays from an MP4. Anything else that we decode becomes AAC.
MP4_AUDIO_CODECS = frozenset({"aac", "mp3", "opus", "flac", "alac", "ac3", "eac3"})
MP4_MIN_MP3_RATE = 16_000  # Hz: below lies MPEG 2.5, which is no ISO standard and which the MP4 muxer refuses


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """One frame of a video and when it is shown, in ticks of ``VideoTraits.time_base``."""

    image: BgrImage
    pts: int
    duration: int  # in the same ticks; 0 where the file does not say


@dataclass(frozen=True, slots=True)
class Sound:
    """A piece of one audio stream: a packet to pass through, or a decoded frame to encode again."""

    stream: int  # index of the input stream
    data: Packet[Any] | AudioFrame  # PyAV's type of a demuxed packet depends on how many kinds of streams were asked for


def audio_streams(container: InputContainer) -> list[AudioStream]:
    """Return the audio streams that we can carry over."""
    return [stream for stream in container.streams.audio if codec_name(stream) in AUDIO_CODECS]


def passes_through(stream: AudioStream) -> bool:
    """Whether an MP4 holds this stream as it is."""
    codec = codec_name(stream)
    return codec in MP4_AUDIO_CODECS and (codec != "mp3" or stream.rate >= MP4_MIN_MP3_RATE)


class VideoReader:
    """Demuxes and decodes one open file."""

    def __init__(self, container: InputContainer, stream: VideoStream, traits: VideoTraits, limits: MediaLimits, threads: int) -> None:
        self._container = container
        self._stream = stream
        self._traits = traits
        self._limits = limits
        self._converter = FrameConverter(traits.color)
        self._clock = _Clock(traits)
        self._frames = 0
        stream.thread_type = "AUTO"
        stream.thread_count = codec_threads(threads)

    def __iter__(self) -> Iterator[TimedFrame | Sound]:
        """Yield frames and sound as they come in the file.

        Raises:
            MediaTooLarge: more or larger frames than the limits allow.
        """
        for packet in self._container.demux(self._stream, *audio_streams(self._container)):
            stream = packet.stream
            if not isinstance(stream, AudioStream):
                yield from map(self._timed, self._stream.decode(packet))
            elif not passes_through(stream):
                yield from (Sound(stream.index, frame) for frame in stream.decode(packet))
            elif packet.size:  # the last packet of a stream is empty and only flushes decoders
                yield Sound(stream.index, packet)

    def _timed(self, frame: VideoFrame) -> TimedFrame:
        self._frames += 1
        if self._frames > self._limits.max_frames:
            raise MediaTooLarge(f"the video has more than {self._limits.max_frames} frames: shorten it or lower its frame rate")
        check_frame_size(frame.width, frame.height, self._limits)
        return TimedFrame(self._upright(frame), self._clock.tick(frame.pts), frame.duration or 0)

    def _upright(self, frame: VideoFrame) -> BgrImage:
        turned = np.rot90(self._converter.to_bgr(frame), self._traits.rotation // 90)
        # A stream may change its size on the way: every frame after the first is brought to the first one's.
        return resize(np.ascontiguousarray(turned), (self._traits.info.width, self._traits.info.height))


class _Clock:
    """Time stamps that always rise, as an encoder needs them. Variable frame rates are kept."""

    def __init__(self, traits: VideoTraits) -> None:
        fps = traits.info.fps or Fraction(25)
        self._step = max(1, round(1 / (fps * traits.time_base)))
        self._last: int | None = None

    def tick(self, pts: int | None) -> int:
        if pts is None:
            pts = 0 if self._last is None else self._last + self._step
        self._last = pts if self._last is None else max(pts, self._last + 1)
        return self._last
