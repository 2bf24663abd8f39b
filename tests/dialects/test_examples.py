"""Every example, run as its reader would, against the live graph."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.serve

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(cluster, tmp_path):
    def start(*command):
        environment = cluster.environment | {"TASK_API_URL": cluster.url}
        return subprocess.run([*map(str, command)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=110, check=False)

    return start


def paths(done, tmp_path):
    assert done.returncode == 0, done.stderr
    return [tmp_path / line for line in done.stdout.splitlines()]


def size(path):
    with Image.open(path) as picture:
        return picture.size


def sizes(files):
    return [size(path) for path in files]


def needed(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def test_basic_usage(run, tmp_path):
    done = run(sys.executable, EXAMPLES / "basic_usage.py", "a lighthouse", "--steps", 2, "--width", 96, "--height", 64, "--output", "made")
    files = paths(done, tmp_path)
    assert sizes(files) == [(96, 64)]
    assert files[0].parent.name == "made"


def test_basic_usage_is_importable(cluster, tmp_path):
    spec = importlib.util.spec_from_file_location("basic_usage", EXAMPLES / "basic_usage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    options = {"prompt": "a fox", "negative_prompt": "blurry", "seed": -1, "steps": 2, "width": 64, "height": 96}
    assert sizes(module.generate_image(**options, server=cluster.url, folder=tmp_path)) == [(64, 96)]


def test_basic_usage_says_why_there_is_no_picture(run):
    done = run(sys.executable, EXAMPLES / "basic_usage.py", "a lighthouse", "--steps", "-3")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no picture: 422: " in done.stderr


def test_batch_generate(run, tmp_path):
    (tmp_path / "prompts.txt").write_text("a lighthouse\n\na fox\n")
    done = run(sys.executable, EXAMPLES / "batch_generate.py", "prompts.txt", "--seeds", 2, "--size", 64, "--steps", 2, "--output", "made")
    assert sizes(paths(done, tmp_path)) == [(64, 64)] * 4


def test_advanced_usage(run, media, tmp_path):
    done = run(sys.executable, EXAMPLES / "advanced_usage.py", media / "coffee_no_face.png")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["uploaded", "result", "interrupted:", "history", "history"]
    assert lines[2] == "interrupted: CANCELLED"
    assert sizes([tmp_path / lines[1].split()[1]]) == [size(media / "coffee_no_face.png")]


@needed("node")
def test_node_client(run, tmp_path):
    done = run("node", EXAMPLES / "node_client.mjs", "a lighthouse", "made")
    assert sizes(paths(done, tmp_path)) == [(512, 512)]


@needed("jq")
@needed("curl")
def test_curl(run, media, tmp_path):
    done = run(EXAMPLES / "curl.sh", media / "astronaut.png", "made")
    assert sizes(paths(done, tmp_path)) == [(512, 512), size(media / "astronaut.png")]
