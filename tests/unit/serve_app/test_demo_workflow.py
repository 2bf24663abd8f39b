"""The demo's workflow without Ray: which one it runs on which backends, what it calls wrong, and that its fake backend ends with it."""

from __future__ import annotations

import io
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from deployments.engines.media.limits import MediaLimits
from deployments.engines.media.picture import load_picture
from deployments.fake_comfyui.child import FakeChild
from serve_app import demo
from serve_app.client import ApiError, Client
from serve_app.demo import Demo, DemoFailed, Errand, Run
from serve_app.progress import JobProgress
from serve_app.service_process import ServiceFailed
from serve_app.settings import Settings

SOURCE = load_picture(demo.SOURCE, MediaLimits())
HEIGHT, WIDTH = SOURCE.shape[:2]
DRAWN = np.zeros((demo.DRAWN_SIZE[1], demo.DRAWN_SIZE[0], 3), np.uint8)


def backend(name, *, healthy=True, draining=False, fake=False):
    return {"name": name, "healthy": healthy, "draining": draining, "fake": fake}


class Service:
    """A client of a service whose one job makes a picture."""

    def __init__(self, backends, picture=None, ended=None):
        self.backends = backends  # lists, one an answer; the last one stays
        self.picture = picture
        self.ended = ended or {}
        self.request = None

    def to_reference(self, media, advance):
        return "upload-1"

    def capabilities(self):
        return {"backends": self.backends.pop(0) if len(self.backends) > 1 else self.backends[0]}

    def submit(self, request):
        self.request = request
        return {"id": "7"}

    def events(self, job_id):
        yield {"type": "state", "status": "succeeded", "attempt": 1}

    def get(self, job_id):
        attempts = [{"facts": {"backend": "lost"}}, {"facts": {"backend": self.backends[0][0]["name"]}}]
        outputs = [{"file_id": "f", "name": "7_9_0.png", "size_bytes": 1}]
        return {"id": job_id, "status": "succeeded", "error": None, "attempts": attempts, "outputs": outputs} | self.ended

    def download(self, output, path, advance):
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.picture is None:
            shutil.copy(demo.SAMPLES / "CREDITS.md", path)
        else:
            cv2.imwrite(str(path), self.picture)
        return path


@pytest.fixture
def build(monkeypatch, tmp_path):
    """Return a function that makes a demo, and what it prints."""

    def building(**settings):
        monkeypatch.setattr(demo, "POLL_S", 0.0)
        printed = io.StringIO()
        return Demo(Settings(data_dir=tmp_path, host="127.0.0.1", port=8000, **settings), Console(file=printed, width=200)), printed

    return building


def run_workflow(made, service):
    with JobProgress(Console(file=io.StringIO())) as progress:
        return made._run_workflow(service, progress, "upload-1")


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
    demo.check_run(run)
    assert "The workflow runs on a fake backend (no model: the picture is a stand-in)." in printed.getvalue()


def test_a_real_backend_inverts_even_beside_a_fake_one(build):
    made, printed = build()
    service = Service([[backend("real"), backend("f", fake=True)]], 255 - SOURCE)
    run = run_workflow(made, service)
    assert (service.request["workflow"], service.request["inputs"]) == ("invert", {"image": {"file_id": "upload-1"}})
    assert (run.backend, run.fake, run.errand.size) == ("real", False, (WIDTH, HEIGHT))
    demo.check_run(run)
    assert printed.getvalue() == ""


def test_a_real_backend_that_is_ill_leaves_the_work_to_a_fake_one(build):
    service = Service([[backend("f", fake=True), backend("ill", healthy=False), backend("away", draining=True)]], DRAWN)
    assert run_workflow(build()[0], service).errand.workflow == "text-to-image"


@pytest.mark.parametrize(
    ("backends", "reason"),
    [
        ([], "the service has none"),
        ([backend("a", healthy=False), backend("b", healthy=False)], "none of a, b takes jobs"),
        ([backend("a", draining=True)], "none of a takes jobs"),
    ],
)
def test_without_a_backend_no_workflow_is_run_and_a_line_says_why(build, monkeypatch, backends, reason):
    monkeypatch.setattr(demo, "BACKEND_TIMEOUT_S", 0.0)
    made, printed = build()
    service = Service([backends])
    assert (run_workflow(made, service), service.request) == (None, None)
    assert printed.getvalue() == f"No workflow is run, for want of a ComfyUI server: {reason}. COMFYUI_URL says where one is.\n"


def test_the_demos_own_fake_backend_has_to_work(build, monkeypatch):
    monkeypatch.setattr(demo, "BACKEND_TIMEOUT_S", 0.0)
    with pytest.raises(DemoFailed, match="the fake backend is there and takes no jobs"):
        run_workflow(build()[0], Service([[backend(demo.FAKE_NAME, healthy=False)]]))


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


def test_a_result_that_is_no_picture_is_a_failure(build, monkeypatch):
    made, _ = build()
    monkeypatch.setattr(made, "_swap", lambda *arguments: None)
    service = Service([[backend("real")]])
    with pytest.raises(DemoFailed, match="the picture cannot be read"):
        made._work(service)


def ran(picture, size=(WIDTH, HEIGHT), inverted=demo.SOURCE, fake=False):
    return Run(Errand("invert", {}, size, inverted), "b", fake, Path("invert.png"), picture, 1.25)


def with_one_pixel(value):
    picture = 255 - SOURCE
    picture[5, 5, 0] = value
    return picture


def stamped(rows):
    picture = 255 - SOURCE
    picture[-rows:, :150] = 0
    return picture


def test_check_run_lets_a_fake_backend_put_its_name_into_a_corner():
    demo.check_run(ran(stamped(25), fake=True))


def test_check_run_lets_fractions_be_cut_off():
    demo.check_run(ran(np.clip(254 - SOURCE.astype(np.int16), 0, 255).astype(np.uint8)))


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (ran(SOURCE), "is not the negative of astronaut.png"),
        (ran(with_one_pixel(SOURCE[5, 5, 0])), "is not the negative of astronaut.png"),
        (ran(stamped(25)), "is not the negative of astronaut.png"),
        (ran(SOURCE, fake=True), "is not the negative of astronaut.png"),
        (ran(255 - SOURCE[:-1]), "is a picture of 512x511 instead of 512x512"),
        (ran(DRAWN, (448, 640), None), "is a picture of 640x448 instead of 448x640"),
    ],
)
def test_check_run_names_what_is_wrong(run, reason):
    with pytest.raises(DemoFailed, match=f"invert.png: {reason}"):
        demo.check_run(run)


@pytest.mark.parametrize(
    ("run", "backend", "picture"),
    [
        (ran(SOURCE), "b", "512x512, negative of astronaut.png"),
        (ran(DRAWN, inverted=None, fake=True), "b (fake)", "640x448, stand-in"),
        (ran(DRAWN, inverted=None), "b", "640x448, drawn"),
    ],
)
def test_table_says_whether_a_model_had_a_part(run, backend, picture):
    printed = io.StringIO()
    Console(file=printed, width=100).print(demo.to_run_table(run))
    cells = [cell.strip() for cell in printed.getvalue().splitlines()[3].strip("│").split("│")]
    assert cells == ["invert", backend, picture, "1.2"]


class Fake(FakeChild):
    """Remembers itself; starts nothing."""

    made: list[Fake]
    trouble: BaseException | None = None

    def start(self):
        self.made.append(self)
        self.running = True
        if self.trouble:
            raise self.trouble

    def stop(self):
        self.running = False


@pytest.fixture
def fakes(monkeypatch):
    """The fake backends that a demo has started."""
    Fake.made = []
    monkeypatch.setattr(demo, "FakeChild", Fake)
    yield Fake.made
    Fake.trouble = None


@pytest.fixture
def services(monkeypatch):
    """The services that a demo has started, each as the environment that it was given; signal handlers are put back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    started = []

    class Started:
        def __init__(self, host, port, log, environment):
            started.append(environment)

        def wait_until_ready(self, client, tick):
            pass

        def stop(self):
            raise ServiceFailed("processes 7 of the service do not end")

    monkeypatch.setattr(demo, "ServiceProcess", Started)
    monkeypatch.setattr(demo, "find_port_trouble", lambda host, port: None)
    monkeypatch.setattr(Client, "is_atelier", lambda self: False)
    yield started
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_fake_backend_is_brought_along_and_ends_even_if_the_service_does_not(build, fakes, services):
    made, printed = build()
    with pytest.raises(ServiceFailed), Client("http://127.0.0.1:8000") as client, made._service(client):
        (fake,) = fakes
        assert (fake.running, services) == (True, [{"COMFYUI_URL": f"{fake.url}#name=demo-fake"}])
        assert Settings(comfyui_url=services[0]["COMFYUI_URL"]).comfyui.specs()[0].name == demo.FAKE_NAME
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    assert not fake.running
    assert "the demo starts a fake backend (no model: the picture is a stand-in)" in printed.getvalue()


@pytest.mark.parametrize(
    "settings", [{"comfyui_url": "127.0.0.1:8188"}, {"comfyui": {"managed": {"directory": "/srv/comfyui"}}}], ids=["configured", "managed"]
)
def test_no_fake_backend_is_brought_where_the_settings_name_a_server(build, fakes, services, settings):
    made, printed = build(**settings)
    with pytest.raises(ServiceFailed), Client("http://127.0.0.1:8000") as client, made._service(client):
        assert (fakes, services) == ([], [{}])
    assert "fake" not in printed.getvalue()


@pytest.mark.parametrize(("trouble", "expected"), [(OSError("ended with status 1"), DemoFailed), (KeyboardInterrupt(), KeyboardInterrupt)])
def test_a_fake_backend_that_does_not_come_up_leaves_nothing_behind(build, fakes, services, trouble, expected):
    Fake.trouble = trouble
    made, _ = build()
    with pytest.raises(expected), made._backend():
        pass
    assert (fakes[0].running, services) == (False, [])


def test_a_lost_service_is_a_failure_of_the_demo(build):
    made, _ = build()

    class Gone:
        def to_reference(self, media, advance):
            raise ApiError("no answer", "unreachable")

    with pytest.raises(DemoFailed, match="no answer"):
        made._work(Gone())
