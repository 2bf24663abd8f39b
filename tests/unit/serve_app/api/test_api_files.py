"""Uploads and downloads."""

from __future__ import annotations

import hashlib

import pytest

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
ETAG = f'"{hashlib.sha256(PNG).hexdigest()}"'
PROBLEM = "application/problem+json"
UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def upload(client, data=PNG, name="me.png", media_type="image/png"):
    response = await client.post("/v1/files", files={"file": (name, data, media_type)})
    assert response.status_code == 201, response.text
    return response.json()


async def test_create_file_answers_what_was_stored(client):
    file = await upload(client)
    assert (file["name"], file["media_type"], file["size_bytes"], f'"{file["sha256"]}"') == ("me.png", "image/png", len(PNG), ETAG)
    response = await client.get(file["url"])
    assert (response.status_code, response.content, response.headers["content-type"]) == (200, PNG, "image/png")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-disposition"] == "inline; filename=\"me.png\"; filename*=UTF-8''me.png"


async def test_create_file_skips_other_fields_and_takes_small_pieces(client):
    async def slowly(body):
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    body = b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n--b\r\n' + (
        b'Content-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + PNG + b"\r\n--b--\r\n"
    )
    response = await client.post("/v1/files", content=slowly(body), headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert response.status_code == 201
    assert f'"{response.json()["sha256"]}"' == ETAG


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{}", "application/json", 415),
        (b"", "multipart/form-data", 400),
        (b"", f"multipart/form-data; boundary={'b' * 257}", 400),
        (b"nonsense", "multipart/form-data; boundary=b", 400),
        (b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + PNG, "multipart/form-data; boundary=b", 400),
        (b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n', "multipart/form-data; boundary=b", 422),
    ],
)
async def test_create_file_refuses_bodies_without_a_whole_file(client, tmp_path, body, content_type, status):
    response = await client.post("/v1/files", content=body, headers={"Content-Type": content_type})
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)
    assert [p for p in (tmp_path / "objects").rglob("*") if p.is_file()] == []


async def test_create_file_refuses_a_second_file(client, tmp_path):
    response = await client.post("/v1/files", files=[("file", ("a.png", PNG, "image/png")), ("file", ("b.png", PNG, "image/png"))])
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")
    assert [p for p in (tmp_path / "objects").rglob("*") if p.is_file()] == []


@pytest.mark.parametrize(
    ("data", "media_type", "status", "code"),
    [
        (PNG, "video/mp4", 422, "media_type_mismatch"),
        (b"plain words", "text/plain", 415, "unsupported_media"),
        (b"", "image/png", 422, "invalid_input"),
        (PNG + bytes(100_000), "image/png", 413, "media_too_large"),
        (PNG + bytes(200_000), "image/png", 413, "media_too_large"),
    ],
)
async def test_create_file_refuses_with_a_code(client, data, media_type, status, code):
    response = await client.post("/v1/files", files={"file": ("a", data, media_type)})
    assert (response.status_code, response.json()["code"], response.headers["content-type"]) == (status, code, PROBLEM)


@pytest.mark.parametrize(
    ("wanted", "status", "start", "end"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=8-15", 206, 8, 16),
        ("bytes=2000-", 206, 2000, len(PNG)),
        ("bytes=-5", 206, len(PNG) - 5, len(PNG)),
        ("bytes=-99999", 206, 0, len(PNG)),
        ("bytes=0-99999", 206, 0, len(PNG)),
        ("bytes=5-4", 200, 0, len(PNG)),
        ("bytes=0-1,4-5", 200, 0, len(PNG)),
        ("lines=1-2", 200, 0, len(PNG)),
        ("bytes=-", 200, 0, len(PNG)),
    ],
)
async def test_read_bytes_sends_the_range_asked_for(client, wanted, status, start, end):
    file = await upload(client)
    response = await client.get(file["url"], headers={"Range": wanted})
    assert (response.status_code, response.content) == (status, PNG[start:end])
    assert response.headers["content-length"] == str(end - start)
    assert response.headers.get("content-range") == (f"bytes {start}-{end - 1}/{len(PNG)}" if status == 206 else None)


@pytest.mark.parametrize("wanted", [f"bytes={len(PNG)}-", "bytes=-0"])
async def test_read_bytes_answers_416_behind_the_end(client, wanted):
    file = await upload(client)
    response = await client.get(file["url"], headers={"Range": wanted})
    assert (response.status_code, response.headers["content-range"], response.headers["content-type"]) == (
        416,
        f"bytes */{len(PNG)}",
        PROBLEM,
    )


@pytest.mark.parametrize(("known", "status"), [(ETAG, 304), (f'"x", W/{ETAG}', 304), ("*", 304), ('"x"', 200)])
async def test_read_bytes_sends_nothing_that_is_known(client, known, status):
    file = await upload(client)
    response = await client.get(file["url"], headers={"If-None-Match": known})
    assert (response.status_code, response.headers["etag"], len(response.content)) == (status, ETAG, len(PNG) if status == 200 else 0)


@pytest.mark.parametrize(("condition", "status"), [(ETAG, 206), ('"x"', 200), (f"W/{ETAG}", 200), ("Sat, 21 Nov 2026 00:00:00 GMT", 200)])
async def test_read_bytes_sends_a_range_only_of_the_same_file(client, condition, status):
    file = await upload(client)
    assert (await client.get(file["url"], headers={"Range": "bytes=0-3", "If-Range": condition})).status_code == status


async def test_read_headers_sends_no_body(client):
    file = await upload(client)
    response = await client.head(file["url"])
    assert (response.status_code, response.content) == (200, b"")
    assert (response.headers["content-length"], response.headers["etag"], response.headers["accept-ranges"]) == (
        str(len(PNG)),
        ETAG,
        "bytes",
    )


@pytest.mark.parametrize(("known", "status"), [(ETAG, 304), ('"x"', 200)])
async def test_read_headers_says_that_nothing_changed(client, known, status):
    file = await upload(client)
    response = await client.head(file["url"], headers={"If-None-Match": known, "Range": "bytes=0-3"})
    assert (response.status_code, response.headers["etag"], response.content) == (status, ETAG, b"")


async def test_create_file_stops_reading_a_body_that_turns_out_too_long(client, tmp_path):
    async def endless():
        yield b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n'
        for _ in range(1000):
            yield b" " * 1000

    response = await client.post("/v1/files", content=endless(), headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert (response.status_code, response.json()["code"], response.headers["content-type"]) == (413, "media_too_large", PROBLEM)
    assert [p for p in (tmp_path / "objects").rglob("*") if p.is_file()] == []


async def test_read_bytes_offers_a_safe_file_name(client):
    file = await upload(client, name='b"ä%.png')
    response = await client.get(file["url"], params={"download": True})
    assert response.headers["content-disposition"].startswith('attachment; filename="')
    assert "\n" not in response.headers["content-disposition"]
    assert "%C3%A4" in response.headers["content-disposition"]


async def test_read_bytes_never_shows_a_page_of_a_client(client):
    for page in (b"<!doctype html><script>alert(1)</script>", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"):
        response = await client.post("/v1/files", files={"file": ("a", page, "application/octet-stream")})
        assert (response.status_code, response.json()["code"]) == (415, "unsupported_media")
    response = await client.get((await upload(client))["url"])
    assert response.headers["content-security-policy"].startswith("sandbox")


@pytest.mark.parametrize("file_id", [UNKNOWN, "x", "..%2f..%2fjobs.db"])
async def test_read_bytes_answers_404(client, file_id):
    response = await client.get(f"/v1/files/{file_id}")
    assert (response.status_code, response.headers["content-type"]) == (404, PROBLEM)


async def test_read_bytes_answers_404_when_the_object_is_gone(client, service):
    file = await upload(client)
    record = await service.get_file(file["file_id"])
    await service._uploader.delete(record.key)
    response = await client.get(file["url"])
    assert (response.status_code, response.json()["code"]) == (404, "file_not_found")
