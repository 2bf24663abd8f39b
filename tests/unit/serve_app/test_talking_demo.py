"""What the demo calls wrong about a face that speaks."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from rich.console import Console

from deployments.engines.media.probe import MediaInfo
from serve_app.talking_demo import Talk, check_talks, to_talk_table
from serve_app.workflow_demo import DemoFailed

VIDEO = MediaInfo("video", "video/mp4", 4, 2, frames=178, fps=Fraction(25), duration_s=7.12, has_audio=True)
TALK = Talk(Path("face.png"), MediaInfo("audio", "audio/wav", 0, 0, duration_s=7.1, has_audio=True), Path("face_speaks.mp4"), VIDEO, 3.0)


def test_a_length_within_one_frame_is_right():
    check_talks([TALK])


@pytest.mark.parametrize(
    ("video", "message"),
    [(replace(VIDEO, has_audio=False), "has no sound"), (replace(VIDEO, duration_s=7.2), r"lasts 7.20 s instead of 7.10 s")],
)
def test_what_is_wrong_is_named(video, message):
    with pytest.raises(DemoFailed, match=f"face_speaks.mp4: {message}"):
        check_talks([TALK, replace(TALK, video=video)])


def test_the_table_says_what_was_spoken():
    console = Console(width=100)
    with console.capture() as shown:
        console.print(to_talk_table([TALK]))
    assert [cell.strip() for cell in shown.get().splitlines()[3].split("│")[1:-1]] == ["face.png", "7.12 s", "178", "3.0"]
