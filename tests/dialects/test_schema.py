"""The running graph answers as its OpenAPI document says, whatever it is sent: every operation, dialects included."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.serve, pytest.mark.slow, pytest.mark.timeout(300)]

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance"
EXAMPLES = "3"  # an operation: 7241 requests in six minutes have found nothing that these do not


@pytest.fixture
def left_behind(api):
    """Take back what was submitted: it would keep the workers from the next test's jobs."""
    yield
    for status in ("queued", "running"):
        for job in api.get("/v1/jobs", params={"status": status, "limit": 200}).json()["jobs"]:
            api.post(f"/v1/jobs/{job['id']}/cancel")


@pytest.mark.usefixtures("left_behind")
def test_no_server_error_and_no_surprise(cluster, api, tmp_path):
    operations = sum(len(one) for one in api.get("/openapi.json").json()["paths"].values())  # this run may store workflows
    command = [
        Path(sys.executable).parent / "schemathesis", "run", f"{cluster.url}/openapi.json", "--url", cluster.url, "--checks", CHECKS,
        "--phases", "examples,fuzzing", "--max-examples", EXAMPLES, "--seed", "1", "--request-timeout", "30", "--warnings", "off", "--no-color",
        "--continue-on-failure", "--suppress-health-check", "all", "--report", "ndjson", "--report-dir", tmp_path,
    ]  # fmt: skip
    done = subprocess.run([*map(str, command)], cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.findall(r"Tested: (\d+)", done.stdout) == [str(operations)]
