"""Workflows on the command line: what is sent, where results go, and how refusals read."""

from __future__ import annotations

import hashlib
import json

import httpx
import pytest
from typer.testing import CliRunner

from serve_app import cli, client

JOB_ID = "5d1c1f0e-58c2-4d0a-9f8b-0d8a7a4c9b11"
GRAPH = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}}
SCHEMA = {
    "width": {"type": "integer", "x-type": "integer"},
    "seed": {"type": "integer", "x-type": "seed"},
    "image": {"anyOf": [], "x-type": "image"},
}
WORKFLOWS = {
    "workflows": [
        {
            "name": "invert",
            "title": "In\x1bvert",
            "parameters": {"image": {"type": "image", "required": True}, "seed": {"type": "seed", "required": False}},
        }
    ],
    "problems": [{"file": "broken.json", "reason": "is not JSON"}],
}


def output(name, **more):
    data = name.encode()
    return {
        "file_id": name,
        "url": f"http://x/v1/files/{name}",
        "name": name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        **more,
    }


def job(status="succeeded", outputs=(), error=None):
    return {"id": JOB_ID, "kind": "comfyui", "status": status, "attempt": 1, "outputs": list(outputs), "error": error}


class Server:
    """Plays a service that knows one workflow and whose one job ends in a given state, or is refused."""

    def __init__(self, ended, refusal=None):
        self.ended = ended
        self.refusal = refusal
        self.uploads = []
        self.request = None

    def __call__(self, request):  # noqa: PLR0911 -- an answer to each route
        request.read()
        match request.method, request.url.path.split("/")[2:]:
            case "POST", ["files"]:
                self.uploads.append(request.content)
                return httpx.Response(201, json={"file_id": f"upload-{len(self.uploads)}"})
            case "POST", ["jobs"]:
                self.request = json.loads(request.content)
                return httpx.Response(422, json=self.refusal) if self.refusal else httpx.Response(202, json=job("queued"))
            case "GET", ["workflows"]:
                return httpx.Response(200, json=WORKFLOWS)
            case "GET", ["workflows", "known"]:
                return httpx.Response(200, json={"inputs_schema": {"properties": SCHEMA}})
            case "GET", ["workflows", name]:
                return httpx.Response(404, json={"detail": f"there is no workflow {name}", "code": "workflow_not_found"})
            case "GET", ["jobs", _, "events"]:
                event = {"id": "1-1", "type": "state", "status": self.ended["status"], "attempt": 1}
                return httpx.Response(200, content=f"data: {json.dumps(event)}\n\n".encode())
            case "GET", ["files", name]:
                return httpx.Response(200, content=name.encode())
            case _:
                return httpx.Response(200, json=self.ended)


@pytest.fixture
def serve(monkeypatch):
    """Return a function that puts a service where the command line looks for one."""

    def having(*ended, **more):
        server = Server(*(ended or [job()]), **more)
        real = client.Client
        monkeypatch.setattr(client, "Client", lambda url: real(url, transport=httpx.MockTransport(server), reconnect_s=0))
        return server

    monkeypatch.setenv("TASK_API_URL", "http://atelier.test")
    return having


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Run in an empty folder with one picture."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me.png").write_bytes(b"pixels")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def run_workflow(*arguments):
    return run("submit", "workflow", *arguments)


def test_everything_that_is_asked_for_is_sent(serve):
    server = serve(job("queued"))
    done = run_workflow(
        *(
            "known",
            "--input",
            "width=8",
            "--input",
            "seed=-1",
            "--set",
            "My node.image=@me.png",
            "--set",
            "6.text=7",
            "--set",
            '9.x={"a": 1}',
        ),
        *("--tag", "sdxl", "--tag", "fast", "--priority", "-5", "--label", "a:b", "--no-wait"),
    )
    assert (done.exit_code, done.stdout) == (0, f"{JOB_ID}\n")
    assert server.request == {
        "kind": "comfyui",
        "workflow": "known",
        "inputs": {"width": 8, "seed": -1},
        "overrides": {"My node.image": {"file_id": "upload-1"}, "6.text": "7", "9.x": {"a": 1}},
        "options": {"backend_tags": ["sdxl", "fast"]},
        "priority": -5,
        "labels": {"a": "b"},
    }


def test_a_workflow_of_a_file_is_sent_along(serve, folder):
    server = serve()
    (folder / "graph.json").write_text(json.dumps(GRAPH))
    assert run_workflow("graph.json", "--input", "image=me.png").exit_code == 0
    assert (server.request["workflow"], server.request["inputs"]) == (GRAPH, {"image": "me.png"})


@pytest.mark.parametrize(
    ("outputs", "place", "expected"),
    [
        ([output("a.png")], "out.png", {"out.png"}),
        ([output("a.png")], ".", {"5d1c1f0e-a.png"}),
        ([output(f"{JOB_ID}_9_0.png")], ".", {f"{JOB_ID}_9_0.png"}),
        ([output("a.png"), output("b.png")], "new/out", {"new/out/5d1c1f0e-a.png", "new/out/5d1c1f0e-b.png"}),
        ([output("a.png"), output("t.png", temporary=True)], "out.png", {"out.png"}),
        ([output("t.png", temporary=True)], "out.png", {"out.png"}),
        ([], "out.png", set()),
    ],
)
def test_results_go_to_a_file_or_several_into_a_folder(serve, folder, outputs, place, expected):
    serve(job(outputs=outputs))
    done = run_workflow("known", "--output", place)
    assert (done.exit_code, set(done.stdout.splitlines())) == (0, expected)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {"me.png", *expected}


def test_several_results_do_not_overwrite_a_file(serve, folder):
    serve(job(outputs=[output("a.png"), output("b.png")]))
    done = run_workflow("known", "--output", "me.png")
    assert (done.exit_code, done.stdout, (folder / "me.png").read_bytes()) == (1, "", b"pixels")
    assert "me.png is a file, and the job" in done.stderr


def test_a_workflow_that_fails_leaves_what_it_had_finished(serve, folder):
    problem = {"comfy_node": "3", "title": "Sampler", "input": "cfg", "message": "cfg is too high"}
    error = {"code": "workflow_invalid", "message": "ComfyUI refuses the workflow", "details": {"nodes": [problem]}}
    serve(job("failed", [output("a.png")], error))
    done = run_workflow("known", "--output", "out.png")
    assert (done.exit_code, done.stdout, (folder / "out.png").is_file()) == (1, "out.png\n", True)
    assert done.stderr.endswith("workflow_invalid: ComfyUI refuses the workflow\n  Sampler (3), cfg: cfg is too high\n")


def test_a_refusal_names_each_node_and_what_it_takes(serve):
    nodes = [
        {"comfy_node": "3", "title": "Sampler", "input": "sampler_name", "message": "is 'eulr'", "allowed": ["euler", "heun"]},
        {"comfy_node": "", "title": "", "input": "width", "message": "is 1", "allowed": {"min": 8, "max": 16}},
        {"comfy_node": "", "title": "", "input": "", "message": "no\x1b output", "allowed": None},
    ]
    serve(refusal={"detail": "ComfyUI would refuse it", "code": "workflow_invalid", "nodes": nodes})
    done = run_workflow("known")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "ComfyUI would refuse it",
        "  Sampler (3), sampler_name: is 'eulr' (there is: euler, heun)",
        "  width: is 1",
        "  workflow: no  output",
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("nope",), 1, "there is no workflow nope"),
        (("nope.json",), 1, "nope.json: No such file or directory"),
        (("folder.json",), 1, "folder.json: Is a directory"),
        (("me.png",), 1, "the workflow is not JSON"),
        (("known", "--input", "prompt"), 2, "prompt is not of the form name=value"),
        (("known", "--set", "=x"), 2, "=x is not of the form name=value"),
        (("known", "--input", "seed=1", "--input", "seed=2"), 2, "seed is given twice"),
        (("known", "--input", "prompt=\udcff"), 1, "the arguments hold what is not UTF-8"),
        (("known", "--set", "1.image=@no.png"), 1, "no.png is no file here, no URL and no file id"),
        (("known", "--input", "image=mee.png"), 1, "mee.png: there is no such file here"),
    ],
)
def test_wrong_arguments_send_nothing_and_are_named(serve, folder, arguments, status, message):
    (folder / "folder.json").mkdir()
    server = serve()
    done = run_workflow(*arguments)
    assert (done.exit_code, server.request) == (status, None)
    assert message in done.stderr


def test_workflows_are_listed_with_how_their_inputs_are_given(serve):
    serve()
    done = run("workflows")
    assert done.stdout == "invert                In vert                   image=image [seed=seed]\n"
    assert done.stderr == "broken.json: is not JSON\n"
    assert json.loads(run("workflows", "--json").stdout) == WORKFLOWS["workflows"]
