"""What can be read off speech without knowing its language: loudness, formants, frication, at the frame rate of a video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000  # Hz, mono: all of the analysis, and what the recogniser was trained on

Samples = npt.NDArray[np.float32]  # (n,), -1..1, at SAMPLE_RATE
Curve = npt.NDArray[np.float32]  # (frames,), one value a frame

LOUDNESS_WINDOW_S = 0.035
DYNAMICS_DB = 32.0  # below the loud parts (95th percentile) lies what counts as silence: breath and room, not speech
FULL_AT_DB = 2.0  # below them a mouth may already be all open
FLOOR = 1e-5  # amplitude of digital silence: its logarithm must not be -inf

WINDOW_S = 0.03  # of the spectrum: three periods of a low voice
PREEMPHASIS = 0.97
LPC_ORDER = 18  # two poles for each of the four or five formants below 8 kHz, and some for the spectrum's tilt
MIN_POLE_RADIUS = 0.88  # a bandwidth of 650 Hz: wider resonances only shape the slope
FORMANT_RANGE_HZ = (200.0, 4000.0)
FRICATION_HZ = 3500.0  # s, sh and f have most of their energy above
BLOCK = 4096  # frames analysed at once: bounds memory for long audio


@dataclass(frozen=True)
class Formants:
    """The two lowest resonances of the vocal tract by frame, 0 where there is no voice, and how much of the sound is frication."""

    first_hz: Curve  # rises as the jaw opens
    second_hz: Curve  # high with spread lips, low with rounded ones
    frication: Curve  # 0..1: share of the spectrum above FRICATION_HZ


def loudness(samples: Samples, fps: float, frames: int) -> Curve:
    """Return how loud the sound is at each frame, 0 for silence to 1 for the loud parts of this very recording.

    Args:
        samples: of the whole recording.
        fps: frames a second.
        frames: number of frames.
    """
    half = round(SAMPLE_RATE * LOUDNESS_WINDOW_S / 2)
    power = np.concatenate([np.zeros(1), np.cumsum(np.square(samples, dtype=np.float64))])
    centres = _centres(fps, frames)
    begins, ends = np.clip(centres - half, 0, len(samples)), np.clip(centres + half + 1, 0, len(samples))
    mean = (power[ends] - power[begins]) / np.maximum(ends - begins, 1)
    level_db = 10 * np.log10(mean + FLOOR**2)
    loud_db = np.percentile(level_db, 95) if frames else 0.0
    if loud_db <= 20 * np.log10(FLOOR) + 1:
        return np.zeros(frames, np.float32)  # digital silence has no loud part: its noise is not speech
    return np.asarray(np.clip((level_db - (loud_db - DYNAMICS_DB)) / (DYNAMICS_DB - FULL_AT_DB), 0, 1), np.float32)


def formants(samples: Samples, fps: float, frames: int) -> Formants:
    """Estimate formants by linear prediction.

    Args:
        samples: of the whole recording.
        fps: frames a second.
        frames: number of frames.

    Markel and Gray 1976, "Linear Prediction of Speech": the roots of the predictor near the unit circle are the resonances.
    """
    parts = [_formants_at(samples, centres) for centres in np.array_split(_centres(fps, frames), max(1, -(-frames // BLOCK)))]
    first, second, frication = (np.concatenate(values).astype(np.float32) for values in zip(*parts, strict=True))
    return Formants(first, second, frication)


def _centres(fps: float, frames: int) -> npt.NDArray[np.intp]:
    return np.round(np.arange(frames) / fps * SAMPLE_RATE).astype(np.intp)


def _formants_at(samples: Samples, centres: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.float64], ...]:
    width = round(SAMPLE_RATE * WINDOW_S)
    padded = np.pad(samples, (width // 2, width))
    windows = padded[np.minimum(centres, len(samples))[:, None] + np.arange(width)].astype(np.float64)
    resonances = _resonances(windows)
    magnitudes = np.abs(np.fft.rfft(windows * np.hanning(width)))
    high = magnitudes[:, np.fft.rfftfreq(width, 1 / SAMPLE_RATE) > FRICATION_HZ].sum(1)
    return resonances[:, 0], resonances[:, 1], high / (magnitudes.sum(1) + 1e-9)


def _resonances(windows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the two lowest formants of each window, shape (n, 2), Hz."""
    emphasised = windows - PREEMPHASIS * np.concatenate([windows[:, :1], windows[:, :-1]], axis=1)
    tapered = emphasised * np.hamming(windows.shape[1])
    spectrum = np.abs(np.fft.rfft(tapered, 2 * windows.shape[1])) ** 2
    correlation = np.fft.irfft(spectrum)[:, : LPC_ORDER + 1]
    found = np.zeros((len(windows), 2))
    for row in np.flatnonzero(correlation[:, 0] > FLOOR):
        found[row] = _lowest_two(_predictor(correlation[row]))
    return found


def _predictor(correlation: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lags = np.abs(np.subtract.outer(np.arange(LPC_ORDER), np.arange(LPC_ORDER)))
    matrix = correlation[lags] + np.eye(LPC_ORDER) * correlation[0] * 1e-4  # white noise: a pure tone would be singular
    return np.concatenate([[1.0], np.linalg.solve(matrix, -correlation[1:])])


def _lowest_two(predictor: npt.NDArray[np.float64]) -> tuple[float, float]:
    roots = np.roots(predictor)
    poles = roots[(roots.imag > 0) & (np.abs(roots) > MIN_POLE_RADIUS)]
    hz = np.sort(np.angle(poles)) * SAMPLE_RATE / (2 * np.pi)
    hz = hz[(hz > FORMANT_RANGE_HZ[0]) & (hz < FORMANT_RANGE_HZ[1])]
    padded = np.concatenate([hz, np.zeros(2)])
    return float(padded[0]), float(padded[1])
