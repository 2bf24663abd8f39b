"""What a lip-sync service elsewhere is given, and what is made of its video."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from deployments.engines.face2face.config import Face2FaceConfig
from deployments.engines.face2face.material import Still, open_material
from deployments.engines.face2face.speech import SAMPLE_RATE
from deployments.engines.media.compose import dub_video, write_silent
from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import fit_size
from deployments.engines.media.probe import MediaInfo, probe_video
from deployments.engines.media.sound import load_samples
from deployments.jobs.errors import MediaTooLarge, OutputsLost, UnsupportedMedia
from deployments.jobs.ports import LocalMedia

STILL_S = 2.0  # of a clip made of a still, which is played to and fro
SHORT_SHARE, SHORT_S = 0.05, 0.5  # by which a video may end before the audio: such services round to batches of frames


def to_clip(video: LocalMedia, folder: Path, config: Face2FaceConfig) -> Path:
    """Return the reference of a job as a clip: as it is, or a clip of a still, which such services do not take.

    Raises:
        UnsupportedMedia: it cannot be read.
        MediaTooLarge: it is over the limits.
        InvalidInput: it is sound alone.
    """
    material = open_material(video, config)
    if not isinstance(material, Still):
        return video.path
    path = folder / "still.mp4"
    width, height = material.size
    size = fit_size(width, height, None, even=True)
    write_silent(lambda _: material.image, round(STILL_S * material.fps), path, material.size, size, material.fps, config.codec_threads)
    return path


def to_wav(audio: Path, folder: Path, limits: MediaLimits) -> Path:
    """Return an audio as WAV, 16 kHz, mono, 16 bits: what such services make of it anyway.

    Raises:
        UnsupportedMedia: not a file that we read, damaged, or without sound.
        MediaTooLarge: over a limit.
    """
    samples = load_samples(audio, SAMPLE_RATE, limits)
    path = folder / "speech.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples * np.iinfo(np.int16).max).astype("<i2").tobytes())
    return path


def finish_video(spoken: Path, speech: Path, audio: Path, destination: Path, limits: MediaLimits) -> MediaInfo:
    """Give a service's video the job's own audio, every sample in its place, and look whether it is whole.

    Args:
        spoken: from the service.
        speech: from ``to_wav``: how long the video should be.
        audio: of the job.
        destination: in an existing folder.
        limits: bounds on the audio.

    Returns:
        What the video holds.

    Raises:
        OutputsLost: it is damaged, or ends before the audio does.
    """
    info = _probed(spoken)
    with wave.open(str(speech), "rb") as file:
        wanted_s = file.getnframes() / file.getframerate()
    if (info.duration_s or 0.0) < wanted_s - max(SHORT_S, SHORT_SHARE * wanted_s):
        raise OutputsLost(f"the video has {info.duration_s or 0.0:.1f} of {wanted_s:.1f} seconds: it was not written to its end")
    dub_video(spoken, audio, destination, limits)
    return info


def _probed(spoken: Path) -> MediaInfo:
    unlimited = MediaLimits(max_bytes=2**50, max_duration_s=86_400, max_frames=10**7)  # what was computed may be longer than what is sent
    try:
        return probe_video(spoken, unlimited).info
    except (UnsupportedMedia, MediaTooLarge) as error:
        raise OutputsLost(f"the video that was made cannot be read: {error}") from None
