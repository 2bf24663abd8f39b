"""Users' media come in by two doors, ``open_media`` and ``open_picture``: no other code opens a file for reading with FFmpeg, Pillow or OpenCV."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOORS = {"deployments/engines/media/container.py": {"av.open"}, "deployments/engines/media/picture.py": {"Image.open"}}
WITH_FORMATS = {  # results of our own, read again; one format, or the few that a store takes
    "deployments/engines/marking/visible.py",
    "deployments/storage/cf_images.py",
}
OPENS = {"av.open", "Image.open"}
NEVER = {"cv2.imread", "cv2.imdecode", "cv2.VideoCapture", "av.container.open", "imageio.imread"}
FAKE = "deployments/fake_comfyui/"  # the test server: it reads what tests give it
SOURCES = sorted(
    str(path.relative_to(ROOT))
    for package in ("serve_app", "deployments")
    for path in (ROOT / package).rglob("*.py")
    if not str(path.relative_to(ROOT)).startswith(FAKE)
)


def calls(text: str) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]


def writes(call: ast.Call) -> bool:
    mode = call.args[1] if len(call.args) > 1 else next((word.value for word in call.keywords if word.arg == "mode"), None)
    return isinstance(mode, ast.Constant) and mode.value == "w"


def forbidden(path: str, text: str) -> list[str]:
    found = []
    for name, call in calls(text):
        given = {word.arg for word in call.keywords}
        if name in NEVER:
            found.append(f"{name} in line {call.lineno}")
        elif name in OPENS and name not in DOORS.get(path, ()):
            allowed = writes(call) if name == "av.open" else path in WITH_FORMATS and "formats" in given
            found += [] if allowed else [f"{name} in line {call.lineno}"]
    # By another name, a door would not be seen.
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module in {"av", "cv2", "PIL.Image", "av.container.core"}:
            found += [
                f"import of {alias.name} in line {node.lineno}"
                for alias in node.names
                if alias.name in {"open", "VideoCapture", "imread", "imdecode"}
            ]
        elif isinstance(node, ast.Import):
            found += [
                f"{alias.name} as {alias.asname} in line {node.lineno}"
                for alias in node.names
                if alias.name in {"av", "cv2"} and alias.asname
            ]
    return found


@pytest.mark.parametrize("path", SOURCES)
def test_media_are_opened_by_the_doors_alone(path):
    assert forbidden(path, (ROOT / path).read_text("utf-8")) == []


@pytest.mark.parametrize(
    "text",
    ["av.open(path)", "av.open(path, 'r')", "av.open(path, mode)", "Image.open(path)", "cv2.imread(p)", "cv2.VideoCapture(p)", "from av import open", "import av as ffmpeg"],
)  # fmt: skip
def test_another_door_is_seen(text):
    assert forbidden("deployments/engines/other.py", text)


def test_the_door_of_videos_has_its_whitelists():
    text = (ROOT / "deployments/engines/media/container.py").read_text("utf-8")
    keys = {
        key.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Dict) for key in node.keys if isinstance(key, ast.Constant)
    }
    assert {"format_whitelist", "protocol_whitelist", "codec_whitelist", "max_streams"} <= keys
    [call] = [call for name, call in calls(text) if name == "av.open"]
    assert "options" in {word.arg for word in call.keywords}


def test_the_door_of_pictures_has_its_formats():
    text = (ROOT / "deployments/engines/media/picture.py").read_text("utf-8")
    [call] = [call for name, call in calls(text) if name == "Image.open"]
    assert {word.arg: ast.unparse(word.value) for word in call.keywords} == {"formats": "PICTURE_FORMATS"}
