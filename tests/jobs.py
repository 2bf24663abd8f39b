"""What tests do with a running application, over HTTP."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tests.cluster import wait_until

Json = dict[str, Any]
END_TIMEOUT_S = 120.0
TERMINAL = {"succeeded", "failed", "cancelled"}


def upload(api: httpx.Client, name: str, data: bytes) -> str:
    """Store a file and return its id."""
    answer = api.post("/v1/files", files={"file": (name, data)})
    assert answer.status_code == httpx.codes.CREATED, answer.text
    file_id: str = answer.json()["file_id"]
    return file_id


def upload_media(api: httpx.Client, path: Path) -> str:
    """Store a sample and return its id."""
    return upload(api, path.name, path.read_bytes())


def small_portrait(path: Path, side: int = 128) -> bytes:
    """Return a portrait as a JPEG small enough to be swapped in a blink."""
    buffer = io.BytesIO()
    Image.open(path).convert("RGB").resize((side, side)).save(buffer, "JPEG")
    return buffer.getvalue()


def submit(api: httpx.Client, source: str, target: str, **options: Any) -> Json:
    """Submit a face swap and return the accepted job."""
    answer = api.post("/v1/jobs", json={"kind": "faceswap", "source": source, "target": target, **options})
    assert answer.status_code in {httpx.codes.ACCEPTED, httpx.codes.OK}, answer.text
    job: Json = answer.json()
    return job


def read(api: httpx.Client, job_id: str) -> Json:
    """Read a job, while an ingress that was killed comes back."""

    def answered() -> Json | None:
        try:
            answer = api.get(f"/v1/jobs/{job_id}")
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == httpx.codes.OK else None

    job: Json = wait_until(answered, END_TIMEOUT_S, f"job {job_id} cannot be read")
    return job


def wait_for(api: httpx.Client, job_id: str, reached: Any, timeout_s: float = END_TIMEOUT_S) -> Json:
    """Return the job as soon as ``reached(job)`` holds."""

    def look() -> Json | None:
        job = read(api, job_id)
        return job if reached(job) else None

    job: Json = wait_until(look, timeout_s, f"job {job_id} did not get there", lambda: json.dumps(read(api, job_id), indent=1))
    return job


def wait_for_end(api: httpx.Client, job_id: str, timeout_s: float = END_TIMEOUT_S) -> Json:
    """Return the job once it has ended."""
    return wait_for(api, job_id, lambda job: job["status"] in TERMINAL, timeout_s)


def frames_done(job: Json) -> int:
    """Return how many frames a job or one of its events reports."""
    return (job.get("progress") or {}).get("frame") or 0


def events(lines: Iterator[str]) -> Iterator[Json]:
    """Read the data of server-sent events."""
    for line in lines:
        if line.startswith("data:"):
            yield json.loads(line[5:])
