"""The ComfyUI server that the demo brings along where none is configured, and that it ends with the demo."""

from __future__ import annotations

import io
import signal

import pytest
from rich.console import Console

from deployments.fake_comfyui.child import FakeChild
from deployments.jobs.errors import MediaTooLarge
from serve_app import demo
from serve_app.client import ApiError, Client
from serve_app.demo import Demo
from serve_app.service_process import ServiceFailed
from serve_app.settings import Settings
from serve_app.workflow_demo import FAKE_NAME, DemoFailed


@pytest.fixture
def build(tmp_path):
    """Return a function that makes a demo, and what it prints."""

    def building(**settings):
        printed = io.StringIO()
        return Demo(Settings(data_dir=tmp_path, host="127.0.0.1", port=8000, **settings), Console(file=printed, width=200)), printed

    return building


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
        assert Settings(comfyui_url=services[0]["COMFYUI_URL"]).comfyui.specs()[0].name == FAKE_NAME
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


@pytest.mark.parametrize("error", [ApiError("no answer", "unreachable"), MediaTooLarge("too many pixels")])
def test_what_the_work_raises_is_a_failure_of_the_demo(build, error):
    made, _ = build()

    class Broken:
        def to_reference(self, media, advance):
            raise error

    with pytest.raises(DemoFailed, match=str(error)):
        made._work(Broken())
