"""From speech to what the mouth does: how far it opens and how wide it is, frame by frame.

::

    phones ── viseme table ── coarticulation ──┐
                                               ├── gated by loudness ──▶ MouthTrack
    formants ── jaw and lips ──────────────────┘
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from deployments.engines.face2face.phones import Phone
from deployments.engines.face2face.speech import Curve, Samples, formants, loudness

Analysis = Literal["auto", "phones", "dsp"]

TICKS_PER_S = 200  # of the curves before they are sampled at the frame rate
LEAD_S = 0.03  # lips are on their way before the sound is heard
OPENING_SPREAD_S, WIDTH_SPREAD_S, CLOSURE_SPREAD_S = 0.045, 0.05, 0.02  # coarticulation: neighbours share the mouth

# Opening 0..1 and width -1 (round) .. 1 (spread) of each phone of the CMU set, after the visemes of Fisher 1968 and JALI
# (Edwards et al. 2016), by eye.
VISEMES: dict[str, tuple[float, float]] = {
    "AA": (0.9, 0.0), "AE": (0.8, 0.4), "AH": (0.6, 0.0), "AO": (0.75, -0.5), "AW": (0.8, -0.3), "AY": (0.8, 0.2),
    "B": (0.0, 0.0), "M": (0.0, 0.0), "P": (0.0, 0.0), "F": (0.1, 0.1), "V": (0.12, 0.1),
    "CH": (0.25, -0.5), "JH": (0.25, -0.5), "SH": (0.25, -0.5), "ZH": (0.25, -0.5), "S": (0.2, 0.4), "Z": (0.2, 0.4),
    "D": (0.3, 0.1), "T": (0.28, 0.1), "N": (0.3, 0.1), "L": (0.38, 0.1), "DH": (0.3, 0.0), "TH": (0.3, 0.0),
    "G": (0.35, 0.0), "K": (0.35, 0.0), "NG": (0.35, 0.0), "HH": (0.4, 0.0), "Y": (0.3, 0.5), "R": (0.3, -0.4), "W": (0.2, -0.9),
    "EH": (0.6, 0.3), "ER": (0.4, -0.3), "EY": (0.5, 0.5), "IH": (0.42, 0.4), "IY": (0.32, 0.7),
    "OW": (0.6, -0.7), "OY": (0.65, -0.5), "UH": (0.4, -0.6), "UW": (0.3, -0.9),
}  # fmt: skip
CLOSURES = {"B": 0.15, "M": 0.15, "P": 0.15, "F": 0.45, "V": 0.45}  # lips meet, or teeth and lip: what is left of the opening
LEAST_OPENING = 0.25  # that a closure begins to count at

# Formants to mouth, Hz: a shut jaw has a first formant near 220, an open one near 740; the second one lies about 1450 for lips at rest.
JAW_SHUT_HZ, JAW_RANGE_HZ, LEAST_JAW = 220.0, 520.0, 0.15
LIPS_REST_HZ, LIPS_RANGE_HZ = 1450.0, 900.0
FRICATIVE_FROM, FRICATIVE_RANGE, FRICATIVE_SHUTS = 0.35, 0.3, 0.7
VOICED = 0.25  # loudness below which formants mean nothing
AUDIBLE = 0.1  # loudness below which lips rest

HEARD_SPREAD_S = 0.15  # how far one phone that was recognised, or one that was missed, counts around itself
PEAK = 97  # percentile of the opening that is taken for a mouth all open
FULL_OPENING = 0.9  # what it becomes: shouting is left for those who shout


@dataclass(frozen=True)
class MouthTrack:
    """What the mouth does, one value a frame."""

    opening: Curve  # 0 shut .. 1 as far as it goes
    width: Curve  # -1 rounded .. 0 at rest .. 1 spread
    loudness: Curve  # 0..1, of the sound


def build_track(samples: Samples, fps: float, frames: int, analysis: Analysis, phones: Sequence[Phone]) -> MouthTrack:
    """Analyse a recording.

    Args:
        samples: mono at ``SAMPLE_RATE``.
        fps: frames a second of the video.
        frames: of the video.
        analysis: phones, formants and loudness alone (``dsp``), or for each moment what can be relied on (``auto``): where the
            recogniser hears nothing in sound that is loud, as in a language or a voice that it does not know, formants are used.
        phones: of the recording, as ``PhoneRecogniser`` hears them; not looked at for ``dsp``.
    """
    loud = loudness(samples, fps, frames)
    if not loud.any():
        return MouthTrack(np.zeros(frames, np.float32), np.zeros(frames, np.float32), loud)
    if analysis == "dsp":
        opening, width = _from_formants(samples, fps, loud)
    else:
        opening, width = _from_phones(phones, fps, loud)
        if analysis == "auto":
            heard = _heard(phones, fps, loud)
            other_opening, other_width = _from_formants(samples, fps, loud)
            opening = heard * opening + (1 - heard) * other_opening
            width = heard * width + (1 - heard) * other_width
    return MouthTrack(_normalised(opening), width.astype(np.float32), loud)


def _from_phones(phones: Sequence[Phone], fps: float, loud: Curve) -> tuple[Curve, Curve]:
    length_s = max([len(loud) / fps, *(phone.end_s for phone in phones)])
    ticks = int(length_s * TICKS_PER_S) + TICKS_PER_S
    opening, width, closure = np.zeros(ticks), np.zeros(ticks), np.ones(ticks)
    for phone in phones:
        span = slice(round(phone.start_s * TICKS_PER_S), round(phone.end_s * TICKS_PER_S))
        opening[span], width[span] = VISEMES.get(phone.name, (0.0, 0.0))
        closure[span] = CLOSURES.get(phone.name, 1.0)
    opening, width = _spread(opening, OPENING_SPREAD_S * TICKS_PER_S), _spread(width, WIDTH_SPREAD_S * TICKS_PER_S)
    closure = _spread(closure, CLOSURE_SPREAD_S * TICKS_PER_S)
    at = np.clip(((np.arange(len(loud)) / fps + LEAD_S) * TICKS_PER_S).astype(int), 0, ticks - 1)
    limited = np.minimum(opening[at], LEAST_OPENING + (1 - LEAST_OPENING) * closure[at]) * closure[at]
    gate = np.clip(LEAST_JAW + loud, 0, 1) * (loud > 0)
    return (limited * gate).astype(np.float32), (width[at] * (loud > AUDIBLE)).astype(np.float32)


def _from_formants(samples: Samples, fps: float, loud: Curve) -> tuple[Curve, Curve]:
    found = formants(samples, fps, len(loud))
    jaw = np.clip((found.first_hz - JAW_SHUT_HZ) / JAW_RANGE_HZ, LEAST_JAW, 1)
    fricative = np.clip((found.frication - FRICATIVE_FROM) / FRICATIVE_RANGE, 0, 1)
    voiced = loud > VOICED
    opening = np.where(voiced, loud * jaw * (1 - FRICATIVE_SHUTS * fricative), 0)
    width = np.where(voiced & (found.second_hz > 0), np.clip((found.second_hz - LIPS_REST_HZ) / LIPS_RANGE_HZ, -1, 1), 0)
    return _convolved(opening, [0.2, 0.6, 0.2]), _convolved(width, [0.25, 0.5, 0.25])


def _heard(phones: Sequence[Phone], fps: float, loud: Curve) -> Curve:
    """Return how far the phones can be relied on, 0..1: whether loud moments around a frame have any."""
    spoken = np.zeros(len(loud))
    for phone in phones:
        if phone.spoken:
            spoken[round(phone.start_s * fps) : max(round(phone.end_s * fps), round(phone.start_s * fps) + 1)] = 1
    weight = np.where(loud > VOICED, loud, 0) + 1e-3
    sigma = HEARD_SPREAD_S * fps
    return (_spread(weight * spoken, sigma) / _spread(weight, sigma)).astype(np.float32)


def _normalised(opening: Curve) -> Curve:
    """Bring the wide openings of a recording to the same value: a quiet speaker moves the mouth as well."""
    peak = np.percentile(opening, PEAK)
    return np.asarray(np.clip(opening / (peak + 1e-6), 0, 1) * FULL_OPENING, np.float32)


def _spread(values: npt.NDArray[np.floating], sigma: float) -> npt.NDArray[np.float64]:
    reach = max(1, round(4 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-3)) ** 2)
    return np.asarray(np.convolve(np.pad(values, reach, "edge"), kernel / kernel.sum(), "valid"), np.float64)


def _convolved(values: npt.NDArray[np.floating], kernel: list[float]) -> Curve:
    reach = len(kernel) // 2
    return np.convolve(np.pad(values, reach, "edge"), kernel, "valid").astype(np.float32)
