"""Changing a video frame by frame, as a stream: nothing piles up in memory or on disk.

::

    decoder thread ──8 frames──▶ change, in the caller's thread ──8 frames──▶ encoder thread
         └───────────────── audio packets, untouched, in file order ─────────────────┘

FFmpeg, swscale and x264 let go of the interpreter while they work, so the three overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import av
from av.container import InputContainer

from deployments.engines.images import BgrImage
from deployments.engines.media.channel import Channel, ChannelClosed
from deployments.engines.media.container import open_media, video_stream
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import fit_size
from deployments.engines.media.probe import VideoTraits, probe_video
from deployments.engines.media.reader import Sound, TimedFrame, VideoReader, audio_streams
from deployments.engines.media.writer import VideoWriter
from deployments.jobs.errors import EngineFailed, UnsupportedMedia

MAX_QUEUED = 8  # frames and packets of sound
MAX_QUEUED_BYTES = 64 * 2**20  # per queue: eight frames of 1080p, two of 4K
MAX_UNREPORTED = 100  # pieces of sound in a row, two seconds of AAC: a caller who waits for a frame could not stop us in a file of sound

FrameChange = Callable[[BgrImage, int], BgrImage]
_Items = Channel[TimedFrame | Sound]


@dataclass(frozen=True, slots=True)
class FrameProgress:
    """How far a video is."""

    frame: int  # frames changed so far
    frames: int | None  # in all


def transform_video(
    source: Path,
    destination: Path,
    change: FrameChange,
    *,
    limits: MediaLimits,
    size: tuple[int, int] | None = None,
    threads: int = 0,
) -> Generator[FrameProgress, None, None]:
    """Write ``source`` with every frame changed to ``destination``, an H.264 MP4, yielding after each frame, and within long sound.

    Frames keep their time stamps, the video its length and its colour tags, audio its packets (codecs that MP4 cannot hold become
    AAC). Rotation is applied to the pixels. The file appears under its name once it is whole, when the generator is exhausted;
    closing the generator before stops all threads and removes what was written.

    Args:
        source: any video that ``probe`` takes.
        destination: in an existing folder; replaced when it exists.
        change: gets an upright uint8 BGR frame at the source's size and its number from 0, returns one of the same shape. Called in
            the caller's thread, in order; it may write into the frame.
        limits: bounds on the source.
        size: (width, height) in even pixels that frames are scaled to after ``change``; None: the source's size, odd sides less one.
        threads: of the decoder and of the encoder each; 0: one per core, at most ``MAX_THREADS``.

    Raises:
        UnsupportedMedia: not a video that we read, or damaged.
        MediaTooLarge: over a limit.
    """
    traits = probe_video(source, limits)
    size = size or fit_size(traits.info.width, traits.info.height, None, even=True)
    partial = destination.with_name(f".{destination.name}.partial")
    try:
        with open_media(source, traits.info.media_type, limits) as container:
            reader = _build_reader(container, traits, limits, threads)
            writer = VideoWriter(partial, traits, size, audio_streams(container), threads)
            yield from _pump(reader, change, writer, traits)
        partial.replace(destination)
    finally:
        partial.unlink(missing_ok=True)


def read_frames(source: Path, traits: VideoTraits, limits: MediaLimits, threads: int = 0) -> Generator[BgrImage, None, None]:
    """Decode a video's frames in order: upright uint8 BGR, all of the size that ``probe_video`` found.

    Raises:
        UnsupportedMedia: damaged.
        MediaTooLarge: over a limit.
    """
    with open_media(source, traits.info.media_type, limits) as container:
        for item in _build_reader(container, traits, limits, threads):
            if isinstance(item, TimedFrame):
                yield item.image


def _build_reader(container: InputContainer, traits: VideoTraits, limits: MediaLimits, threads: int) -> VideoReader:
    stream = video_stream(container)
    if stream is None:
        raise UnsupportedMedia("the file holds no moving pictures: send a video")
    return VideoReader(container, stream, traits, limits, threads)


def _pump(reader: VideoReader, change: FrameChange, writer: VideoWriter, traits: VideoTraits) -> Iterator[FrameProgress]:
    capacity = queue_capacity(traits)
    decoded: _Items = Channel(capacity)
    changed: _Items = Channel(capacity)
    done = unreported = 0
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="video") as pool:
        try:
            pool.submit(_decode, reader, decoded)
            encoding = pool.submit(encode, changed, writer)
            for item in decoded:
                if isinstance(item, Sound):
                    changed.put(item)
                    unreported += 1
                else:
                    changed.put(replace(item, image=change(item.image, done)))
                    done += 1
                if isinstance(item, TimedFrame) or unreported == MAX_UNREPORTED:
                    unreported = 0
                    yield FrameProgress(done, traits.info.frames)
            changed.close()
            encoding.result()
        finally:  # an error, or a closed generator: release both threads from where they wait
            decoded.close(ChannelClosed())
            changed.close(ChannelClosed())


def _decode(reader: VideoReader, decoded: _Items) -> None:
    with decoded:
        for item in reader:
            decoded.put(item)


def queue_capacity(traits: VideoTraits) -> int:
    """Return how many frames of a video may wait between two threads."""
    return max(2, min(MAX_QUEUED, MAX_QUEUED_BYTES // (traits.info.width * traits.info.height * 3)))


def encode(items: Channel[TimedFrame | Sound], writer: VideoWriter) -> None:
    """Write what comes through a channel until its end; closes the channel whatever happens.

    Raises:
        EngineFailed: the encoder or the muxer refuses.
    """
    with items:
        try:
            with writer:
                for item in items:
                    writer.write(item)
        except av.FFmpegError as error:
            raise EngineFailed("the video could not be encoded") from error
