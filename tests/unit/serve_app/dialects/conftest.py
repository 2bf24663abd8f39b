"""A backend that is registered, and jobs that are driven by hand."""

from __future__ import annotations

import hashlib
import uuid

import pytest

from deployments.jobs.model import Artifact, BackendSpec, FileRecord, Job
from tests.workflows import text_to_image

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
async def backend(store):
    """A ComfyUI server that is known and that nobody drives, so that jobs are accepted and wait."""
    await store.add_backend(BackendSpec("gpu1", "http://127.0.0.1:9", configured=False))


@pytest.fixture
def healthy(desk, monkeypatch):
    """Have the gateway find its servers healthy."""

    async def reachable(patience_s: float) -> bool:
        return True

    monkeypatch.setattr(desk.servers, "reachable", reachable)


@pytest.fixture
def finish(store, objects):
    """End a claimed job with a picture of its own."""

    async def end(job: Job, node: str | None = "9") -> Artifact:
        key, name = f"outputs/{job.id}", f"{job.id}_{node}_1.png" if node else "result.png"
        stored = await objects.put(key, "image/png", PNG, hashlib.sha256(PNG).hexdigest())
        artifact = Artifact(str(uuid.uuid4()), name, "image/png", stored.uri, len(PNG), stored.sha256, 64, 64, None, node)
        await store.finish(job.id, job.attempt, [artifact], {})
        return artifact

    return end


@pytest.fixture
def graph():
    return text_to_image()


@pytest.fixture
def record(store):
    """Publish an upload of that name."""

    async def publish(name: str, *, media_type: str = "image/png", sha256: str = "00") -> FileRecord:
        made = FileRecord(str(uuid.uuid4()), "default", "uploads/x", name, media_type, 8, sha256, 1.0)
        return await store.add_file(made)

    return publish
