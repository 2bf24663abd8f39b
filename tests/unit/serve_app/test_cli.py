"""The command line against a server of fixed answers: what is printed where, and the exit status."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys

import httpx
import pytest
from typer.testing import CliRunner

from serve_app import cli, client, doctor
from serve_app.settings import HOME, Settings

JOB_ID = "5d1c1f0e-58c2-4d0a-9f8b-0d8a7a4c9b11"
BYTES = b"result"
ERROR = {"code": "no_face_detected", "message": "no face found in the source", "retryable": False}
OUTPUT = {
    "file_id": "out",
    "url": "http://x/v1/files/out",
    "name": "faceswap.png",
    "sha256": hashlib.sha256(BYTES).hexdigest(),
    "size_bytes": len(BYTES),
}


def job(status, **more):
    shown = {"id": JOB_ID, "kind": "faceswap", "status": status, "attempt": 1, "created_at": "2026-01-02T03:04:05.678Z"}
    return shown | {"outputs": [], "error": None, "cancel_requested": False} | more


class Server:
    """Plays a service whose one job ends in a given state."""

    def __init__(self, ended):
        self.ended = ended
        self.requests = []

    def __call__(self, request):
        request.read()
        self.requests.append(request)
        match request.method, request.url.path:
            case "POST", "/v1/files":
                return httpx.Response(201, json={"file_id": f"upload-{len(self.requests)}"})
            case "POST", "/v1/jobs":
                return httpx.Response(202, json=job("queued"))
            case "GET", "/v1/jobs":
                return httpx.Response(200, json={"jobs": [self.ended], "next_cursor": None})
            case "GET", path if path.endswith("/events"):
                return httpx.Response(200, content=b"".join(self.events()))
            case "GET", "/v1/files/out":
                return httpx.Response(200, content=BYTES)
            case _:
                return httpx.Response(200, json=self.ended)

    def events(self):
        for number, status in enumerate(("queued", "running", self.ended["status"])):
            view = {"id": f"1-{number}", "type": "state", "status": status, "attempt": 1}
            error = {"error": self.ended["error"]} if status == "failed" else {}
            yield f"data: {json.dumps(view | error)}\n\n".encode()

    def sent(self, path):
        return next(json.loads(request.content) for request in self.requests if request.url.path == path)


@pytest.fixture
def serve(monkeypatch):
    """Return a function that puts a service with this job where the command line looks for one."""

    def having(ended):
        server = Server(ended)
        real = client.Client
        monkeypatch.setattr(client, "Client", lambda url: real(url, transport=httpx.MockTransport(server), reconnect_s=0))
        return server

    monkeypatch.setenv("TASK_API_URL", "http://atelier.test")
    return having


@pytest.fixture
def pictures(tmp_path):
    for name in ("me.png", "film.mp4"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_faceswap_uploads_follows_and_downloads(serve, pictures):
    server = serve(job("succeeded", outputs=[OUTPUT]))
    done = run(
        *("submit", "faceswap", pictures / "me.png", pictures / "film.mp4", "--output", pictures / "out.png"),
        *("--resolution", "640x480", "--format", "png", "--priority", 3, "--label", "a:b:c", "--label", "d:"),
    )
    assert (done.exit_code, done.stdout) == (0, f"{pictures / 'out.png'}\n")
    assert (pictures / "out.png").read_bytes() == BYTES
    assert server.sent("/v1/jobs") == {
        "kind": "faceswap",
        "source": "upload-1",
        "target": "upload-2",
        "output": {"resolution": "640x480", "format": "png"},
        "priority": 3,
        "labels": {"a": "b:c", "d": ""},
    }


def test_face2face_uploads_what_is_spoken_and_by_whom(serve, pictures):
    server = serve(job("succeeded", outputs=[OUTPUT]))
    done = run(
        "submit",
        "face2face",
        pictures / "film.mp4",
        pictures / "me.png",
        "--output",
        pictures / "out.mp4",
        "--fps",
        "30",
        "--engine",
        "mesh",
    )
    assert (done.exit_code, done.stdout) == (0, f"{pictures / 'out.mp4'}\n")
    assert server.sent("/v1/jobs") == {
        "kind": "face2face",
        "audio": "upload-1",
        "video": "upload-2",
        "engine": "mesh",
        "options": {"resolution": None, "fps": 30.0, "enhance": False},
        "priority": 0,
        "labels": {},
    }


def test_faceswap_puts_a_result_into_a_folder_under_a_name_of_its_own(serve, pictures):
    serve(job("succeeded", outputs=[OUTPUT | {"name": "../../evil.png"}]))
    done = run("submit", "faceswap", JOB_ID, "https://example.com/a.mp4", "--output", pictures)
    assert (done.exit_code, done.stdout) == (0, f"{pictures / '5d1c1f0e-evil.png'}\n")


def test_faceswap_prints_the_id_when_nobody_waits(serve):
    server = serve(job("queued"))
    done = run("submit", "faceswap", JOB_ID, JOB_ID, "--no-wait")
    assert (done.exit_code, done.stdout) == (0, f"{JOB_ID}\n")
    assert [request.url.path for request in server.requests] == ["/v1/jobs"]


@pytest.mark.parametrize("command", [("submit", "faceswap", JOB_ID, JOB_ID), ("watch", JOB_ID)])
def test_a_job_that_failed_is_exit_status_1_and_a_reason(serve, command):
    serve(job("failed", error=ERROR))
    done = run(*command)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no_face_detected: no face found in the source" in done.stderr


def test_watch_shows_each_state(serve):
    serve(job("succeeded"))
    done = run("watch", JOB_ID)
    assert done.exit_code == 0
    assert done.stderr.splitlines() == ["faceswap: queued", "faceswap: running, attempt 1", "faceswap: succeeded"]


def test_get_prints_json(serve):
    serve(job("failed", error=ERROR))
    assert json.loads(run("get", JOB_ID).stdout) == job("failed", error=ERROR)


def test_list_prints_a_line_for_each_job_and_sends_its_filters(serve):
    server = serve(job("failed", error=ERROR))
    done = run("list", "--status", "failed", "--label", "a:b")
    assert done.stdout == f"{JOB_ID}  2026-01-02 03:04:05  faceswap    failed     no_face_detected\n"
    assert dict(server.requests[0].url.params) == {"status": "failed", "label": "a:b", "limit": "20"}
    assert json.loads(run("list", "--json").stdout) == [job("failed", error=ERROR)]


@pytest.mark.parametrize(
    ("answer", "printed"), [(job("running", cancel_requested=True), "cancelling"), (job("cancelled", cancel_requested=True), "cancelled")]
)
def test_cancel_says_what_is_known(serve, answer, printed):
    serve(answer)
    assert run("cancel", JOB_ID).stdout == f"{printed}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("submit", "faceswap", "no.png", JOB_ID), "no.png is no file here, no URL and no file id"),
        (("submit", "faceswap", JOB_ID, JOB_ID, "--label", "a"), "a is not of the form name:value"),
    ],
)
def test_wrong_arguments_are_named(serve, arguments, message):
    serve(job("queued"))
    done = run(*arguments)
    assert done.exit_code != 0
    assert message in done.stderr


def test_serve_does_not_start_on_a_taken_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--host", "127.0.0.1", "--port", port)
    assert done.exit_code == 1
    assert f"127.0.0.1:{port} cannot be had" in done.stderr


def test_settings_that_are_not_valid_end_a_command_with_their_name(monkeypatch):
    monkeypatch.setenv("PORT", "0")
    done = run("config")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "port: Input should be greater than or equal to 1" in done.stderr


def test_config_hides_passwords(monkeypatch):
    monkeypatch.setenv("TASK_API_URL", "https://me:hunter2@atelier.test/api")
    done = run("config")
    assert done.exit_code == 0
    assert "hunter2" not in done.stdout
    assert "task_api_url: https://me:***@atelier.test/api\n" in done.stdout


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://127.0.0.1:8000/a", "http://127.0.0.1:8000/a"),
        ("postgresql://u:a/b:c@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql://h/d?user=u&password=x%20y&a=b", "postgresql://h/d?user=u&password=***&a=b"),
    ],
)
def test_hide_secrets_finds_them_in_addresses(text, shown):
    assert cli.hide_secrets({"a": [text, 1, None]}) == {"a": [shown, 1, None]}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HOST": "0.0.0.0", "PORT": "81"}, "http://127.0.0.1:81"),
        ({"HOST": "::", "PORT": "81"}, "http://[::1]:81"),
        ({"HOST": "10.0.0.7", "PORT": "81"}, "http://10.0.0.7:81"),
        ({"HOST": "10.0.0.7", "TASK_API_URL": "https://atelier.test/x"}, "https://atelier.test/x"),
    ],
)
def test_the_server_is_the_one_on_host_and_port_unless_named(monkeypatch, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings().task_api_url == expected


def test_help_imports_neither_ray_nor_engines():
    code = "import sys, serve_app.cli; sys.exit(bool({'ray', 'cv2', 'onnxruntime', 'fastapi', 'httpx'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=HOME, check=False).returncode == 0


def test_doctor_is_exit_status_1_when_anything_is_wrong(monkeypatch):
    findings = [doctor.Finding("a", ok=True, text="fine"), doctor.Finding("b", ok=False, text="mend it")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(findings))
    done = run("doctor")
    assert (done.exit_code, done.stdout.splitlines()) == (1, ["ok    a             fine", "FAIL  b             mend it"])


def test_doctor_finds_this_installation_healthy(monkeypatch, tmp_path):
    monkeypatch.setenv("ATELIER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(doctor, "FSYNC_LIMIT_MS", 10_000.0)  # a busy machine is not what is tested
    monkeypatch.setattr(doctor, "find_port_trouble", lambda host, port: None)
    assert [(finding.name, finding.ok) for finding in doctor.examine()] == [
        (name, True) for name in ("python", "onnx runtime", "settings", "models", "data folder", "port", "comfyui")
    ]


def test_doctor_names_settings_that_do_not_exist(monkeypatch):
    monkeypatch.setenv("ATELIER_DATADIR", "/tmp")
    monkeypatch.setattr(doctor, "check_disk", lambda folder: doctor.Finding("data folder", ok=True, text=""))
    found = {finding.name: finding for finding in doctor.examine()}
    assert found["settings"] == doctor.Finding("settings", ok=False, text="no such setting: ATELIER_DATADIR; .env.example lists all names")


@pytest.mark.parametrize(
    ("installed", "ok", "text"),
    [
        ({"onnxruntime": "1"}, True, "onnxruntime 1"),
        ({"onnxruntime-gpu": "2"}, True, "onnxruntime-gpu 2"),
        ({}, False, "not installed"),
        ({"onnxruntime": "1", "onnxruntime-gpu": "2"}, False, "both builds are installed"),
    ],
)
def test_doctor_wants_one_onnx_runtime(monkeypatch, installed, ok, text):
    monkeypatch.setattr(doctor, "_version", installed.get)
    finding = doctor.check_runtime()
    assert (finding.ok, text in finding.text) == (ok, True)


def test_doctor_wants_a_supported_python():
    assert [doctor.check_python(found).ok for found in ((3, 10), (3, 11), (3, 13), (3, 14))] == [False, True, True, False]


def test_doctor_compares_models_with_the_manifest(tmp_path):
    line = f"{{name: a, file: a.onnx, sha256: {'a' * 64}, licence: MIT, commercial_use: true, source: s, purpose: p}}"
    (tmp_path / "models.yaml").write_text(f"models: [{line}]")
    (tmp_path / "a.onnx").write_bytes(b"altered")
    finding = doctor.check_models(tmp_path / "models.yaml")
    assert (finding.ok, "a.onnx has sha256" in finding.text) == (False, True)


def test_doctor_wants_a_folder_that_it_can_write_to(tmp_path):
    (tmp_path / "file").touch()
    finding = doctor.check_disk(tmp_path / "file" / "data")
    assert (finding.ok, "set ATELIER_DATA_DIR" in finding.text) == (False, True)


def test_doctor_calls_a_slow_disk_slow(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "FSYNC_LIMIT_MS", -1.0)
    assert "is slow" in doctor.check_disk(tmp_path).text


@pytest.mark.parametrize(("answers", "ok"), [(True, True), (False, False)])
def test_doctor_accepts_a_port_that_atelier_has(monkeypatch, answers, ok):
    monkeypatch.setattr(client.Client, "is_atelier", lambda self: answers)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert doctor.check_port("127.0.0.1", taken.getsockname()[1], "http://atelier.test").ok is ok


def test_serve_takes_the_comfyui_servers_of_its_option_and_no_others(monkeypatch):
    served = []
    monkeypatch.setattr("serve_app.main.run_local", lambda settings, announce: served.append(settings))
    monkeypatch.setattr(doctor, "find_port_trouble", lambda host, port: None)
    for name, value in {"COMFYUI_URL": "gpu1:1", "COMFYUI_HOST": "gpu2", "COMFYUI_PORT": "2", "COMFYUI_SERVER": "gpu3:3"}.items():
        monkeypatch.setenv(name, value)
    done = run("serve", "--host", "127.0.0.1", "--port", 8123, "--comfyui-server", "gpu4:8188,https://gpu5")
    assert done.exit_code == 0, done.output
    (settings,) = served
    assert (settings.host, settings.port) == ("127.0.0.1", 8123)
    assert [spec.url for spec in settings.comfyui.specs()] == ["http://gpu4:8188", "https://gpu5:443"]


def test_serve_names_two_comfyui_settings_that_disagree(monkeypatch):
    monkeypatch.setenv("COMFYUI_URL", "gpu1:1")
    monkeypatch.setenv("COMFYUI_COMFYUI_SERVER", "gpu2:2")
    done = run("serve")
    assert done.exit_code == 1
    assert "COMFYUI_URL and COMFYUI_COMFYUI_SERVER name different ComfyUI servers" in " ".join(done.output.split())
