"""How words of the command line become the workflow and the inputs of a request."""

from __future__ import annotations

import io
import json

import pytest
import typer
from PIL import Image, PngImagePlugin
from rich.console import Console

from deployments.jobs.errors import InvalidInput
from serve_app.client import ApiError, Client
from serve_app.progress import JobProgress
from serve_app.workflow_request import WorkflowRequest, to_pairs

GRAPH = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}}
FILE_ID = "5d1c1f0e-58c2-4d0a-9f8b-0d8a7a4c9b11"
SCHEMA = {
    "prompt": {"type": "string", "x-type": "string"},
    "width": {"type": "integer", "x-type": "integer"},
    "seed": {"type": "integer", "x-type": "seed"},
    "cfg": {"type": "number", "x-type": "number"},
    "tiled": {"type": "boolean", "x-type": "boolean"},
    "method": {"enum": ["area", 4, True], "x-type": "choice"},
    "checkpoint": {"type": "string", "x-type": "choice"},
    "image": {"anyOf": [], "x-type": "image"},
    "sound": {"anyOf": [], "x-type": "audio"},
}


class Server(Client):
    """A client of a server that knows one workflow and takes files."""

    def __init__(self):
        super().__init__("http://atelier.test")
        self.uploads = []

    def workflow(self, name):
        if name != "known":
            raise ApiError(f"there is no workflow {name}", "workflow_not_found", 404)
        return {"inputs_schema": {"properties": SCHEMA}}

    def upload(self, path, advance=None):
        self.uploads.append(path.name)
        return {"file_id": f"upload-{len(self.uploads)}"}


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture
def build(server):
    with JobProgress(Console(file=io.StringIO())) as progress:
        yield WorkflowRequest(server, progress).build


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Run in an empty folder with one picture."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me.png").write_bytes(b"pixels")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "word", "value"),
    [
        ("prompt", "12", "12"),
        ("prompt", "a=b [c]", "a=b [c]"),
        ("prompt", "", ""),
        ("prompt", "@me.png", "@me.png"),
        ("width", "512", 512),
        ("width", "wide", "wide"),
        ("seed", "18446744073709551615", 18446744073709551615),
        ("cfg", "7.5", 7.5),
        ("cfg", "1e999", "1e999"),
        ("cfg", "NaN", "NaN"),
        ("cfg", "[1]", "[1]"),
        ("tiled", "true", True),
        ("tiled", "yes", "yes"),
        ("method", "area", "area"),
        ("method", "4", 4),
        ("method", "true", True),
        ("method", "other", "other"),
        ("checkpoint", "5", "5"),
        ("image", "me.png", {"file_id": "upload-1"}),
        ("sound", "me.png", {"file_id": "upload-1"}),
        ("image", FILE_ID, FILE_ID),
        ("image", "https://example.com/a.png", "https://example.com/a.png"),
        ("image", "data:image/png;base64,AAAA", "data:image/png;base64,AAAA"),
        ("image", '{"url": "https://example.com/a"}', {"url": "https://example.com/a"}),
        ("undeclared", "12", "12"),
        ("undeclared", "me.png", "me.png"),
        ("undeclared", "on-the-backend.png", "on-the-backend.png"),
        ("undeclared", "@me.png", {"file_id": "upload-1"}),
        ("undeclared", "@https://example.com/a.png", {"url": "https://example.com/a.png"}),
        ("undeclared", '{"a": 1}', {"a": 1}),
        ("undeclared", "{1", "{1"),
        ("undeclared", "[" * 100_000, "[" * 100_000),
    ],
)
def test_words_become_what_the_schema_of_the_input_says(build, server, name, word, value):
    assert build("known", {name: word}, {}) == {"kind": "comfyui", "workflow": "known", "inputs": {name: value}, "overrides": {}}
    assert server.uploads == (["me.png"] if value == {"file_id": "upload-1"} else [])


def test_an_override_has_no_schema_even_where_an_input_has_one(build):
    words = {"image": "on-the-backend.png", "width": "512", "1.image": "@me.png"}
    assert build("known", {}, words)["overrides"] == {"image": "on-the-backend.png", "width": "512", "1.image": {"file_id": "upload-1"}}


@pytest.mark.parametrize("word", ["mee.png", "{1", "folder", "x" * 5000])
def test_media_that_are_no_file_here_are_an_error_that_says_so(build, server, folder, word):
    (folder / "folder").mkdir()
    with pytest.raises(ApiError, match="there is no such file here, and it is no URL and no file id") as raised:
        build("known", {"image": word}, {})
    assert (str(raised.value).partition(":")[0], raised.value.code) == (word, "no_such_file")
    assert server.uploads == []


@pytest.mark.parametrize("name", ["graph.json", "graph.PNG"])
def test_a_workflow_of_a_file_is_sent_along_and_its_inputs_have_no_schema(build, folder, name):
    data = json.dumps(GRAPH).encode()
    if name == "graph.PNG":
        carried, picture = PngImagePlugin.PngInfo(), io.BytesIO()
        carried.add_text("prompt", json.dumps(GRAPH))
        Image.new("RGB", (1, 1)).save(picture, "png", pnginfo=carried)
        data = picture.getvalue()
    (folder / name).write_bytes(data)
    request = build(name, {"image": "me.png", "width": "8"}, {})
    assert (request["workflow"], request["inputs"]) == (GRAPH, {"image": "me.png", "width": "8"})


@pytest.mark.parametrize(
    ("name", "error"), [("nope", ApiError), ("nope.json", FileNotFoundError), ("folder.json", IsADirectoryError), ("me.png", InvalidInput)]
)
def test_what_is_no_workflow_is_an_error(build, folder, name, error):
    (folder / "folder.json").mkdir()
    with pytest.raises(error):
        build(name, {}, {})


def test_pairs_are_split_at_the_first_equals_sign():
    assert to_pairs(["a=b=c", "d="], "--input") == {"a": "b=c", "d": ""}
    assert to_pairs(None, "--input") == {}


@pytest.mark.parametrize(
    ("words", "reason"), [(["a"], "a is not of the form"), (["=a"], "=a is not of the form"), (["a=1", "a=2"], "a is given twice")]
)
def test_words_that_are_no_pairs_are_named(words, reason):
    with pytest.raises(typer.BadParameter, match=reason):
        to_pairs(words, "--set")
