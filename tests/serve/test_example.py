"""The example that another Ray job runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs import upload_media

pytestmark = pytest.mark.serve

EXAMPLE = Path(__file__).parents[2] / "examples" / "submit_from_ray_job.py"


def run_example(cluster, folder, *arguments):
    environment = cluster.environment | {"RAY_ADDRESS": cluster.address}
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


def test_a_ray_job_swaps_a_face_through_the_handle(cluster, api, media, tmp_path):
    source, target = upload_media(api, media / "astronaut.png"), upload_media(api, media / "grace_hopper.jpg")
    done = run_example(cluster, tmp_path, source, target)
    assert done.returncode == 0, done.stderr
    (output,) = map(json.loads, done.stdout.splitlines())
    assert (output["media_type"], output["width"], output["height"]) == ("image/jpeg", 512, 600)
    assert api.get(f"/v1/files/{output['file_id']}").headers["etag"] == f'"{output["sha256"]}"'
    marks = api.post("/v1/verify", params={"file_id": output["file_id"]}).json()
    assert [(label["Label"], label["ContentProducer"]) for label in marks["aigc"]] == [("1", "atelier")]
    assert [line for line in done.stderr.splitlines() if line in {"queued", "running", "succeeded"}] == ["queued", "running", "succeeded"]


def test_a_ray_job_hears_why_its_job_failed(cluster, api, media, tmp_path):
    source, target = upload_media(api, media / "coffee_no_face.png"), upload_media(api, media / "grace_hopper.jpg")
    done = run_example(cluster, tmp_path, source, target)
    assert (done.returncode, done.stdout) == (1, "")
    assert "failed: " in done.stderr
    assert "no_face_detected" in done.stderr
