"""The store over Cloudflare Images, by the official client, against a server written from its documentation: see ``fake_cf_images``."""

import asyncio
import hashlib
import io
import os
import ssl

import pytest
from cloudflare import AsyncCloudflare, DefaultAsyncHttpxClient
from cloudflare.types.images import Image as StoredPicture
from PIL import Image

from deployments.jobs.errors import Conflict, FileNotFound, InvalidInput, Unavailable, UploadFailed
from deployments.jobs.ports import PART_BYTES, StoredObject
from deployments.storage import cf_images_client
from deployments.storage.cf_images import CfImagesStore, fits
from deployments.storage.cloud_configs import CfImagesConfig
from deployments.storage.local import LocalStore
from deployments.storage.upload import upload_file
from tests.unit.deployments.storage.fake_cf_images import ACCOUNT, ACCOUNT_HASH, TOKEN, FakeCloudflare

KEY = "artifacts/default/job-1/1/result a.png"
VIDEO = "artifacts/default/job-1/1/result.mp4"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def picture(size=(8, 6), kind="PNG", frames=1, **options):
    file = io.BytesIO()
    plain = [Image.new("RGB", size, (20 * n, 0, 0)) for n in range(1, frames)]
    first, *others = [Image.effect_noise(size, 90).convert("RGB") if frames == 1 else Image.new("RGB", size), *plain]
    first.save(file, kind, save_all=frames > 1, append_images=others, **options) if frames > 1 else first.save(file, kind, **options)
    return file.getvalue()


SMALL = picture()


@pytest.fixture
async def server(serve):
    fake = FakeCloudflare()
    fake.url = await serve(fake.handle)
    return fake


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("CF_IMAGES_API_TOKEN", TOKEN)


@pytest.fixture
def config(server, ca_file):
    return CfImagesConfig(account_id=ACCOUNT, endpoint=server.url, ca_file=ca_file)


@pytest.fixture
def beside(tmp_path):
    return LocalStore(tmp_path / "beside")


@pytest.fixture
async def build(beside, token):
    """Build stores that are closed at the end."""
    built = []

    def build(config):
        built.append(CfImagesStore(config, beside))
        return built[-1]

    yield build
    for store in built:
        if store._client._sdk is not None:
            await store._client._sdk.close()


@pytest.fixture
def store(build, config):
    return build(config)


async def content(store, key=KEY, *bounds):
    return b"".join([chunk async for chunk in store.read(key, *bounds)])


async def test_a_picture_is_held_by_cloudflare_and_read_back(store, server, beside):
    stored = await store.put(KEY, "image/png", SMALL, sha256(SMALL))

    assert stored == StoredObject(KEY, f"cf_images://{KEY}", len(SMALL), sha256(SMALL))
    assert stored.created
    assert server.pictures == {KEY: (SMALL, {"sha256": sha256(SMALL), "size_bytes": len(SMALL)})}
    assert await content(store) == SMALL
    assert await content(store, KEY, 2, 5) == SMALL[2:5]
    assert await content(store, KEY, len(SMALL)) == b""
    assert await store.size(KEY) == len(SMALL)
    with pytest.raises(FileNotFound):
        await beside.size(KEY)


async def test_the_servers_answers_are_of_the_official_clients_types(store, server, ca_file):
    await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    trust = ssl.create_default_context(cafile=ca_file)
    client = DefaultAsyncHttpxClient(verify=trust)
    async with AsyncCloudflare(
        api_token=TOKEN, base_url=f"{server.url}/client/v4", http_client=client, _strict_response_validation=True
    ) as strict:
        found = await strict.images.v1.get(KEY, account_id=ACCOUNT)
        made = await strict.images.v1.create(account_id=ACCOUNT, id="other.png", file=("other.png", SMALL))
        blob = await (await strict.images.v1.blobs.get("other.png", account_id=ACCOUNT)).read()
        await strict.images.v1.delete("other.png", account_id=ACCOUNT)
    for one, key in ((found, KEY), (made, "other.png")):
        assert isinstance(one, StoredPicture)
        StoredPicture.model_validate(one.model_dump(by_alias=True))
        assert (one.id, one.require_signed_urls, one.uploaded.year) == (key, False, 2026)
        assert one.variants[1].endswith("/public")
    assert blob == SMALL
    assert list(server.pictures) == [KEY]


@pytest.mark.parametrize(
    ("key", "media_type", "data"),
    [
        (VIDEO, "video/mp4", b"a film"),
        ("a/sound.wav", "audio/wav", b"a sound"),
        ("a/table.json", "application/json", b"{}"),
        ("a/drawing.svg", "image/svg+xml", b"<svg/>"),
        ("a/no-suffix", "image/png", SMALL),
        ("a/wrong.jpg", "image/png", SMALL),
        ("a/none.png", "image/png", b"no picture"),
        ("a/empty.png", "image/png", b""),
        ("a/long.png", "image/png", picture((12_001, 1))),
        ("a/frames.gif", "image/gif", picture((6000, 1000), "GIF", 9)),
    ],
)
async def test_what_cloudflare_does_not_hold_lies_beside(store, server, beside, key, media_type, data):
    stored = await store.put(key, media_type, data, sha256(data))

    assert stored == StoredObject(key, f"local://{key}", len(data), sha256(data))
    assert server.pictures == {}
    assert await content(beside, key) == data
    assert (await content(store, key), await store.size(key)) == (data, len(data))
    await store.delete(key)
    with pytest.raises(FileNotFound):
        await store.size(key)


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", "png"), ("JPEG", "jpeg"), ("JPEG", "jpg"), ("GIF", "gif"), ("WEBP", "webp")])
async def test_pictures_of_every_kind(store, server, kind, suffix):
    data = picture(kind=kind)
    key = f"a/picture.{suffix}"
    stored = await store.put(key, f"image/{kind.lower()}", data, sha256(data))
    assert stored.uri == f"cf_images://{key}"
    assert server.pictures[key][0] == await content(store, key) == data


@pytest.mark.parametrize("refused", [(400, 5443), (413, 5413), (415, 5455), (422, 5400)])
async def test_a_picture_that_cloudflare_refuses_lies_beside(store, server, beside, refused):
    server.refuses = refused
    assert (await store.put(KEY, "image/png", SMALL, sha256(SMALL))).uri == f"local://{KEY}"
    assert await content(store) == await content(beside) == SMALL


async def test_a_call_that_cloudflare_does_not_understand_is_told(store, server):
    server.refuses = (400, 6003)
    with pytest.raises(UploadFailed, match="the token is not accepted"):
        await store.put(KEY, "image/png", SMALL, sha256(SMALL))


def test_the_limits_are_those_of_the_documentation():
    assert fits(picture((12_000, 1)))
    assert not fits(picture((12_001, 1)))
    assert fits(picture((6000, 1000), "GIF", 8))
    assert not fits(picture((6000, 1000), "GIF", 9))
    assert not fits(picture() + bytes(10_000_000))


@pytest.mark.slow
def test_the_limits_of_animations_hold_for_webp_too():
    assert fits(picture((6000, 1000), "WEBP", 8))
    assert not fits(picture((6000, 1000), "WEBP", 9))


async def test_what_comes_in_parts_lies_beside(store, server, beside, tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(os.urandom(PART_BYTES + 5))
    stored = await upload_file(store, path, VIDEO, "video/mp4")
    assert (stored.uri, server.uploads) == (f"local://{VIDEO}", 0)
    assert sha256(await content(store, VIDEO)) == sha256(await content(beside, VIDEO)) == stored.sha256
    token = await store.begin("a/open.png", "image/png")
    await store.put_part(token, 0, SMALL)
    await store.abort(token)
    await store.begin("a/abandoned.png", "image/png")
    assert await store.sweep(-60) == 1


async def test_what_a_client_sends_itself_is_a_matter_of_the_other_store(store, beside):
    assert await store.open_to_client("incoming/t/1", "image/png", 5, 60) is None
    await beside.put("incoming/t/1", "image/png", SMALL, sha256(SMALL))
    await store.copy("incoming/t/1", "uploads/t/1", "image/png")
    assert await content(store, "uploads/t/1") == SMALL


async def test_a_picture_that_comes_back_changed_lies_beside(store, server, beside):
    server.reencodes = True
    stored = await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    assert (stored.uri, server.pictures) == (f"local://{KEY}", {})
    assert await content(store) == await content(beside) == SMALL


async def test_stored_again_it_is_there_and_another_stays(store, server):
    await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    again = await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    assert not again.created
    other = picture()
    with pytest.raises(Conflict, match="stays: choose another name"):
        await store.put(KEY, "image/png", other, sha256(other))
    assert server.pictures[KEY][0] == SMALL


async def test_40_pictures_at_once(store, server):
    pictures = {f"a/{n}.png": picture((5 + n, 5)) for n in range(40)}
    await asyncio.gather(*(store.put(key, "image/png", data, sha256(data)) for key, data in pictures.items()))
    assert {key: await content(store, key) for key in pictures} == {key: found for key, (found, _) in server.pictures.items()} == pictures


async def test_deleted_it_is_gone_and_may_be_deleted_again(store, server):
    await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    await store.delete(KEY)
    await store.delete(KEY)
    assert server.pictures == {}
    for call in (content(store), store.size(KEY)):
        with pytest.raises(FileNotFound):
            await call


async def test_a_domain_delivers_pictures_where_there_is_one(build, config, store):
    await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    await store.put(VIDEO, "video/mp4", b"a film", sha256(b"a film"))
    assert await store.link(KEY, 60, "image/png", "inline") is None
    other = build(CfImagesConfig.model_validate({**config.model_dump(), "delivery_domain": "https://images.example.com/"}))
    there = f"https://images.example.com/cdn-cgi/imagedelivery/{ACCOUNT_HASH}/artifacts/default/job-1/1/result%20a.png/public"
    assert await other.link(KEY, 60, "image/png", "inline") == there
    assert await other.link(VIDEO, 60, "video/mp4", "inline") is None


async def test_wrong_bytes_and_names_are_refused(store):
    with pytest.raises(UploadFailed, match="sha256"):
        await store.put(KEY, "image/png", SMALL, sha256(b"another"))
    for call in (store.put("../up.png", "image/png", SMALL, sha256(SMALL)), store.delete("../up.png")):
        with pytest.raises(InvalidInput):
            await call


async def test_what_a_killed_process_had_uploaded_is_looked_at_too(store, server, beside):
    await store._upload(KEY, SMALL, sha256(SMALL))  # and then it was killed
    assert not (await store.put(KEY, "image/png", SMALL, sha256(SMALL))).created
    assert list(server.pictures) == [KEY]
    server.reencodes = True
    assert (await store.put(KEY, "image/png", SMALL, sha256(SMALL))).uri == f"local://{KEY}"
    assert server.pictures == {}


# What is wrong is said.


async def test_account_and_other_store_are_the_identity(build, config, store, server):
    identity = await store.check()
    assert await build(config).check(expected=identity) == identity
    with pytest.raises(Unavailable, match="does not see the stores of the others"):
        await store.check(expected="another")
    assert server.pictures == {}


async def test_another_account(build, config):
    store = build(config.model_copy(update={"account_id": "another"}))
    for call in (store.check(), store.delete(KEY), store.size(KEY)):
        with pytest.raises(UploadFailed, match="correct CF_IMAGES_ACCOUNT_ID"):
            await call


@pytest.mark.parametrize("wrong", ["knows-nothing", "known-but-may-not"])
async def test_a_token_that_may_not(build, config, monkeypatch, wrong):
    store = build(config)
    monkeypatch.setenv("CF_IMAGES_API_TOKEN", wrong)
    with pytest.raises(UploadFailed, match="permission Cloudflare Images Edit") as refused:
        await store.check()
    assert wrong not in f"{refused.value!r} {refused.value.__cause__!r}"


async def test_no_token_at_all(build, config, monkeypatch):
    store = build(config)
    monkeypatch.delenv("CF_IMAGES_API_TOKEN")
    with pytest.raises(UploadFailed, match="CF_IMAGES_API_TOKEN must be set"):
        await store.check()


async def test_keys_of_other_tools_are_not_taken(build, config, monkeypatch):
    monkeypatch.setenv("CLOUDFLARE_EMAIL", "somebody@example.com")
    monkeypatch.setenv("CLOUDFLARE_API_KEY", "of-another-tool")
    await build(config).check()


async def test_an_account_that_is_full(store, server):
    server.full = True
    with pytest.raises(UploadFailed, match="limit of stored pictures"):
        await store.put(KEY, "image/png", SMALL, sha256(SMALL))


async def test_a_certificate_that_nobody_trusts(build, config):
    with pytest.raises(UploadFailed, match="ATELIER_STORAGE__CF_IMAGES__CA_FILE"):
        await build(config.model_copy(update={"ca_file": None})).check()


async def test_certificates_that_are_none(build, config, tmp_path):
    (tmp_path / "empty.pem").write_text("")
    for name in ("none.pem", "empty.pem"):
        with pytest.raises(UploadFailed, match="cannot be read: correct the path"):
            await build(config.model_copy(update={"ca_file": tmp_path / name})).check()


@pytest.mark.parametrize("domain", ["http://images.example.com", "images.example.com/path", "https://", "https://me@host"])
def test_a_domain_that_is_none(domain):
    with pytest.raises(ValueError, match=r"a domain alone, such as images\.example\.com"):
        CfImagesConfig(account_id=ACCOUNT, delivery_domain=domain)


# Faults.


async def test_a_storm_of_503_is_waited_out(store, server):
    server.overloaded = 3
    await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    assert server.overloaded == 0
    assert list(server.pictures) == [KEY]


async def test_a_server_that_stays_overloaded_is_told(store, server, monkeypatch):
    monkeypatch.setattr(cf_images_client, "TRIES", 2)
    server.overloaded = 10**6
    with pytest.raises(UploadFailed, match="overloaded: try again later"):
        await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    server.overloaded = 0
    with pytest.raises(FileNotFound):
        await store.size(KEY)


async def test_the_limit_of_calls_is_kept(store, server):
    server.limited = 2
    await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    assert server.limited == 0
    server.limited, server.retry_after = 10, "300"
    with pytest.raises(UploadFailed, match="takes no more calls now: try again in 300 s"):
        await content(store)
    assert server.limited == 9


async def test_a_connection_that_is_cut_while_a_picture_is_sent(store, server):
    server.cut_uploads = 2
    await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    assert (server.cut_uploads, server.uploads, list(server.pictures)) == (0, 1, [KEY])


async def test_an_upload_whose_answer_is_lost_is_found_done(store, server):
    server.lost_answers = 1
    stored = await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    assert (server.lost_answers, server.uploads) == (0, 2)
    assert (stored.sha256, list(server.pictures)) == (sha256(SMALL), [KEY])


async def test_a_download_that_is_cut_is_asked_for_again(store, server):
    await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    server.cut_downloads = 2
    assert await content(store) == SMALL
    assert server.cut_downloads == 0
