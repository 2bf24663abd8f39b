"""What a worker does first with a file that it does not know, as a child process does it for the tests."""

from __future__ import annotations

from pathlib import Path

from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import load_picture
from deployments.engines.media.probe import PICTURE_TYPES, probe_video, sniff_file
from deployments.engines.media.sound import load_samples
from deployments.engines.media.video import read_frames
from deployments.jobs.errors import ServiceError

LIMITS = MediaLimits()


def judge(path: Path) -> str:
    """Decode a file whole, by what it says it is; return ``passes`` or the code of the error."""
    try:
        media_type = sniff_file(path)
        if media_type in PICTURE_TYPES:
            load_picture(path, LIMITS)
        elif media_type.startswith("audio/"):
            load_samples(path, 16_000, LIMITS)
        else:
            for _ in read_frames(path, probe_video(path, LIMITS), LIMITS):
                pass
    except ServiceError as error:
        return error.code
    return "passes"


def peak_bytes() -> int:
    """Return the most memory that this process has had; what getrusage says counts its parent too, from before it became itself."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024
