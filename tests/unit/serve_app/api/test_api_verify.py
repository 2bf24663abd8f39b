"""What marks a file carries, asked over HTTP."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from deployments.engines.marking.carriers import put_label
from deployments.engines.marking.label import AigcLabel

LABEL = AigcLabel("studio-7", "job-1")
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    put_label(path, LABEL)
    return path.read_bytes()


async def test_verify_tells_the_label_of_an_upload_and_keeps_nothing(client, picture, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    response = await client.post("/v1/verify", files={"file": ("a.png", picture)})
    assert response.status_code == 200, response.text
    found = response.json()
    assert [(label["Label"], label["ContentProducer"], label["ProduceID"]) for label in found["aigc"]] == [("1", "studio-7", "job-1")]
    assert (found["media_type"], found["manifest"], found["manifest_looked_for"], found["problem"]) == ("image/png", None, True, None)
    assert [path for path in sorted(tmp_path.rglob("*")) if path.is_file()] == [path for path in before if path.is_file()]


async def test_verify_looks_into_a_file_that_is_kept_here(client, picture):
    file_id = (await client.post("/v1/files", files={"file": ("a.png", picture)})).json()["file_id"]
    assert (await client.post("/v1/verify", params={"file_id": file_id})).json()["aigc"][0]["ProduceID"] == "job-1"
    missing = await client.post("/v1/verify", params={"file_id": UNKNOWN})
    assert (missing.status_code, missing.json()["code"]) == (404, "file_not_found")


async def test_verify_tells_a_picture_without_marks_from_one_that_is_broken(client, picture):
    plain = io.BytesIO()
    Image.new("RGB", (8, 8)).save(plain, "PNG")
    none = (await client.post("/v1/verify", files={"file": ("a.png", plain.getvalue())})).json()
    broken = (await client.post("/v1/verify", files={"file": ("a.png", picture[:60])})).json()
    assert (none["aigc"], none["problem"]) == ([], None)
    assert (broken["aigc"], bool(broken["problem"])) == ([], True)


async def test_verify_refuses_what_is_no_media_and_what_is_too_long(client, picture):
    text = await client.post("/v1/verify", files={"file": ("a.txt", b"just words")})
    assert (text.status_code, text.json()["code"]) == (415, "unsupported_media")
    long = await client.post("/v1/verify", files={"file": ("a.png", picture + bytes(60_000))})
    assert (long.status_code, long.json()["code"]) == (413, "media_too_large")


async def test_verify_without_a_file_says_what_to_send(client):
    response = await client.post("/v1/verify")
    assert response.status_code == 415
    assert "multipart/form-data" in response.json()["detail"]
