"""Where files' URLs lead: here, here with a signature, to the bucket for a while, to a public bucket."""

from __future__ import annotations

import hashlib

import pytest
from pydantic import ValidationError

from deployments.jobs.errors import LinkRefused
from deployments.jobs.service import JobService, ServiceConfig
from serve_app.api.config import ApiConfig
from serve_app.api.links import Links
from serve_app.api.signing import LinkSigner, read_keys

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
OLD, NEW = "o" * 32, "n" * 32
FILE_ID = "00000000-0000-4000-8000-000000000000"


async def upload(client):
    response = await client.post("/v1/files", files={"file": ("a b.png", PNG, "image/png")})
    assert response.status_code == 201
    return response.json()


def query_of(signer, file_id=FILE_ID):
    values = dict(part.split("=") for part in signer.sign(file_id).split("&"))
    return int(values["expires"]), values["signature"]


def test_a_link_is_good_for_its_time_and_then_no_more():
    now = 1_000_000.0
    signer = LinkSigner([NEW], 100, clock=lambda: now)
    expires, signature = query_of(signer)
    assert 100 <= expires - now <= 200
    signer.check(FILE_ID, expires, signature)
    now += 50
    assert query_of(signer) == (expires, signature), "the same for a while, for the sake of caches"
    now = float(expires)
    with pytest.raises(LinkRefused, match="has ended"):
        signer.check(FILE_ID, expires, signature)


def test_a_link_that_was_changed_opens_nothing():
    signer = LinkSigner([NEW], 100)
    expires, signature = query_of(signer)
    for file_id, end, sign in (
        ("00000000-0000-4000-8000-000000000001", expires, signature),
        (FILE_ID, expires + 100, signature),
        (FILE_ID, expires, signature[:-1] + ("0" if signature[-1] != "0" else "1")),
        (FILE_ID, expires, "ä"),
        (FILE_ID, expires, ""),
    ):
        with pytest.raises(LinkRefused, match="was changed"):
            signer.check(file_id, end, sign)
    with pytest.raises(LinkRefused, match="signed links"):
        signer.check(FILE_ID, None, None)


def test_keys_are_changed_without_breaking_links():
    before = query_of(LinkSigner([OLD], 100))
    LinkSigner([NEW, OLD], 100).check(FILE_ID, *before)
    with pytest.raises(LinkRefused):
        LinkSigner([NEW], 100).check(FILE_ID, *before)
    assert query_of(LinkSigner([NEW, OLD], 100)) == query_of(LinkSigner([NEW], 100))


@pytest.mark.parametrize("value", ["", " , ", "short", f"{NEW},short"])
def test_keys_that_are_none_are_said_at_start_and_never_shown(monkeypatch, value):
    monkeypatch.setenv("ATELIER_LINK_KEYS", value)
    with pytest.raises(ValueError, match="openssl rand") as caught:
        read_keys()
    assert NEW not in str(caught.value)
    monkeypatch.setenv("ATELIER_LINK_KEYS", f" {NEW}, {OLD} ")
    assert read_keys() == (NEW, OLD)


async def test_where_links_are_signed_nothing_else_reads_a_file(app, client):
    app.state.signer = LinkSigner([NEW], 3600)
    file = await upload(client)
    assert f"/v1/files/{file['file_id']}?expires=" in file["url"]
    whole = await client.get(file["url"])
    assert (whole.status_code, whole.content) == (200, PNG)
    assert (await client.head(file["url"])).status_code == 200
    for url in (f"/v1/files/{file['file_id']}", file["url"] + "0", f"/v1/files/{FILE_ID}?{file['url'].partition('?')[2]}"):
        for method in ("GET", "HEAD"):
            refused = await client.request(method, url)
            assert refused.status_code == 403
        assert (await client.get(url)).json()["code"] == "link_refused"


class Bucket:
    """Reads from a folder and links as a bucket does."""

    def __init__(self, objects):
        self._objects = objects
        self.size, self.read = objects.size, objects.read

    async def link(self, key, seconds, media_type, disposition):
        return (
            f"https://bucket.example/{key}?for={seconds}&type={media_type}&disposition={hashlib.sha256(disposition.encode()).hexdigest()}"
        )


@pytest.fixture
def sent_on(app, store, feed, preview_feed, intake, objects):
    config = ServiceConfig(files_from="store", store_link_s=60)
    app.state.service = JobService(
        store=store, feed=feed, previews=preview_feed, intake=intake, uploader=objects, reader=Bucket(objects), capabilities=None, config=config
    )  # fmt: skip


@pytest.mark.usefixtures("sent_on")
async def test_the_bucket_sends_files_itself(client):
    file = await upload(client)
    answer = await client.get(file["url"])
    assert (answer.status_code, answer.headers["cache-control"]) == (307, "no-store")
    shown, saved = answer.headers["location"], (await client.get(f"{file['url']}?download=true")).headers["location"]
    assert shown.startswith(f"https://bucket.example/uploads/default/{file['file_id']}?for=60&type=image/png")
    assert shown != saved, "one is shown in a browser, the other one is saved"
    assert (await client.head(file["url"])).headers["content-length"] == str(len(PNG)), "what is asked about it is answered here"
    missing = await client.get(f"/v1/files/{FILE_ID}")
    assert missing.status_code == 404


def test_in_a_public_bucket_links_lead_there():
    class Stored:
        key = "artifacts/default/j/1/a b.png"

    assert Links("http://x", "https://media.example.com/atelier").file(FILE_ID, Stored()) == (
        "https://media.example.com/atelier/artifacts/default/j/1/a%20b.png"
    )
    assert Links("http://x").file(FILE_ID, Stored()) == f"http://x/v1/files/{FILE_ID}"


def test_public_and_signed_exclude_each_other():
    with pytest.raises(ValidationError, match="exclude each other"):
        ApiConfig(files_url="https://media.example.com", signed_links=True)
    with pytest.raises(ValidationError, match="files_url has no query"):
        ApiConfig(files_url="https://media.example.com?x=1")
