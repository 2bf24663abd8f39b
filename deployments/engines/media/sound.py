"""Sound of a user's file: as samples to analyse, and as pieces to carry into a new video, at the time at which the file plays it."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from deployments.engines.media.container import DEMUXERS, codec_name, open_media
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.probe import READABLE, probe, sniff_file
from deployments.engines.media.reader import Sound, audio_streams
from deployments.jobs.errors import MediaTooLarge, UnsupportedMedia

GAP_S = 0.01  # between two frames: shorter ones are rounding of time stamps, longer ones are silence that the file leaves out


def load_samples(path: Path, rate: int, limits: MediaLimits) -> npt.NDArray[np.float32]:
    """Decode the first audio track of a sound or video file, mixed down to one channel.

    Args:
        path: any file with sound.
        rate: Hz.
        limits: bounds on the file.

    Returns:
        float32, shape (samples,), -1..1. Sample 0 is time 0 of the file, whenever its sound begins.

    Raises:
        UnsupportedMedia: not a file that we read, damaged, or without sound.
        MediaTooLarge: over a limit.
    """
    media_type = _checked(path, limits)
    resampler = AudioResampler(format="flt", layout="mono", rate=rate)
    blocks: list[npt.NDArray[np.float32]] = []
    with open_media(path, media_type, limits) as container:
        stream = sound_stream(container)
        for frame in aligned_frames(container, stream, limits):
            blocks += [np.asarray(part.to_ndarray(), np.float32).ravel() for part in resampler.resample(frame)]
        blocks += [np.asarray(part.to_ndarray(), np.float32).ravel() for part in resampler.resample(None)] if blocks else []
    if not blocks:
        raise UnsupportedMedia("no sound can be decoded: encode the audio again, for example as WAV or AAC")
    return np.clip(np.concatenate(blocks), -1, 1).astype(np.float32)


def _checked(path: Path, limits: MediaLimits) -> str:
    media_type = sniff_file(path)
    if media_type not in DEMUXERS:
        raise UnsupportedMedia(f"{media_type} holds no sound: send {READABLE}, with an audio track")
    if not probe(path, limits).has_audio:
        raise UnsupportedMedia("the audio is a video without sound: send a file with an audio track")
    return media_type


def sound_stream(container: InputContainer) -> AudioStream:
    """Return the first audio track that we can decode.

    Raises:
        UnsupportedMedia: there is none.
    """
    streams = audio_streams(container)
    if not streams:
        raise UnsupportedMedia("the audio codec is not supported: encode it as WAV, MP3 or AAC")
    return streams[0]


def copies_exactly(stream: AudioStream) -> bool:
    """Whether the packets of a stream can go into an MP4 as they are without moving in time.

    AAC of an MP4 can. An MP3's decoder delay or a Matroska file's are written down in ways that an MP4 has not: copied, their sound
    would come some hundredths of a second late.
    """
    return codec_name(stream) == "aac" and "mov" in stream.container.format.name


def sound_pieces(container: InputContainer, stream: AudioStream, limits: MediaLimits) -> Iterator[tuple[float, Sound]]:
    """Yield a track in order, each piece with the time in seconds at which it begins: packets where they can be copied, else frames."""
    if not copies_exactly(stream):
        for frame in aligned_frames(container, stream, limits):
            yield float((frame.pts or 0) * (frame.time_base or 0)), Sound(stream.index, frame)
        return
    for packet in container.demux(stream):
        if packet.size:
            yield float((packet.pts or 0) * (packet.time_base or 0)), Sound(stream.index, packet)


def aligned_frames(container: InputContainer, stream: AudioStream, limits: MediaLimits) -> Iterator[AudioFrame]:
    """Decode a track from time 0 on without holes: what a file leaves out before or between its sound is silence.

    The padding behind the last sample of an MP4's track is cut off.

    Raises:
        MediaTooLarge: longer than the limits allow.
    """
    done = 0  # samples since time 0
    end_s = _end_s(stream)
    for packet in container.demux(stream):
        for frame in stream.decode(packet):
            rate = frame.sample_rate
            begin = done if frame.pts is None or frame.time_base is None else round(float(frame.pts * frame.time_base) * rate)
            if max(begin, done) + frame.samples > limits.max_duration_s * rate:
                raise MediaTooLarge(f"the media is longer than {limits.max_duration_s:g} seconds: shorten it")
            gap = begin - done
            if gap > (GAP_S * rate if done else 0):
                yield _numbered(_blank(frame, gap), done)
                done += gap
            left = frame.samples if end_s is None else min(frame.samples, round(end_s * rate) - done)
            if left > 0:
                yield _numbered(frame if left == frame.samples else _first(frame, left), done)
                done += left


def _end_s(stream: AudioStream) -> float | None:
    """Return when a track ends, where its container says so to the sample: an MP4 does, in its edit list."""
    if "mov" not in stream.container.format.name or not stream.duration or not stream.time_base:
        return None
    return float(((stream.start_time or 0) + stream.duration) * stream.time_base)


def _numbered(frame: AudioFrame, sample: int) -> AudioFrame:
    frame.time_base = Fraction(1, frame.sample_rate)
    frame.pts = sample
    return frame


def _blank(like: AudioFrame, samples: int) -> AudioFrame:
    """Return silence in the form of another frame."""
    middle = 128 if like.format.name.startswith("u8") else 0  # of unsigned samples
    plain = like.to_ndarray()
    return _like(like, np.full((plain.shape[0], samples * _interleaved(like)), middle, plain.dtype))


def _first(frame: AudioFrame, samples: int) -> AudioFrame:
    return _like(frame, np.ascontiguousarray(frame.to_ndarray()[:, : samples * _interleaved(frame)]))


def _interleaved(frame: AudioFrame) -> int:
    return 1 if frame.format.is_planar else len(frame.layout.channels)


def _like(frame: AudioFrame, values: npt.NDArray[Any]) -> AudioFrame:  # of whatever the format's samples are
    made = AudioFrame.from_ndarray(values, frame.format.name, frame.layout.name)
    made.sample_rate = frame.sample_rate
    return made
