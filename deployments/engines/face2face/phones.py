"""Phones of speech, by the recogniser of the package pocketsphinx: an English model, which ships in its wheel.

Huggins-Daines et al. 2006, "PocketSphinx: A free, real-time continuous speech recognition system for hand-held devices".
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pocketsphinx

from deployments.engines.face2face.speech import SAMPLE_RATE, Samples

FRAMES_PER_S = 100  # of the recogniser
SILENCE = frozenset({"SIL", "+SPN+", "+NSN+", "<s>", "</s>", "<sil>"})  # silence, noise of a mouth, other noise
BLOCK_S = 30  # of one utterance, about a second of work: who waits is told how far it is, and can give up
MAX_PCM = 32767


@dataclass(frozen=True, slots=True)
class Phone:
    """One phone of the CMU set, without its stress."""

    name: str
    start_s: float
    end_s: float

    @property
    def spoken(self) -> bool:
        """Whether it is speech at all."""
        return self.name not in SILENCE


class PhoneRecogniser:
    """Writes down phones. The search has state, so that threads take turns."""

    def __init__(self) -> None:
        """Load the acoustic model and the phone bigrams, about 0.2 s."""
        model = pocketsphinx.get_model_path()
        # lw, beams: the setting that the recogniser's own documentation gives for phoneme recognition.
        self._decoder: Any = pocketsphinx.Decoder(
            hmm=f"{model}/en-us/en-us",
            allphone=f"{model}/en-us/en-us-phone.lm.bin",
            lm=None,
            dict=None,
            lw=2.0,
            beam=1e-20,
            pbeam=1e-20,
            cmn="batch",  # by the mean of this very utterance: the default goes on from whatever was heard before it
            loglevel="FATAL",
        )
        self._lock = threading.Lock()

    def recognise(self, samples: Samples) -> Iterator[list[Phone]]:
        """Yield the phones of a recording in order, block by block; of a language that it does not know, the nearest English ones.

        Args:
            samples: at ``SAMPLE_RATE``.
        """
        step = BLOCK_S * SAMPLE_RATE
        for begin in range(0, len(samples), step):
            yield self._recognise_block(samples[begin : begin + step], begin / SAMPLE_RATE)

    def _recognise_block(self, samples: Samples, start_s: float) -> list[Phone]:
        pcm = np.round(np.clip(samples, -1, 1) * MAX_PCM).astype("<i2").tobytes()
        with self._lock:
            self._decoder.reinit_feat()  # forget the noise of whatever was heard before: the same sound gives the same phones
            self._decoder.start_utt()
            try:
                self._decoder.process_raw(pcm, no_search=False, full_utt=True)
            finally:
                self._decoder.end_utt()
            return [_to_phone(segment, start_s) for segment in self._decoder.seg() or ()]


def _to_phone(segment: Any, start_s: float) -> Phone:  # noqa: ANN401 -- pocketsphinx has no types
    begin, end = segment.start_frame / FRAMES_PER_S, (segment.end_frame + 1) / FRAMES_PER_S
    return Phone(segment.word.rstrip("0123456789"), start_s + begin, start_s + end)
