"""Frames and sound into an MP4 that every browser plays: H.264 4:2:0, index in front, colours and time stamps of the source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from deployments.engines.images import BgrImage
from deployments.engines.media.color import FrameConverter
from deployments.engines.media.container import codec_threads
from deployments.engines.media.probe import VideoTraits
from deployments.engines.media.reader import Sound, TimedFrame, passes_through

X264_OPTIONS = {"preset": "veryfast", "crf": "18"}  # 18: no loss that is seen; veryfast: four fifths of a job's time is x264 already
AAC_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000})
DEFAULT_FPS = Fraction(25)


class VideoWriter:
    """Writes one MP4. ``finish`` makes it whole; without it the file is worthless and the caller removes it."""

    def __init__(
        self,
        path: Path,
        traits: VideoTraits,
        size: tuple[int, int],
        audio: Sequence[AudioStream],
        threads: int,
        copies: Callable[[AudioStream], bool] = passes_through,
    ) -> None:
        self._output = av.open(path, "w", format="mp4", options={"movflags": "+faststart"})
        self._size = size
        self._converter = FrameConverter(traits.color)
        self._time_base = traits.time_base
        self._durations: dict[int, int] = {}  # of the frames inside the encoder, by time stamp
        self._video = self._add_video(traits, threads)
        self._audio: dict[int, AudioStream] = {stream.index: add_sound(self._output, stream, copy=copies(stream)) for stream in audio}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._finish()
        self._output.close()

    def write(self, item: TimedFrame | Sound) -> None:
        """Encode a frame, or mux a piece of sound."""
        if isinstance(item, TimedFrame):
            self._write_frame(item)
        else:
            mux_sound(self._output, self._audio[item.stream], item.data)

    def _write_frame(self, item: TimedFrame) -> None:
        frame = self._converter.from_bgr(_cropped(item.image, self._size), self._size)
        frame.pts = item.pts
        frame.time_base = self._time_base
        self._durations[item.pts] = item.duration
        self._mux_video(self._video.encode(frame))

    def _mux_video(self, packets: Iterable[Packet[VideoStream]]) -> None:
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts or 0, 0)  # x264 drops it, and the last frame's comes from nowhere else
            self._output.mux(packet)

    def _finish(self) -> None:
        self._mux_video(self._video.encode())
        for stream in self._audio.values():
            end_sound(self._output, stream)

    def _add_video(self, traits: VideoTraits, threads: int) -> VideoStream:
        stream = self._output.add_stream("libx264", rate=traits.info.fps or DEFAULT_FPS, options=dict(X264_OPTIONS))
        context = stream.codec_context
        context.width, context.height = self._size
        context.pix_fmt = "yuv420p"
        context.time_base = traits.time_base  # the source's ticks: a variable frame rate stays exactly what it was
        context.sample_aspect_ratio = traits.pixel_aspect
        context.thread_count = codec_threads(threads)
        context.colorspace = traits.color.matrix
        context.color_range = ColorRange.MPEG  # what FrameConverter makes
        context.color_primaries = traits.color.primaries
        context.color_trc = traits.color.transfer
        return stream


def add_sound(output: OutputContainer, stream: AudioStream, *, copy: bool) -> AudioStream:
    """Add a track like another to an MP4: for its packets, or as AAC for its decoded frames."""
    if copy:
        return output.add_stream_from_template(stream)
    rate = stream.rate if stream.rate in AAC_RATES else 48_000
    return output.add_stream("aac", rate=rate, options={"b": "192k"}, layout="mono" if stream.channels == 1 else "stereo")


def mux_sound(output: OutputContainer, stream: AudioStream, data: Packet[Any] | AudioFrame) -> None:
    """Write a packet or a decoded frame to a track that ``add_sound`` made."""
    if isinstance(data, Packet):
        data.stream = stream
        output.mux(data)
    else:
        output.mux(stream.encode(data))


def end_sound(output: OutputContainer, stream: AudioStream) -> None:
    """Write what the encoder of a track still holds."""
    if stream.codec_context.is_open:  # only one that we encode, and that had sound at all
        output.mux(stream.encode())


def _cropped(image: BgrImage, size: tuple[int, int]) -> BgrImage:
    """Cut the one line that makes an odd side even: scaling by a single pixel would blur the whole picture."""
    width, height = size
    if (image.shape[1] & ~1, image.shape[0] & ~1) == (width, height):
        return image[:height, :width]
    return image
