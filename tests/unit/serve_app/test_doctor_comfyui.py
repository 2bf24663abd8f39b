"""What the doctor says of ComfyUI servers."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deployments.comfyui_bridge.config import ComfyConfig, ManagedConfig
from deployments.fake_comfyui.config import FakeConfig
from deployments.fake_comfyui.server import FakeComfyUI
from serve_app import doctor


class SomebodyElse(BaseHTTPRequestHandler):
    """Answers 200 and the same to everything."""

    body: bytes

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args):
        pass


@pytest.fixture(params=[b"<html>", b"{}"], ids=["page", "json"])
def somebody_else(request):
    """The address of another server."""
    SomebodyElse.body = request.param
    with ThreadingHTTPServer(("127.0.0.1", 0), SomebodyElse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_no_server_is_no_fault():
    (finding,) = doctor.check_comfyui(ComfyConfig())
    assert (finding.ok, "COMFYUI_URL says where one is" in finding.text) == (True, True)


async def test_a_server_that_answers_is_named_with_its_version_and_called_fake():
    async with FakeComfyUI(FakeConfig(version="0.33.0")) as fake:
        (finding,) = await doctor._ask_all(ComfyConfig(backends=(f"{fake.url}#name=gpu1",)).specs())
    text = f"gpu1 ({fake.url}): a fake backend, no model, version 0.33.0, 0 in its queue"
    assert finding == doctor.Finding("comfyui", ok=True, text=text)


def test_each_server_is_asked_and_those_that_do_not_answer_are_named(somebody_else):
    port = closed_port()
    silent, other = doctor.check_comfyui(ComfyConfig(backends=(f"127.0.0.1:{port}#name=gpu1", f"{somebody_else}#name=gpu2")))
    assert (silent.ok, silent.text) == (
        False,
        f"backend gpu1 does not answer (ConnectError): start ComfyUI on http://127.0.0.1:{port}, or correct COMFYUI_URL",
    )
    assert (other.ok, "does not answer as a ComfyUI server does" in other.text) == (False, True)


@pytest.mark.parametrize("is_there", [True, False])
def test_managed_servers_need_their_program(tmp_path, is_there):
    if is_there:
        (tmp_path / "main.py").touch()
    config = ComfyConfig(managed=ManagedConfig(directory=tmp_path))
    (finding,) = doctor.check_comfyui(config)
    assert (finding.ok, str(tmp_path / "main.py") in finding.text) == (is_there, True)
