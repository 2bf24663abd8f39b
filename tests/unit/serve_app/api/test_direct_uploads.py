"""Uploads past the service: opened here, sent to the store, completed here."""

from __future__ import annotations

import hashlib
import uuid

import pytest

from deployments.jobs.direct_uploads import DirectUploads
from deployments.jobs.errors import FileNotFound, InvalidInput
from deployments.jobs.intake import IntakeLimits
from deployments.jobs.ports import ClientUpload, SystemClock

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
OTHER = b"\x89PNG\r\n\x1a\n" + bytes(2048)
GIF = b"GIF89a" + bytes(3000)
OPEN = {"media_type": "image/png", "size_bytes": len(PNG)}


class Bucket:
    """A folder to which clients can write."""

    def __init__(self, objects):
        self.objects = objects
        self.opened = []
        self.size, self.read, self.delete = objects.size, objects.read, objects.delete
        self.before_copy = None

    async def open_to_client(self, key, media_type, size_bytes, seconds):
        self.opened.append((key, media_type, size_bytes, seconds))
        return ClientUpload(f"https://bucket.example/{key}", {"Content-Type": media_type})

    async def copy(self, source, target, media_type):
        if self.before_copy is not None:
            await self.before_copy(source)
        await self.objects.copy(source, target, media_type)

    async def send(self, key, data):
        await self.objects.put(key, "image/png", data, hashlib.sha256(data).hexdigest())


class Records:
    """A job store that knows no files yet."""

    async def get_file(self, tenant, file_id):
        raise FileNotFound(file_id)

    async def add_file(self, record):
        return record


@pytest.fixture
def bucket(app, store, objects):
    bucket = Bucket(objects)
    app.state.direct = DirectUploads(store, bucket, bucket, IntakeLimits(upload_bytes=100_000), SystemClock())
    return bucket


def stored(tmp_path):
    return sorted(
        str(path.relative_to(tmp_path / "objects" / "objects")) for path in (tmp_path / "objects" / "objects").rglob("*") if path.is_file()
    )


async def test_opened_sent_completed_and_read(client, bucket, tmp_path):
    opened = (await client.post("/v1/files/direct", json=OPEN)).json()
    key = f"incoming/default/{opened['upload_id']}"
    assert bucket.opened == [(key, "image/png", len(PNG), 3600)]
    assert (opened["method"], opened["url"], opened["headers"]) == ("PUT", f"https://bucket.example/{key}", {"Content-Type": "image/png"})
    await bucket.send(key, PNG)
    answer = await client.post(opened["complete_url"], json={"name": "../me.png"})
    assert answer.status_code == 201
    file = answer.json()
    assert (file["file_id"], file["name"], file["sha256"]) == (opened["upload_id"], "me.png", hashlib.sha256(PNG).hexdigest())
    assert (await client.get(file["url"])).content == PNG
    assert stored(tmp_path) == [f"uploads/default/{opened['upload_id']}"], "what the client wrote is gone"
    await bucket.send(key, OTHER)  # its link is still good
    again = await client.post(opened["complete_url"], json={"name": "x"})
    assert (again.status_code, again.json()) == (201, file)
    assert (await client.get(file["url"])).content == PNG


async def test_what_has_not_come_cannot_be_completed(client, bucket):
    for upload_id in (str(uuid.uuid4()), "x", "../../x"):
        answer = await client.post(f"/v1/files/direct/{upload_id}/complete", json={})
        assert answer.status_code == 404


@pytest.mark.parametrize(
    ("data", "declared", "status", "code"),
    [
        (b"plain words", None, 415, "unsupported_media"),
        (b"", None, 422, "invalid_input"),
        (PNG, "video/mp4", 422, "media_type_mismatch"),
        (PNG + bytes(100_000), None, 413, "media_too_large"),
    ],
)
async def test_what_has_come_is_looked_at(client, bucket, tmp_path, data, declared, status, code):
    opened = (await client.post("/v1/files/direct", json=OPEN)).json()
    await bucket.send(f"incoming/default/{opened['upload_id']}", data)
    answer = await client.post(opened["complete_url"], json={"media_type": declared})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert stored(tmp_path) == [f"incoming/default/{opened['upload_id']}"]
    assert (await client.get(f"/v1/files/{opened['upload_id']}")).status_code == 404


async def test_what_is_changed_while_it_is_completed_is_refused_or_whole(bucket, tmp_path):
    direct = DirectUploads(Records(), bucket, bucket, IntakeLimits(), SystemClock())
    upload_id = str(uuid.uuid4())
    key = f"incoming/t/{upload_id}"
    await bucket.send(key, PNG)
    bucket.before_copy = lambda _: bucket.send(key, GIF)
    with pytest.raises(InvalidInput, match="changed while"):
        await direct.complete("t", upload_id, "a")
    assert stored(tmp_path) == [key]
    await bucket.send(key, PNG)
    bucket.before_copy = lambda _: bucket.send(key, OTHER)
    record = await direct.complete("t", upload_id, "a")
    assert (record.sha256, record.size_bytes) == (hashlib.sha256(OTHER).hexdigest(), len(OTHER)), "the record says what lies there"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"media_type": "text/html", "size_bytes": 1}, 422),
        ({"media_type": "image/png", "size_bytes": 0}, 422),
        ({"media_type": "image/png", "size_bytes": 100_001}, 413),
        ({"media_type": "image/png"}, 422),
        ({**OPEN, "key": "x"}, 422),
    ],
)
async def test_what_may_not_be_opened(client, bucket, body, status):
    assert (await client.post("/v1/files/direct", json=body)).status_code == status
    assert bucket.opened == []


async def test_a_folder_takes_nothing_from_clients(client):
    answer = await client.post("/v1/files/direct", json=OPEN)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "POST /v1/files" in answer.json()["detail"]
