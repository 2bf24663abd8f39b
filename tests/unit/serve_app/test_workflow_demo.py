"""The demo's workflow: which one is run on which backends, and what is called wrong."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import load_picture
from deployments.jobs.errors import InvalidInput
from serve_app import workflow_demo
from serve_app.demo import SAMPLES, SOURCE
from serve_app.progress import JobProgress
from serve_app.settings import Settings
from serve_app.workflow_demo import DRAWN_SIZE, FAKE_NAME, DemoFailed, Errand, Run, WorkflowDemo, check_run, to_run_table

BEFORE = load_picture(SOURCE, MediaLimits())
HEIGHT, WIDTH = BEFORE.shape[:2]
DRAWN = np.zeros((DRAWN_SIZE[1], DRAWN_SIZE[0], 3), np.uint8)
MANAGED = {"comfyui": {"managed": {"directory": "/srv/comfyui"}}}


def backend(name, *, healthy=True, draining=False, fake=False):
    return {"name": name, "healthy": healthy, "draining": draining, "fake": fake}


class Service:
    """A client of a service whose one job makes a picture."""

    def __init__(self, backends, picture=None, ended=None, ran_on=None):
        self.backends = backends  # lists, one an answer; the last one stays
        self.picture = picture
        self.ended = ended or {}
        self.ran_on = ran_on
        self.request = None

    def capabilities(self):
        return {"backends": self.backends.pop(0) if len(self.backends) > 1 else self.backends[0]}

    def submit(self, request):
        self.request = request
        return {"id": "7"}

    def events(self, job_id):
        yield {"type": "state", "status": "succeeded", "attempt": 1}

    def get(self, job_id):
        attempts = [{"facts": {"backend": "lost"}}, {"facts": {"backend": self.ran_on or self.backends[0][0]["name"]}}]
        outputs = [{"file_id": "f", "name": "7_9_0.png", "size_bytes": 1}]
        return {"id": job_id, "status": "succeeded", "error": None, "attempts": attempts, "outputs": outputs} | self.ended

    def download(self, output, path, advance):
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.picture is None:
            shutil.copy(SAMPLES / "CREDITS.md", path)
        else:
            cv2.imwrite(str(path), self.picture)
        return path


@pytest.fixture
def build(monkeypatch, tmp_path):
    """Return a function that makes the workflow's part of the demo, and what it prints."""

    def building(**settings):
        monkeypatch.setattr(workflow_demo, "POLL_S", 0.0)
        printed = io.StringIO()
        return WorkflowDemo(Settings(data_dir=tmp_path, **settings), Console(file=printed, width=200), SOURCE), printed

    return building


def run_workflow(made, service):
    with JobProgress(Console(file=io.StringIO())) as progress:
        return made.run(service, progress, "upload-1")


def test_a_fake_backend_draws_and_it_is_said_that_it_is_fake(build, tmp_path):
    made, printed = build()
    service = Service([[backend("f", healthy=False, fake=True)], [backend("f", fake=True)]], DRAWN)
    run = run_workflow(made, service)
    assert service.request == {
        "kind": "comfyui",
        "workflow": "text-to-image",
        "inputs": {"prompt": "a lighthouse at dusk", "width": 640, "height": 448},
        "labels": {"made-by": "demo"},
    }
    assert (run.backend, run.fake, run.result) == ("f", True, tmp_path / "demo" / "text-to-image.png")
    check_run(run)
    assert "The workflow runs on a fake backend (no model: the picture is a stand-in)." in printed.getvalue()


def test_a_real_backend_inverts_even_beside_a_fake_one(build):
    made, printed = build()
    service = Service([[backend("real"), backend("f", fake=True)]], 255 - BEFORE)
    run = run_workflow(made, service)
    assert (service.request["workflow"], service.request["inputs"]) == ("invert", {"image": {"file_id": "upload-1"}})
    assert (run.backend, run.fake, run.errand.size) == ("real", False, (WIDTH, HEIGHT))
    check_run(run)
    assert printed.getvalue() == ""


def test_a_real_backend_that_is_ill_leaves_the_work_to_a_fake_one(build):
    service = Service([[backend("f", fake=True), backend("ill", healthy=False), backend("away", draining=True)]], DRAWN)
    assert run_workflow(build()[0], service).errand.workflow == "text-to-image"


@pytest.mark.parametrize(
    "backends",
    [
        [[]],  # a replica, and with it a server, may start only when there is a job
        [[backend("managed-abc", healthy=False)]],
        [[backend("managed-abc", healthy=False)], [backend("managed-abc")]],
        [[backend("managed-old", draining=True), backend("managed-abc")]],
    ],
)
def test_managed_servers_are_real_ones_seen_or_not(build, monkeypatch, backends):
    if len(backends) == 1:
        monkeypatch.setattr(workflow_demo, "BACKEND_TIMEOUT_S", 0.0)
    made, printed = build(**MANAGED)
    service = Service(backends, 255 - BEFORE, ran_on="managed-abc")
    run = run_workflow(made, service)
    assert (run.errand.workflow, run.backend, run.fake) == ("invert", "managed-abc", False)
    check_run(run)
    assert printed.getvalue() == ""


@pytest.mark.parametrize(
    ("backends", "reason"),
    [
        ([], "the service has none"),
        ([backend("a", healthy=False), backend("b", healthy=False)], "none of a, b takes jobs"),
        ([backend("a", draining=True)], "none of a takes jobs"),
    ],
)
def test_without_a_backend_no_workflow_is_run_and_a_line_says_why(build, monkeypatch, backends, reason):
    monkeypatch.setattr(workflow_demo, "BACKEND_TIMEOUT_S", 0.0)
    made, printed = build()
    service = Service([backends])
    assert (run_workflow(made, service), service.request) == (None, None)
    assert printed.getvalue() == f"No workflow is run, for want of a ComfyUI server: {reason}. COMFYUI_URL says where one is.\n"


def test_the_demos_own_fake_backend_has_to_work(build, monkeypatch):
    monkeypatch.setattr(workflow_demo, "BACKEND_TIMEOUT_S", 0.0)
    with pytest.raises(DemoFailed, match="the fake backend is there and takes no jobs"):
        run_workflow(build()[0], Service([[backend(FAKE_NAME, healthy=False)]]))


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        (
            {"status": "failed", "outputs": [], "error": {"message": "no such checkpoint"}},
            "the job 7 for invert is failed: no such checkpoint",
        ),
        ({"status": "cancelled", "outputs": []}, "the job 7 for invert is cancelled"),
        ({"outputs": []}, "the job 7 for invert has 0 results instead of 1"),
    ],
)
def test_a_workflow_that_does_not_succeed_is_a_failure(build, ended, reason):
    with pytest.raises(DemoFailed, match=reason):
        run_workflow(build()[0], Service([[backend("real")]], ended=ended))


def test_a_result_that_is_no_picture_is_an_error(build):
    with pytest.raises(InvalidInput, match="the picture cannot be read"):
        run_workflow(build()[0], Service([[backend("real")]]))


def ran(picture, size=(WIDTH, HEIGHT), inverted=SOURCE, fake=False):
    return Run(Errand("invert", {}, size, inverted), "b", fake, Path("invert.png"), picture, 1.25)


def with_one_pixel(value):
    picture = 255 - BEFORE
    picture[5, 5, 0] = value
    return picture


def stamped(rows):
    picture = 255 - BEFORE
    picture[-rows:, :150] = 0
    return picture


def test_check_run_lets_a_fake_backend_put_its_name_into_a_corner():
    check_run(ran(stamped(25), fake=True))


def test_check_run_lets_fractions_be_cut_off():
    check_run(ran(np.clip(254 - BEFORE.astype(np.int16), 0, 255).astype(np.uint8)))


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (ran(BEFORE), "is not the negative of astronaut.png"),
        (ran(with_one_pixel(BEFORE[5, 5, 0])), "is not the negative of astronaut.png"),
        (ran(stamped(25)), "is not the negative of astronaut.png"),
        (ran(BEFORE, fake=True), "is not the negative of astronaut.png"),
        (ran(255 - BEFORE[:-1]), "is a picture of 512x511 instead of 512x512"),
        (ran(DRAWN, (448, 640), None), "is a picture of 640x448 instead of 448x640"),
    ],
)
def test_check_run_names_what_is_wrong(run, reason):
    with pytest.raises(DemoFailed, match=f"invert.png: {reason}"):
        check_run(run)


@pytest.mark.parametrize(
    ("run", "backend", "picture"),
    [
        (ran(BEFORE), "b", "512x512, negative of astronaut.png"),
        (ran(DRAWN, inverted=None, fake=True), "b (fake)", "640x448, stand-in"),
        (ran(DRAWN, inverted=None), "b", "640x448, drawn"),
    ],
)
def test_table_says_whether_a_model_had_a_part(run, backend, picture):
    printed = io.StringIO()
    Console(file=printed, width=100).print(to_run_table(run))
    cells = [cell.strip() for cell in printed.getvalue().splitlines()[3].strip("│").split("│")]
    assert cells == ["invert", backend, picture, "1.2"]
