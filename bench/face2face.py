"""Has the sample clips speak; measures on the results whether mouth and sound go together and what the rest of the picture lost.

    python -m bench.face2face [OUT_FOLDER]

For each clip and recording: the correlation of the mouth opening, measured anew on the result by the landmark model, with the opening that
was asked for (and at which lag it peaks) and with the loudness of the sound, beside the same of the untouched clip; the PSNR away from
the mouth; the time that it took against the sound's own length, its limit. With a folder, the videos and a strip of faces of each go there.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from deployments.engines.face2face.config import Face2FaceConfig  # noqa: E402 -- the path above comes first
from deployments.engines.face2face.engine import Face2FaceEngine  # noqa: E402
from deployments.engines.face2face.mouth_track import MouthTrack, build_track  # noqa: E402
from deployments.engines.face2face.phones import PhoneRecogniser  # noqa: E402
from deployments.engines.face2face.speech import SAMPLE_RATE  # noqa: E402
from deployments.engines.faces.align import Points  # noqa: E402
from deployments.engines.faces.analysis import FaceAnalysis  # noqa: E402
from deployments.engines.faces.expression import mouth_openness  # noqa: E402
from deployments.engines.images import BgrImage  # noqa: E402
from deployments.engines.media.limits import MediaLimits  # noqa: E402
from deployments.engines.media.probe import probe, probe_video  # noqa: E402
from deployments.engines.media.sound import load_samples  # noqa: E402
from deployments.engines.media.video import read_frames  # noqa: E402
from deployments.engines.models import load_manifest  # noqa: E402
from deployments.jobs.ports import EngineTask, LocalMedia, OutputFile  # noqa: E402

MEDIA = ROOT / "tests" / "media"
CLIPS = ("woman_face.mp4", "woman_hand_over_face.mp4")
RECORDINGS = ("librivox_speech.wav", "espeak_mandarin.wav")
LENGTHS_S = (1, 10, 180)
LIMITS = MediaLimits()
LAGS = range(-5, 6)
STRIP, TILE_PX = 10, 160

Curve = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Result:
    """One spoken video."""

    path: Path
    seconds: float
    fps: float
    frames: list[BgrImage]
    faces: list[Points]


class Bench:
    """Engine and measures, opened once."""

    def __init__(self, folder: Path) -> None:
        models = load_manifest(ROOT / "configs" / "models.yaml")
        config = Face2FaceConfig(root=folder / "references")
        self._folder = folder
        self._engine = Face2FaceEngine.load(config, models)
        self._analysis = FaceAnalysis.load(models, config)
        self._recogniser = PhoneRecogniser()

    def speak(self, audio: Path, video: Path, name: str) -> tuple[Path, float]:
        """Run a job; return its video and how long it took."""
        work = self._folder / name
        work.mkdir(exist_ok=True)
        began = time.monotonic()
        items = list(self._engine.run(EngineTask({}, {"audio": _local(audio), "video": _local(video)}, work, name, 1, "default")))
        assert isinstance(items[-1], OutputFile)
        return items[-1].path, time.monotonic() - began

    def look(self, path: Path, seconds: float = 0.0) -> Result:
        """Find the face in every frame of a video."""
        traits, follower = probe_video(path, LIMITS), self._analysis.follow()
        frames = [frame.copy() for frame in read_frames(path, traits, LIMITS)]
        sightings = [follower.update(frame) for frame in frames]
        faces = [sighting.landmarks for sighting in sightings if sighting is not None]
        return Result(path, seconds, float(traits.info.fps or 25), frames, faces)

    def track(self, audio: Path, fps: float, frames: int) -> MouthTrack:
        """Return what the mouth was asked to do."""
        samples = load_samples(audio, SAMPLE_RATE, LIMITS)
        return build_track(samples, fps, frames, "auto", list(chain.from_iterable(self._recogniser.recognise(samples))))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="keep the videos and strips of faces here")
    with _folder(parser.parse_args().folder) as folder:
        bench = Bench(folder)
        print(
            "clip, recording: correlation with what was asked (peak at lag), with the loudness; of the untouched clip; PSNR; time / sound"
        )
        for clip in CLIPS:
            for recording in RECORDINGS:
                print(_line(bench, MEDIA / clip, MEDIA / recording, folder))
        print("sound, video, difference in frames, time / sound with the clip known:")
        for seconds in LENGTHS_S:
            print(_length_line(bench, folder, seconds))


def _line(bench: Bench, clip: Path, recording: Path, folder: Path) -> str:
    name = f"{clip.stem}-{recording.stem}"
    path, seconds = bench.speak(recording, clip, name)
    result, untouched = bench.look(path, seconds), bench.look(clip)
    track = bench.track(recording, result.fps, len(result.frames))
    opening = np.array([mouth_openness(face) for face in result.faces])
    by_lag = {lag: _correlation(opening, track.opening, lag) for lag in LAGS}
    peak = max(by_lag, key=lambda lag: by_lag[lag])
    before = np.resize([mouth_openness(face) for face in untouched.faces], len(opening))
    sound_s = probe(recording, LIMITS).duration_s or 0.0
    _write_strip(result, folder / f"{name}.png")
    return (
        f"{clip.name}, {recording.name}: {by_lag[0]:.2f} ({peak:+d}), {_correlation(opening, track.loudness, 0):.2f}; "
        f"{_correlation(before, track.loudness, 0):.2f}; {_psnr(result, untouched):.1f} dB; "
        f"{seconds:.2f} s / {sound_s:.2f} s = {seconds / sound_s:.2f}, {1000 * seconds / len(opening):.1f} ms a frame"
    )


def _length_line(bench: Bench, folder: Path, seconds: int) -> str:
    audio = folder / f"{seconds}s.wav"
    samples = np.resize(load_samples(MEDIA / RECORDINGS[0], SAMPLE_RATE, LIMITS), seconds * SAMPLE_RATE)
    with wave.open(str(audio), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    path, took_s = bench.speak(audio, MEDIA / CLIPS[0], f"{seconds}s")
    info = probe(path, LIMITS)
    heard_s = len(load_samples(path, SAMPLE_RATE, LIMITS)) / SAMPLE_RATE
    difference = ((info.duration_s or 0) - seconds) * float(info.fps or 25)
    return f"{heard_s:.4f} s, {info.duration_s:.3f} s, {difference:+.2f}, {took_s:.2f} s / {seconds} s = {took_s / seconds:.2f}"


def _correlation(a: Curve, b: Curve, lag: int) -> float:
    if lag >= 0:
        a, b = a[lag:], b[: len(b) - lag]
    else:
        a, b = a[:lag], b[-lag:]
    return float(np.corrcoef(a, b)[0, 1])


def _psnr(result: Result, untouched: Result) -> float:
    """Compare the first run through the clip away from the lower face."""
    errors = []
    for new, old, face in zip(result.frames, untouched.frames, result.faces, strict=False):
        outside = np.ones(old.shape[:2], bool)
        width, (x, y) = float(np.ptp(face[:468, 0])), face[1, :2]
        rows = slice(max(0, int(y - 0.05 * width)), int(y + 1.2 * width))
        outside[rows, max(0, int(x - 0.8 * width)) : int(x + 0.8 * width)] = False
        errors.append(np.square(new[outside].astype(float) - old[outside]).mean())
        if len(errors) == 50:  # frames that are free in both clips
            break
    return float(10 * np.log10(255**2 / np.mean(errors)))


def _write_strip(result: Result, path: Path) -> None:
    tiles = []
    for number in np.linspace(5, len(result.frames) - 5, STRIP).astype(int):
        points, width = result.faces[number][:468, :2], float(np.ptp(result.faces[number][:468, 0]))
        scale = TILE_PX / (1.6 * width)
        matrix = np.array([[scale, 0, TILE_PX / 2 - scale * points[:, 0].mean()], [0, scale, TILE_PX / 2 - scale * points[:, 1].mean()]])
        tiles.append(cv2.warpAffine(result.frames[number], matrix, (TILE_PX, TILE_PX), flags=cv2.INTER_AREA))
    cv2.imwrite(str(path), np.hstack(tiles))


def _local(path: Path) -> LocalMedia:
    content = path.read_bytes()
    return LocalMedia(path, "", hashlib.sha256(content).hexdigest(), len(content))


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="atelier-bench-") as folder:
        yield Path(folder)


if __name__ == "__main__":
    main()
