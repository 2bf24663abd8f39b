"""The label that people hear: before generated sound, short-long-short-short, as GB 45438-2025 has it beside a spoken hint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from deployments.engines.marking.visible import OWN
from deployments.engines.media.container import open_media
from deployments.engines.media.sound import sound_stream
from deployments.jobs.errors import MarkingFailed, ServiceError

UNIT_S = 0.12  # a short tone, and the pause between two
RHYTHM = (1, 3, 1, 1)  # in units
TONE_HZ = 880.0
LOUDNESS = 0.25  # of full scale
FADE_S = 0.008  # at both ends of a tone, or it clicks
PAUSE_S = 0.35  # before the sound itself
FORMATS = {  # media type -> container, codec, what it takes, bit rate
    "audio/wav": ("wav", "pcm_s16le", "s16", None),
    "audio/mpeg": ("mp3", "libmp3lame", "s16p", 192_000),
    "audio/flac": ("flac", "flac", "s16", None),
    "audio/mp4": ("mp4", "aac", "fltp", 192_000),
}


def label_sound(path: Path, media_type: str) -> None:
    """Put the rhythm before a sound, which is encoded once more for it.

    Raises:
        MarkingFailed: it cannot be decoded.
    """
    container, codec, sample_format, bit_rate = FORMATS[media_type]
    made = path.with_name(f".labelled-{path.name}")
    try:
        with open_media(path, media_type, OWN) as source, av.open(str(made), "w", format=container) as target:
            stream = sound_stream(source)
            layout, rate = stream.layout.name, stream.rate
            options: dict[str, Any] = {"layout": layout} | ({"bit_rate": bit_rate} if bit_rate else {})
            output: Any = target.add_stream(codec, rate, **options)
            at = 0
            for frames in ([_to_frame(rhythm(rate), layout, len(stream.layout.channels), rate)], source.decode(stream)):
                for part in _converted(frames, AudioResampler(format=sample_format, layout=layout, rate=rate)):
                    part.pts, part.time_base = at, Fraction(1, rate)
                    target.mux(output.encode(part))
                    at += part.samples
            target.mux(output.encode(None))
        made.replace(path)
    except (ServiceError, av.FFmpegError) as error:
        raise MarkingFailed(path.name, f"the audible label could not be put in ({type(error).__name__})") from error
    finally:
        made.unlink(missing_ok=True)


def rhythm(rate: int) -> npt.NDArray[np.float32]:
    """Return the tones and the pause behind them: float32, shape (samples,), -1..1."""
    parts = []
    for units in RHYTHM:
        n = round(units * UNIT_S * rate)
        fade = np.minimum(1.0, np.minimum(np.arange(n), np.arange(n)[::-1]) / (FADE_S * rate))
        parts += [LOUDNESS * fade * np.sin(2 * np.pi * TONE_HZ * np.arange(n) / rate), np.zeros(round(UNIT_S * rate))]
    return np.concatenate([*parts, np.zeros(round(PAUSE_S * rate))]).astype(np.float32)


def _converted(frames: Iterable[AudioFrame], converter: AudioResampler) -> Iterator[AudioFrame]:
    for frame in frames:
        yield from converter.resample(frame)
    yield from converter.resample(None)


def _to_frame(samples: npt.NDArray[np.float32], layout: str, channels: int, rate: int) -> AudioFrame:
    frame = AudioFrame.from_ndarray(np.tile(samples, (channels, 1)), format="fltp", layout=layout)
    frame.sample_rate = rate
    return frame
