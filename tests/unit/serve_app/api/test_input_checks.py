"""What is wrong with an input and can be known at submit is said then, with a code."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import pytest
from PIL import Image


def picture(kind="PNG", size=(32, 24), **options):
    buffer = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_that_claims(width, height):
    """A PNG of a few bytes whose header says that it is huge."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(4000))) + chunk(b"IEND", b"")


GOOD = picture()
GIF = picture("GIF")
MP4 = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + bytes(600)
WAV = b"RIFF\x24\x02\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x80\x3e\x00\x00\x02\x00\x10\x00data" + bytes(600)


def animated():
    buffer = io.BytesIO()
    frames = [Image.effect_noise((32, 32), spread).convert("RGB") for spread in (20, 60, 90)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def data_url(data, media_type="image/png"):
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def inline(data, media_type="image/png"):
    return {"base64": base64.b64encode(data).decode(), "media_type": media_type}


async def upload(client, data, media_type):
    answer = await client.post("/v1/files", files={"file": ("a", data, media_type)})
    assert answer.status_code == 201, answer.text
    return answer.json()["file_id"]


@pytest.mark.parametrize(
    "reference", [data_url(GOOD), {"url": data_url(GOOD)}, {"url": data_url(GOOD), "media_type": "image/*"}, inline(GOOD)]
)
async def test_media_in_the_request_become_a_file(client, next_job, reference):
    answer = await client.post("/v1/jobs", json={"source": reference, "target": "https://example.com/b.mp4"})
    assert answer.status_code == 202, answer.text
    job = await next_job()
    assert job.spec["source"].keys() == {"file_id"}
    assert (await client.get(f"/v1/files/{job.spec['source']['file_id']}")).content == GOOD


@pytest.mark.parametrize(
    ("source", "status", "code"),
    [
        (data_url(GIF, "image/gif"), 415, "unsupported_media"),
        (data_url(MP4, "video/mp4"), 415, "unsupported_media"),
        (data_url(GOOD[:20]), 415, "unsupported_media"),
        (data_url(animated(), "image/webp"), 415, "unsupported_media"),
        (data_url(png_that_claims(1001, 1000)), 413, "media_too_large"),
        (data_url(png_that_claims(2001, 10)), 413, "media_too_large"),
        (data_url(GOOD, "image/jpeg"), 422, "media_type_mismatch"),
        ({"url": data_url(GOOD), "media_type": "video/*"}, 422, "invalid_input"),
        ("data:image/png,plain", 422, "invalid_input"),
        ("data:image/png;base64,@@@@", 422, "invalid_input"),
        ("ftp://example.com/a.png", 422, "invalid_input"),
        ("s3://nobody-opened/a.png", 422, "url_not_allowed"),
    ],
)
async def test_a_picture_that_cannot_be_a_source_is_refused(client, store, source, status, code):
    answer = await client.post("/v1/jobs", json={"source": source, "target": "https://example.com/b.mp4"})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert sum((await store.stats("default")).by_status.values()) == 0


@pytest.mark.parametrize(
    ("kind", "role", "data", "media_type", "status"),
    [
        ("faceswap", "source", GOOD, "image/png", 202),
        ("faceswap", "source", MP4, "video/mp4", 415),
        ("faceswap", "source", GIF, "image/gif", 415),
        ("faceswap", "target", MP4, "video/mp4", 202),
        ("faceswap", "target", WAV, "audio/wav", 415),
        ("face2face", "audio", WAV, "audio/wav", 202),
        ("face2face", "audio", GOOD, "image/png", 415),
        ("face2face", "video", WAV, "audio/wav", 415),
    ],
)
async def test_an_upload_in_the_wrong_role_is_refused(client, kind, role, data, media_type, status):
    others = {"faceswap": ("source", "target"), "face2face": ("audio", "video")}[kind]
    body = {"kind": kind} | dict.fromkeys(others, "https://example.com/x") | {role: await upload(client, data, media_type)}
    answer = await client.post("/v1/jobs", json=body)
    assert answer.status_code == status, answer.text
    if status == 415:
        assert answer.json()["detail"].startswith(f"{role} is {media_type}: send ")


async def test_a_picture_that_says_it_is_huge_is_not_even_stored(client, tmp_path):
    answer = await client.post("/v1/files", files={"file": ("a.png", png_that_claims(30_000, 30_000), "image/png")})
    assert (answer.status_code, answer.json()["code"]) == (413, "media_too_large")
    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []


async def test_an_upload_is_not_refused_for_what_is_not_there_yet(client):
    noise = picture(size=(180, 180))
    assert 64 * 1024 < len(noise) < 100_000
    await upload(client, noise, "image/png")
