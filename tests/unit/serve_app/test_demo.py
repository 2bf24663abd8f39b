"""The demo without Ray: what it measures, what it calls wrong, and how it starts and ends a service."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from deployments.engines.face_swap.config import FaceSwapConfig
from deployments.engines.media.probe import MediaInfo
from deployments.jobs.errors import NoFaceDetected
from serve_app import demo, service_process
from serve_app.client import Client
from serve_app.demo import Demo, Measured, Swap
from serve_app.identity import IdentityMeter, Likeness, likeness
from serve_app.service_process import ServiceFailed, ServiceProcess
from serve_app.settings import HOME, Settings
from serve_app.workflow_demo import DemoFailed

PICTURE = MediaInfo("picture", "image/png", 4, 2)
CLIP = MediaInfo("video", "video/mp4", 4, 2, frames=50, has_audio=True)
SWAP = Swap(Path("target.png"), Path("result.png"), 1.0)


def measured(target=PICTURE, result=None, before=(0.1, 1.0), after=(0.7, 0.3)):
    return Measured(SWAP, target, result or target, Likeness(*before), Likeness(*after))


@pytest.fixture(scope="module")
def meter():
    return IdentityMeter(HOME / "configs" / "models.yaml", FaceSwapConfig())


def test_identity_is_told_apart_and_recognised(meter):
    source, target = (meter.embeddings(demo.SAMPLES / name) for name in ("astronaut.png", "grace_hopper.jpg"))
    found = likeness(target, source, target)
    assert (len(source), len(target)) == (1, 1)
    assert found.to_target == pytest.approx(1)
    assert found.to_source < 0.363


def test_identity_of_a_clip_is_measured_on_frames_spread_over_it(meter):
    clip = meter.embeddings(demo.SAMPLES / "woman_face.mp4")
    assert len(clip) == 8
    assert likeness(clip, clip, clip).to_source > 0.8


def test_identity_needs_a_face(meter, media):
    with pytest.raises(NoFaceDetected):
        meter.embeddings(media / "coffee_no_face.png")


@pytest.mark.parametrize("right", [measured(), measured(CLIP), measured(CLIP, MediaInfo("video", "video/mp4", 4, 2, 51, has_audio=True))])
def test_check_accepts_what_is_right(right):
    demo.check([right])


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (measured(after=(0.1, 0.05)), "does not look more like the source"),
        (measured(after=(0.4, 0.5)), "still looks more like the target"),
        (measured(result=MediaInfo("picture", "image/png", 2, 1)), "is a picture of 2x1 instead of a picture of 4x2"),
        (measured(CLIP, PICTURE), "is a picture of 4x2 instead of a video"),
        (measured(CLIP, MediaInfo("video", "video/mp4", 4, 2, 48, has_audio=True)), "has 48 frames instead of 50"),
        (measured(CLIP, MediaInfo("video", "video/mp4", 4, 2, 50)), "has lost its sound"),
        (measured(CLIP, after=(0.1, 0.05)), "does not look more like the source"),
    ],
)
def test_check_names_what_is_wrong(wrong, reason):
    with pytest.raises(DemoFailed, match=f"result.png: {reason}"):
        demo.check([measured(), wrong])


class Service:
    """A client of a service that hands back the samples, or the targets themselves."""

    def __init__(self, results, status="succeeded"):
        self.results = results
        self.status = status
        self.requests = []

    def to_reference(self, media, advance=None):
        return Path(media).name

    def is_atelier(self):
        return True

    def capabilities(self):
        return {"backends": []}

    def submit(self, request):
        self.requests.append(request)
        return {"id": request["target"] if request["kind"] == "faceswap" else f"{request['video']} speaks"}

    def events(self, job_id):
        yield {"type": "progress", "progress": {"stage": "computing", "fraction": 0.5, "frame": 1, "frames": 2, "eta_s": 3.4}}
        yield {"type": "state", "status": self.status, "attempt": 1}

    def get(self, job_id):
        failed = self.status != "succeeded"
        error = {"code": "x", "message": "no face found"} if failed else None
        return {"id": job_id, "status": self.status, "error": error, "outputs": [] if failed else [{"file_id": job_id, "size_bytes": 1}]}

    def download(self, output, path, advance):
        path.parent.mkdir(parents=True, exist_ok=True)
        return shutil.copy(self.results.get(output["file_id"], demo.TARGETS[1]), path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def run_demo(monkeypatch, tmp_path):
    """Return a function that runs the demo against a service and returns what it printed."""

    def run(service):
        monkeypatch.setattr(demo, "Client", lambda url: service)
        printed = io.StringIO()
        Demo(Settings(data_dir=tmp_path, host="127.0.0.1", port=8000), Console(file=printed, width=200)).run(stay=True)
        return printed.getvalue()

    return run


@pytest.mark.slow
def test_demo_shows_results_of_a_service_that_runs_and_leaves_it_running(run_demo, tmp_path):
    service = Service({"grace_hopper.jpg": demo.SOURCE, "woman_face.mp4": demo.TARGETS[1]})
    with pytest.raises(DemoFailed, match=r"astronaut_in_grace_hopper.jpg: is a picture of 512x512(.|\n)*woman_face.mp4: does not look"):
        run_demo(service)
    assert [(request["source"], request["target"]) for request in service.requests[:2]] == [
        ("astronaut.png", "grace_hopper.jpg"),
        ("astronaut.png", "woman_face.mp4"),
    ]
    assert [(request["audio"], request["video"]) for request in service.requests[2:]] == [
        ("librivox_speech.wav", "astronaut.png"),
        ("librivox_speech.wav", "woman_face.mp4"),
    ]


@pytest.mark.slow
def test_demo_prints_identity_files_and_addresses_when_all_is_right(run_demo, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "check", lambda measured: None)
    monkeypatch.setattr(demo, "check_talks", lambda talks: None)
    printed = run_demo(Service({"grace_hopper.jpg": demo.SOURCE, "woman_face.mp4": demo.TARGETS[1]}))
    assert "astronaut in grace_hopper.jpg │ 0.20 -> 1.00" in printed
    assert "No workflow is run, for want of a ComfyUI server: the service has none. COMFYUI_URL says where one is." in printed
    assert str(tmp_path / "demo" / "astronaut_in_woman_face.mp4") in printed
    assert "http://127.0.0.1:8000/docs" in printed
    assert "/draw" not in printed, "nothing draws without a ComfyUI server"


def test_demo_fails_with_the_reason_of_a_failed_job(run_demo):
    with pytest.raises(DemoFailed, match=r"the job grace_hopper\.jpg for grace_hopper\.jpg is failed: no face found"):
        run_demo(Service({}, status="failed"))


def test_demo_names_a_port_that_somebody_else_has(monkeypatch, tmp_path):
    monkeypatch.setattr(Client, "is_atelier", lambda self: False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DemoFailed, match=f"127.0.0.1:{port} cannot be had"):
            Demo(Settings(data_dir=tmp_path, host="127.0.0.1", port=port), Console(file=io.StringIO())).run(stay=False)


# What plays `atelier serve`: it has a child that outlives it.
WITH_CHILD = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("Ray dashboard   http://127.0.0.1:9", flush=True)
time.sleep(60)
"""


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Return a function that starts a program as if it were the service."""
    real, started = subprocess.Popen, []

    def starting(program):
        with monkeypatch.context() as patch:
            patch.setattr("subprocess.Popen", lambda command, **options: real([sys.executable, "-c", program], **options))
            started.append(ServiceProcess("127.0.0.1", 1, tmp_path / "logs" / "serve.log"))
        return started[-1]

    yield starting
    for service in started:
        service.stop()


def test_service_process_finds_more_in_its_environment_and_the_rest_too(monkeypatch, tmp_path):
    monkeypatch.setenv("OF_THE_PARENT", "kept")
    given = {}
    monkeypatch.setattr("subprocess.Popen", lambda command, **options: given.update(options))
    ServiceProcess("127.0.0.1", 1, tmp_path / "serve.log", {"COMFYUI_URL": "http://127.0.0.1:9"})
    assert (given["env"]["OF_THE_PARENT"], given["env"]["COMFYUI_URL"]) == ("kept", "http://127.0.0.1:9")
    assert "COMFYUI_URL" not in os.environ


class Ready:
    """A client that finds the service ready once its log shows something."""

    def __init__(self, log):
        self.log = log

    def ready(self):
        return b"dashboard" in self.log.read_bytes()


def test_service_process_is_ended_with_all_that_it_started(start):
    service = start(WITH_CHILD)
    service.wait_until_ready(Ready(service.log), lambda waited_s: None)
    assert service.dashboard() == "http://127.0.0.1:9"
    assert len(service._members()) == 2
    service.stop()
    assert service._members() == []
    assert service.wait() == -signal.SIGTERM


def test_service_process_that_ends_early_shows_its_last_lines(start):
    service = start("print('the port is on fire'); raise SystemExit(3)")
    with pytest.raises(ServiceFailed, match=r"ended while it started(.|\n)*the port is on fire"):
        service.wait_until_ready(Ready(service.log), lambda waited_s: None)


def test_service_process_that_is_never_ready_is_given_up(start, monkeypatch):
    monkeypatch.setattr(service_process, "START_TIMEOUT_S", 0.0)
    service = start("import time; time.sleep(60)")
    with pytest.raises(ServiceFailed, match="is not ready after 0 s"):
        service.wait_until_ready(Ready(service.log), lambda waited_s: None)
