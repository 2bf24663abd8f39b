"""The demo's talking faces: a still and a clip speak one recording, and a check that picture and sound fit."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.probe import MediaInfo, probe
from serve_app.client import Client
from serve_app.progress import JobProgress
from serve_app.workflow_demo import DemoFailed, output_of


@dataclass(frozen=True)
class Talk:
    """One face that speaks and what came of it."""

    face: Path
    audio: MediaInfo
    result: Path
    video: MediaInfo
    seconds: float  # from submit until the file was here


class TalkingDemo:
    """Has faces speak on a service."""

    def __init__(self, folder: Path, limits: MediaLimits, audio: Path) -> None:
        """Prepare.

        Args:
            folder: for the results.
            limits: of the media that are looked at.
            audio: what is spoken.
        """
        self._folder = folder
        self._limits = limits
        self._audio = audio

    def run(self, client: Client, progress: JobProgress, faces: tuple[Path, ...]) -> list[Talk]:
        """Have each face speak.

        Raises:
            DemoFailed: a job failed.
        """
        audio_id, audio = progress.upload(client, str(self._audio)), probe(self._audio, self._limits)
        return [self._talk(client, progress, audio_id, audio, face) for face in faces]

    def _talk(self, client: Client, progress: JobProgress, audio_id: str, audio: MediaInfo, face: Path) -> Talk:
        face_id = progress.upload(client, str(face))
        began = time.monotonic()
        job = client.submit({"kind": "face2face", "audio": audio_id, "video": face_id, "labels": {"made-by": "demo"}})
        job = progress.follow(client, job["id"], f"have {face.name} speak")
        result = self._folder / f"{face.stem}_speaks.mp4"
        progress.download(client, output_of(job, face.name), result)
        return Talk(face, audio, result, probe(result, self._limits), time.monotonic() - began)


def to_talk_table(talks: list[Talk]) -> Table:
    """Lay out what was spoken, and how long that took."""
    table = Table("face", "speaks", "frames", "seconds")
    for talk in talks:
        table.add_row(talk.face.name, f"{talk.video.duration_s or 0:.2f} s", str(talk.video.frames), f"{talk.seconds:.1f}")
    return table


def check_talks(talks: list[Talk]) -> None:
    """Judge the videos.

    Raises:
        DemoFailed: one has no sound, or its length differs from the audio's by more than a frame.
    """
    for talk in talks:
        frame_s = float(1 / talk.video.fps) if talk.video.fps else 0.0
        length_s, wanted_s = talk.video.duration_s or 0.0, talk.audio.duration_s or 0.0
        if not talk.video.has_audio:
            raise DemoFailed(f"{talk.result.name}: has no sound")
        if abs(length_s - wanted_s) > frame_s:
            raise DemoFailed(f"{talk.result.name}: lasts {length_s:.2f} s instead of {wanted_s:.2f} s")
