"""A new video out of frames as they are drawn and of the sound of a file.

::

    frames, drawn in the caller's thread ──8 frames──▶ encoder thread
    sound of the file, as far as the frames are ───────┘
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.reformatter import ColorRange

from deployments.engines.images import BgrImage
from deployments.engines.media.channel import Channel, ChannelClosed
from deployments.engines.media.color import BT709, HD_HEIGHT, SMPTE170M, VideoColor
from deployments.engines.media.container import open_media
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.probe import MediaInfo, VideoTraits, sniff_file
from deployments.engines.media.reader import Sound, TimedFrame
from deployments.engines.media.sound import copies_exactly, sound_pieces, sound_stream
from deployments.engines.media.video import FrameProgress, encode, queue_capacity
from deployments.engines.media.writer import VideoWriter, add_sound, end_sound, mux_sound

Draw = Callable[[int], BgrImage]  # the frame of a number, from 0 on


def fixed_rate(size: tuple[int, int], fps: Fraction, like: VideoTraits | None = None) -> VideoTraits:
    """Describe a video of upright frames, one every tick.

    Args:
        size: (width, height) of the drawn frames, pixels.
        fps: frames a second.
        like: the video that the frames come from, for its colours and the shape of its pixels; None: what players assume.
    """
    plain = VideoColor(BT709 if size[1] >= HD_HEIGHT else SMPTE170M, int(ColorRange.MPEG))
    info = MediaInfo("video", "video/mp4", *size, fps=fps)
    return VideoTraits(info, 0, like.color if like else plain, 1 / fps, like.pixel_aspect if like else Fraction(1))


def compose_video(
    draw: Draw,
    frames: int,
    sound: Path,
    destination: Path,
    *,
    traits: VideoTraits,
    size: tuple[int, int],
    limits: MediaLimits,
    threads: int = 0,
) -> Generator[FrameProgress, None, None]:
    """Write drawn frames with the sound of a file, as an H.264 MP4, yielding after each frame.

    Sound keeps every sample in its place: AAC of an MP4 is copied, anything else becomes AAC. The file appears under its name once it is
    whole, when the generator is exhausted; closing the generator before stops all threads and removes what was written.

    Args:
        draw: called in the caller's thread, in order, once for each number; returns uint8 BGR of the traits' size.
        frames: how many.
        sound: any file with sound; its first audio track is taken whole.
        destination: in an existing folder; replaced when it exists.
        traits: from ``fixed_rate``, or of the video that the frames come from.
        size: (width, height) in even pixels that frames are scaled to.
        limits: bounds on the sound.
        threads: of the encoder; 0: one per core.

    Raises:
        UnsupportedMedia: the sound is none that we read, or damaged.
        MediaTooLarge: it is over a limit.
    """
    partial = destination.with_name(f".{destination.name}.partial")
    try:
        with open_media(sound, sniff_file(sound), limits) as container:
            stream = sound_stream(container)
            writer = VideoWriter(partial, traits, size, [stream], threads, copies=copies_exactly)
            yield from _pump(draw, frames, _Sound(container, limits), writer, traits)
        partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)


def write_silent(
    draw: Draw, frames: int, destination: Path, drawn_size: tuple[int, int], size: tuple[int, int], fps: Fraction, threads: int = 0
) -> None:
    """Write drawn frames without sound as an H.264 MP4; arguments as those of ``compose_video``."""
    with VideoWriter(destination, fixed_rate(drawn_size, fps), size, [], threads) as writer:
        for number in range(frames):
            writer.write(TimedFrame(draw(number), number, 1))


def dub_video(video: Path, sound: Path, destination: Path, limits: MediaLimits) -> None:
    """Give an MP4 the sound of another file, as an MP4; its pictures are copied as they are.

    Args:
        video: an MP4 of a known origin: no limits are asked of it.
        sound: any file with sound; its first audio track is taken whole.
        destination: in an existing folder; replaced when it exists.
        limits: bounds on the sound.

    Raises:
        UnsupportedMedia: a file is damaged.
        MediaTooLarge: the sound is over a limit.
    """
    partial = destination.with_name(f".{destination.name}.partial")
    try:
        with (
            open_media(video, sniff_file(video), limits) as pictures,
            open_media(sound, sniff_file(sound), limits) as container,
            av.open(partial, "w", format="mp4", options={"movflags": "+faststart"}) as output,
        ):
            stream = sound_stream(container)
            shown, pieces = pictures.streams.video[0], _Sound(container, limits)
            copied = output.add_stream_from_template(shown)  # first: some players take the first track for the main one
            heard = add_sound(output, stream, copy=copies_exactly(stream))
            for packet in pictures.demux(shown):
                if packet.dts is None:  # the last one, which only flushes decoders
                    continue
                for piece in pieces.until(float(packet.dts * packet.time_base)):
                    mux_sound(output, heard, piece.data)
                packet.stream = copied
                output.mux(packet)
            for piece in pieces.until(float("inf")):
                mux_sound(output, heard, piece.data)
            end_sound(output, heard)
        partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)


class _Sound:
    """The sound of a file, taken as far as the pictures are."""

    def __init__(self, container: InputContainer, limits: MediaLimits) -> None:
        self._pieces = sound_pieces(container, sound_stream(container), limits)
        self._next: tuple[float, Sound] | None = next(self._pieces, None)

    def until(self, time_s: float) -> Iterator[Sound]:
        while self._next is not None and self._next[0] <= time_s:
            yield self._next[1]
            self._next = next(self._pieces, None)


def _pump(draw: Draw, frames: int, sound: _Sound, writer: VideoWriter, traits: VideoTraits) -> Iterator[FrameProgress]:
    fps = traits.info.fps or Fraction(25)
    drawn: Channel[TimedFrame | Sound] = Channel(queue_capacity(traits))
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="video") as pool:
        try:
            encoding = pool.submit(encode, drawn, writer)
            for number in range(frames):
                for piece in sound.until(float(number / fps)):
                    drawn.put(piece)
                drawn.put(TimedFrame(draw(number), number, 1))
                yield FrameProgress(number + 1, frames)
            for piece in sound.until(float("inf")):
                drawn.put(piece)
            drawn.close()
            encoding.result()
        finally:  # an error, or a closed generator: release the encoder from where it waits
            drawn.close(ChannelClosed())
