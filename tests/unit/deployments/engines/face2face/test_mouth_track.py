from itertools import chain

import numpy as np
import pytest

from deployments.engines.face2face.mouth_track import build_track
from deployments.engines.face2face.phones import Phone
from deployments.engines.face2face.speech import SAMPLE_RATE, formants, loudness

FPS = 25.0


def vowel(first_hz, second_hz, seconds=1.0, pitch_hz=110):
    """A pulse train with some breath, through two resonances."""
    pulses = 0.02 * np.random.default_rng(0).normal(size=int(seconds * SAMPLE_RATE))
    pulses[:: SAMPLE_RATE // pitch_hz] += 1
    for hz, width_hz in ((first_hz, 60), (second_hz, 90), (3000, 150), (3900, 200)):
        radius, angle = np.exp(-np.pi * width_hz / SAMPLE_RATE), 2 * np.pi * hz / SAMPLE_RATE
        a1, a2, out = 2 * radius * np.cos(angle), -(radius**2), np.zeros(len(pulses) + 2)
        for n, pulse in enumerate(pulses):
            out[n + 2] = pulse + a1 * out[n + 1] + a2 * out[n]
        pulses = out[2:]
    return (0.5 * pulses / np.abs(pulses).max()).astype(np.float32)


def hear(recogniser, samples):
    return list(chain.from_iterable(recogniser.recognise(samples)))


def frames_of(samples):
    return round(len(samples) / SAMPLE_RATE * FPS)


@pytest.mark.parametrize(("first_hz", "second_hz"), [(300, 2300), (700, 1200), (350, 800)])
def test_formants_are_those_of_the_resonances(first_hz, second_hz):
    found = formants(vowel(first_hz, second_hz), FPS, 25)
    middle = slice(5, 20)
    assert np.median(found.first_hz[middle]) == pytest.approx(first_hz, rel=0.2)
    assert np.median(found.second_hz[middle]) == pytest.approx(second_hz, rel=0.1)


def test_loudness_follows_the_level_and_not_the_volume_of_the_recording():
    tone = np.sin(np.arange(SAMPLE_RATE) * 0.2).astype(np.float32)
    samples = np.concatenate([np.zeros(SAMPLE_RATE, np.float32), tone, 0.01 * tone])
    for volume in (1.0, 0.05):
        curve = loudness(volume * samples, FPS, 75)
        assert (curve[2:23].max(), curve[30:45].min()) == (0, pytest.approx(1, abs=0.1))
        assert curve[55:70].max() < 0.1


def test_silence_keeps_the_mouth_shut(recogniser):
    silence = np.zeros(2 * SAMPLE_RATE, np.float32)
    track = build_track(silence, FPS, 50, "auto", hear(recogniser, silence))
    assert not track.opening.any()
    assert not track.width.any()


def test_lips_meet_for_a_labial_and_open_for_a_vowel():
    samples = np.tile(vowel(700, 1200), 2)[: int(1.2 * SAMPLE_RATE)]
    phones = [Phone("AA", 0.0, 0.5), Phone("M", 0.5, 0.62), Phone("AA", 0.62, 1.2)]
    track = build_track(samples, FPS, 30, "phones", phones)
    assert track.opening[13] < 0.3 * track.opening[6]
    assert track.opening[22] > 0.7


def test_width_tells_spread_from_rounded():
    for analysis in ("phones", "dsp"):
        spread = build_track(vowel(300, 2300), FPS, 25, analysis, [Phone("IY", 0, 1)])
        rounded = build_track(vowel(330, 800), FPS, 25, analysis, [Phone("UW", 0, 1)])
        assert spread.width[5:20].mean() > 0.4
        assert rounded.width[5:20].mean() < -0.4


def test_auto_listens_to_formants_where_the_recogniser_hears_nothing():
    samples = vowel(700, 1200)
    deaf = build_track(samples, FPS, 25, "auto", [Phone("SIL", 0, 1)])
    dsp = build_track(samples, FPS, 25, "dsp", [])
    np.testing.assert_allclose(deaf.opening, dsp.opening, atol=0.05)
    assert deaf.opening[5:20].mean() > 0.5


@pytest.mark.parametrize("name", ["librivox_speech.wav", "espeak_mandarin.wav"])
def test_the_mouth_moves_with_the_speech_of_either_language(speech, recogniser, name):
    samples = speech(name)
    track = build_track(samples, FPS, frames_of(samples), "auto", hear(recogniser, samples))
    assert np.corrcoef(track.opening, track.loudness)[0, 1] > 0.55
    assert (track.opening.min(), track.opening.max()) == (pytest.approx(0, abs=0.05), pytest.approx(0.9, abs=0.01))


def test_phones_cover_the_recording_in_order(speech, recogniser):
    samples = speech()
    phones = hear(recogniser, samples)
    assert [phone.start_s for phone in phones] == sorted(phone.start_s for phone in phones)
    assert phones[-1].end_s == pytest.approx(len(samples) / SAMPLE_RATE, abs=0.1)
    assert sum(phone.spoken for phone in phones) > 40
