"""The parts that face2face tests share."""

import pytest

from deployments.engines.face2face.phones import PhoneRecogniser
from deployments.engines.face2face.speech import SAMPLE_RATE
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.sound import load_samples


@pytest.fixture(scope="session")
def recogniser():
    return PhoneRecogniser()


@pytest.fixture
def speech(media):
    def load(name="librivox_speech.wav"):
        return load_samples(media / name, SAMPLE_RATE, MediaLimits())

    return load
