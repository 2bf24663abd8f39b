"""What Wav2Lip hears: sixteen columns of a mel spectrogram for each frame, scaled as the network was given them when it learned.

The numbers are those of FaceFusion's preprocessing, whose export of the network this project takes (Prajwal et al. 2020,
arXiv:2008.10010, for the network itself).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from deployments.engines.face2face.speech import PREEMPHASIS, SAMPLE_RATE, Samples

BANDS, COLUMNS = 80, 16  # of what the network is given for a frame: 0.2 s
WINDOW, HOP = 800, 200  # samples
COLUMNS_PER_S = SAMPLE_RATE / HOP
LOWEST_HZ, HIGHEST_HZ = 55.0, 7600.0
FLOOR = 1e-5  # amplitude: -100 dB
GAIN, OFFSET, BOUND = 1.6, 3.2, 4.0  # of the logarithm, which the network knows as -4..4
BLOCK = 4096  # columns transformed at once: bounds memory for long audio

Spectrogram = npt.NDArray[np.float32]  # (80, n), amplitude
MelWindow = npt.NDArray[np.float32]  # (80, 16), -4..4


def mel_spectrogram(samples: Samples) -> Spectrogram:
    """Return the amplitude in each band, a column every 12.5 ms; column 0 is centred on time 0.

    Args:
        samples: float32, shape (n,), 16 kHz.
    """
    loudest = float(np.abs(samples).max(initial=0.0))
    even = samples / np.float32(loudest) if loudest else samples
    sharpened = np.append(even[:1], even[1:] - np.float32(PREEMPHASIS) * even[:-1])
    columns = len(sharpened) // HOP + 1
    padded = np.pad(sharpened, (WINDOW // 2, WINDOW // 2 + HOP))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:columns]
    window = np.hanning(WINDOW + 1)[:-1].astype(np.float32)  # periodic
    bank = _filter_bank()
    blocks = [
        bank @ np.abs(np.fft.rfft(pieces[begin : begin + BLOCK] * window, axis=1)).T / window.sum() for begin in range(0, columns, BLOCK)
    ]
    return np.concatenate(blocks, axis=1).astype(np.float32)


def window_at(spectrogram: Spectrogram, time_s: float) -> MelWindow:
    """Return what the network is given for the frame at a time: the sound from then on for 0.2 s; silence beyond the end."""
    begin = int(time_s * COLUMNS_PER_S)
    found = spectrogram[:, begin : begin + COLUMNS]
    whole = np.pad(found, ((0, 0), (0, COLUMNS - found.shape[1])))
    return np.clip(np.log10(np.maximum(whole, FLOOR)) * GAIN + OFFSET, -BOUND, BOUND).astype(np.float32)


def _filter_bank() -> npt.NDArray[np.float32]:
    """One triangle a band, from its own frequency to the next band's; shape (80, 401)."""
    mels = np.linspace(_to_mel(LOWEST_HZ), _to_mel(HIGHEST_HZ), BANDS + 2)
    edges = np.floor((WINDOW + 1) * (700 * (10 ** (mels / 2595) - 1)) / SAMPLE_RATE).astype(int)
    bank = np.zeros((BANDS, WINDOW // 2 + 1), np.float32)
    for band, (begin, end) in enumerate(pairwise(edges[: BANDS + 1])):
        bank[band, begin:end] = _triangle(end - begin)
    return bank


def _to_mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def _triangle(size: int) -> npt.NDArray[np.float64]:
    """Return a symmetric triangle that reaches zero just outside of its ends."""
    middle = (size - 1) / 2
    return np.asarray(1 - np.abs(np.arange(size) - middle) / ((size + size % 2) / 2), np.float64)
