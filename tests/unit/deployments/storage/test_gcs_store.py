"""The store over Google Cloud Storage, against an emulator behind a server that is as strict as Google: see ``strict_gcs``."""

import asyncio
import hashlib
import os
import socket
import ssl
import subprocess
import sys
import uuid

import httpx
import pytest
from aiohttp import ClientSession
from gcp_storage_emulator.server import create_server

from deployments.jobs.errors import Conflict, FileNotFound, InvalidInput, Unavailable, UploadFailed, UrlNotAllowed
from deployments.jobs.ports import PART_BYTES, StoredObject, UploadToken
from deployments.storage import gcs_client, gcs_parts, gcs_reader
from deployments.storage.cloud_configs import GcsConfig, GcsServer
from deployments.storage.fetch import FetchConfig, InputBuckets
from deployments.storage.gcs import GcsStore
from deployments.storage.sources import InputSources
from deployments.storage.upload import upload_file, upload_stream
from tests.unit.deployments.storage.strict_gcs import ServiceAccount, StrictGcs

KEY = "artifacts/default/job-1/1/result.mp4"
SMALL = b"a small picture"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def account():
    return ServiceAccount()


@pytest.fixture(scope="module")
def emulator():
    with create_server("127.0.0.1", 0, in_memory=True) as running:
        host, port = running._api._httpd.server_address
        yield f"http://{host}:{port}"


@pytest.fixture
async def server(emulator, account, serve):
    async with ClientSession(auto_decompress=False) as session:
        strict = StrictGcs(emulator, account, session)
        strict.url = await serve(strict.handle)
        yield strict


@pytest.fixture
def credentials(server, account, monkeypatch, tmp_path):
    path = tmp_path / "key.json"
    path.write_text(account.key_file(server.url))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # no look for the metadata of a machine at Google
    return path


@pytest.fixture
async def bucket(server):
    """A bucket of this test's own."""
    name = f"b{uuid.uuid4().hex}"
    await server.make_bucket(name)
    return name


@pytest.fixture
def config(server, bucket, ca_file):
    return GcsConfig(bucket=bucket, endpoint=server.url, ca_file=ca_file)


@pytest.fixture
def store(config, credentials):
    return GcsStore(config)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(gcs_client, "RETRY_S", 0.5)


async def content(store, key=KEY, *bounds):
    return b"".join([chunk async for chunk in store.read(key, *bounds)])


async def send(store, *parts, key=KEY):
    token = await store.begin(key, "video/mp4")
    for number, data in enumerate(parts):
        await store.put_part(token, number, data)
    return token


async def test_a_small_object_is_put_in_one_call_and_read_back(store, server, bucket):
    stored = await store.put(KEY, "image/png", b"picture", sha256(b"picture"))

    assert stored == StoredObject(KEY, f"gcs://{KEY}", 7, sha256(b"picture"))
    assert stored.created
    (found,) = await server.objects(bucket)
    assert (found["name"], found["contentType"], found["metadata"]) == (KEY, "image/png", {"sha256": sha256(b"picture")})
    assert await content(store) == b"picture"
    assert await content(store, KEY, 2, 5) == b"ctu"
    assert await content(store, KEY, 2) == b"cture"
    assert await content(store, KEY, 2, 100) == b"cture"
    assert await store.size(KEY) == 7


async def test_an_empty_object(store):
    await store.put(KEY, "text/plain", b"", sha256(b""))
    assert (await store.size(KEY), await content(store)) == (0, b"")


@pytest.mark.slow
async def test_64_mib_go_in_parts_and_come_back(store, server, bucket, tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(os.urandom(2**20) * 64)

    stored = await upload_file(store, path, KEY, "video/mp4")

    digest = hashlib.sha256()
    async for chunk in store.read(KEY):
        digest.update(chunk)
    assert (stored.size_bytes, stored.sha256) == (64 * 2**20, digest.hexdigest())
    (found,) = await server.objects(bucket)
    assert (found["name"], found["contentType"], found["metadata"]) == (KEY, "video/mp4", {"sha256": stored.sha256})


@pytest.mark.parametrize(("at_once", "parts"), [(32, 70), (3, 28)], ids=["two stages", "four stages"])
async def test_more_parts_than_one_call_joins_go_by_stages(store, server, bucket, monkeypatch, at_once, parts):
    monkeypatch.setattr(gcs_parts, "PART_BYTES", 1000)
    monkeypatch.setattr(gcs_parts, "COMPOSED_AT_ONCE", at_once)
    data = [os.urandom(1000) for _ in range(parts - 1)] + [b"tail"]

    stored = await store.complete(await send(store, *data), parts, sha256(b"".join(data)))

    assert stored.size_bytes == len(data) * 1000 - 996
    assert await content(store) == b"".join(data)
    assert await server.names(bucket) == [KEY]


async def test_a_stream_of_unknown_length(store):
    async def chunks():
        for n in range(5):
            yield bytes([n]) * (PART_BYTES // 2 + 1)

    stored = await upload_stream(store, chunks(), KEY, "video/mp4")

    whole = await content(store)
    assert (len(whole), sha256(whole)) == (stored.size_bytes, stored.sha256)


@pytest.mark.slow
async def test_200_pictures_at_once(store):
    pictures = {f"artifacts/default/job/1/{n}.png": os.urandom(1000 + n) for n in range(200)}

    await asyncio.gather(*(store.put(key, "image/png", data, sha256(data)) for key, data in pictures.items()))

    assert await asyncio.gather(*(content(store, key) for key in pictures)) == list(pictures.values())


async def test_nothing_is_there_before_the_end_and_any_process_goes_on(store, config, server, bucket):
    token = await store.begin(KEY, "video/mp4")
    await store.put_part(token, 1, b"tail")
    other = GcsStore(config)
    await other.put_part(token, 0, b"x" * PART_BYTES)
    with pytest.raises(FileNotFound):
        await store.size(KEY)
    assert KEY not in await server.names(bucket)

    stored = await GcsStore(config).complete(token, 2, sha256(b"x" * PART_BYTES + b"tail"))

    assert await other.size(KEY) == stored.size_bytes == PART_BYTES + 4
    assert await server.names(bucket) == [KEY]


async def test_a_part_that_is_missing_or_short_is_told_and_may_be_sent_again(store):
    token = await store.begin(KEY, "video/mp4")
    await store.put_part(token, 1, b"tail")
    with pytest.raises(UploadFailed, match="2 parts were announced, but 1"):
        await store.complete(token, 2, sha256(b"tail"))
    await store.put_part(token, 0, b"short")
    await store.put_part(token, 0, b"short")
    with pytest.raises(UploadFailed, match="a part came short"):
        await store.complete(token, 2, sha256(b"shorttail"))
    with pytest.raises(FileNotFound):
        await store.size(KEY)
    await store.put_part(token, 0, b"x" * PART_BYTES)
    await store.complete(token, 2, sha256(b"x" * PART_BYTES + b"tail"))
    assert await store.size(KEY) == PART_BYTES + 4


async def test_completed_again_it_answers_the_same(store):
    token = await send(store, b"all")
    first = await store.complete(token, 1, sha256(b"all"))
    assert await store.complete(token, 1, sha256(b"all")) == first


async def test_completed_twice_at_once_there_is_one_object(store, server, bucket):
    token = await send(store, b"x" * PART_BYTES, b"tail")
    whole = sha256(b"x" * PART_BYTES + b"tail")

    first, second = await asyncio.gather(store.complete(token, 2, whole), store.complete(token, 2, whole))

    assert first == second
    assert await server.names(bucket) == [KEY]


async def test_another_object_under_the_key_stays(store, server, bucket):
    await store.put(KEY, "video/mp4", SMALL, sha256(SMALL))
    before = await server.objects(bucket)

    with pytest.raises(Conflict, match="stays: choose another name"):
        await store.put(KEY, "video/mp4", b"another", sha256(b"another"))
    token = await send(store, b"another")
    with pytest.raises(Conflict, match="stays: choose another name"):
        await store.complete(token, 1, sha256(b"another"))
    await store.abort(token)
    again = await store.put(KEY, "video/mp4", SMALL, sha256(SMALL))

    assert not again.created
    assert await server.objects(bucket) == before


async def test_what_was_aborted_cannot_be_completed(store, server, bucket):
    token = await send(store, b"all")
    await store.abort(token)
    await store.abort(token)
    assert await server.names(bucket) == []
    with pytest.raises(UploadFailed, match="begin again"):
        await store.complete(token, 1, sha256(b"all"))


async def test_what_a_killed_process_had_begun_is_swept(store, server, bucket):
    await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    token = await send(store, b"x" * PART_BYTES, b"all", key="artifacts/other")
    assert await store.sweep(3600) == 0
    assert await store.sweep(0) == 1
    assert await server.names(bucket) == [KEY]
    with pytest.raises(UploadFailed, match="begin again"):
        await store.complete(token, 2, sha256(b"all"))


async def test_deleted_it_is_gone_and_may_be_deleted_again(store):
    await store.put(KEY, "image/png", b"picture", sha256(b"picture"))
    await store.delete(KEY)
    await store.delete(KEY)
    with pytest.raises(FileNotFound):
        await content(store)


async def test_a_copy_of_what_a_client_has_sent(store, config, server, bucket):
    await store.put("incoming/t/1", "image/png", SMALL, sha256(SMALL))
    await store.copy("incoming/t/1", KEY, "image/webp")
    server.lost_answers = 1
    await store.copy("incoming/t/1", "uploads/t/1", "image/png")
    assert server.lost_answers == 0
    await store.copy("incoming/t/1", KEY, "image/webp")
    found = {one["name"]: one["contentType"] for one in await server.objects(bucket)}
    assert found == {"incoming/t/1": "image/png", KEY: "image/webp", "uploads/t/1": "image/png"}
    assert await content(store) == SMALL
    with pytest.raises(FileNotFound):
        await store.copy("incoming/t/other", KEY, "image/png")
    await store.put("incoming/t/2", "image/png", b"another", sha256(b"another"))
    with pytest.raises(Conflict, match="stays: choose another name"):
        await store.copy("incoming/t/2", KEY, "image/png")
    assert await store.sweep(3600) == 0
    assert await store.sweep(0) == 2, "what nobody completed"
    assert await server.names(bucket) == [KEY, "uploads/t/1"]


async def test_a_link_reads_one_object_for_a_while(store, ca_file):
    await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    url = await store.link(KEY, 60, "image/webp", 'attachment; filename="a.webp"')
    async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=ca_file)) as anybody:
        whole = await anybody.get(url)
        assert (whole.status_code, whole.content) == (200, SMALL)
        assert whole.headers["content-type"] == "image/webp"
        assert whole.headers["content-disposition"] == 'attachment; filename="a.webp"'
        assert (await anybody.get(url, headers={"Range": "bytes=2-5"})).content == SMALL[2:6]
        assert (await anybody.get(url.replace("result", "other"))).status_code == 403
        assert (await anybody.get(url.replace("X-Goog-Expires=60", "X-Goog-Expires=600"))).status_code == 403
        assert (await anybody.delete(url)).status_code == 403


async def test_a_client_writes_one_object_of_one_length_itself(store, ca_file, server, bucket):
    opened = await store.open_to_client("incoming/t/1", "image/png", len(SMALL), 60)
    async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=ca_file)) as client:
        assert (await client.put(opened.url, content=SMALL, headers={**opened.headers, "Content-Type": "text/html"})).status_code == 403
        assert (await client.put(opened.url, content=SMALL + b"!", headers=opened.headers)).status_code == 400
        assert (await client.put(opened.url.replace("incoming", "uploads"), content=SMALL, headers=opened.headers)).status_code == 403
        assert await server.names(bucket) == []
        assert (await client.put(opened.url, content=SMALL, headers=opened.headers)).status_code == 200
    assert await content(store, "incoming/t/1") == SMALL


async def test_nobody_signs_without_a_key(config, credentials):
    with pytest.raises(UploadFailed, match="signed with a service account's key"):
        await GcsStore(config.model_copy(update={"anonymous": True})).link(KEY, 60, "image/png", "inline")


@pytest.mark.parametrize("name", ["a.png", "deep/er/ü sp+ace (1)?#%41.png"])
async def test_an_input_of_a_bucket_that_was_opened(config, bucket, store, tmp_path, name):
    server = GcsServer(endpoint=config.endpoint, ca_file=config.ca_file)
    sources = InputSources(FetchConfig(buckets=InputBuckets(gs=frozenset({bucket})), gs=server, max_bytes=100_000))
    url, picture = f"gs://{bucket}/{name}", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 200

    async def put(data, generation):
        await store._client.run("stored", lambda b: store._client.upload(b.blob(name), data, "image/png", generation))

    await put(picture, 0)
    fetched = await sources.fetch(url, tmp_path)
    assert (fetched.path.read_bytes(), fetched.media_type, fetched.sha256) == (picture, "image/png", sha256(picture))
    assert await sources.fetch(url, tmp_path, etag=fetched.etag) is None
    await put(picture + b"more", int(fetched.etag))
    assert (await sources.fetch(url, tmp_path, etag=fetched.etag)).sha256 == sha256(picture + b"more")
    with pytest.raises(InvalidInput, match="is not there"):
        await sources.fetch(f"gs://{bucket}/missing.png", tmp_path)
    with pytest.raises(UrlNotAllowed, match="ATELIER_FETCH__BUCKETS__GS"):
        sources.check_url("gs://another/a.png")


async def test_wrong_bytes_and_foreign_tokens_are_refused(store):
    with pytest.raises(UploadFailed, match="sha256"):
        await store.put(KEY, "image/png", b"picture", sha256(b"another"))
    with pytest.raises(UploadFailed, match="not of this store"):
        await store.put_part(UploadToken(KEY, "0" * 31, "video/mp4"), 0, b"x")
    with pytest.raises(UploadFailed, match="at most 10000 parts"):
        await store.put_part(UploadToken(KEY, "0" * 32, "video/mp4"), 10_000, b"x")
    with pytest.raises(InvalidInput):
        await store.put("../up", "image/png", b"", sha256(b""))


async def test_all_is_below_the_prefix(config, credentials, server, bucket):
    store = GcsStore(config.model_copy(update={"prefix": "atelier/"}))
    await store.check()
    token = await send(store, b"all")
    assert await server.names(bucket) == [f"atelier/parts/{token.upload_id}/00000"]
    await store.complete(token, 1, sha256(b"all"))
    assert await server.names(bucket) == [f"atelier/{KEY}"]


# What is wrong is said.


async def test_a_bucket_is_its_own_identity(store, config, server, bucket):
    identity = await store.check()
    assert await GcsStore(config).check(expected=identity) == identity
    with pytest.raises(Unavailable, match="does not see the bucket of the others"):
        await store.check(expected="another")
    assert await server.names(bucket) == []


async def test_a_bucket_elsewhere(config, credentials):
    await GcsStore(config.model_copy(update={"region": "us"})).check()  # where the emulator says that all its buckets are
    with pytest.raises(Unavailable, match="is in us, not in asia-east1: correct GCS_BUCKET_REGION"):
        await GcsStore(config.model_copy(update={"region": "asia-east1"})).check()


async def test_a_missing_bucket(config, credentials):
    store = GcsStore(config.model_copy(update={"bucket": "nowhere"}))
    for call in (store.check(), store.size(KEY), store.delete(KEY), store.sweep(0)):
        with pytest.raises(UploadFailed, match="no such bucket: create it, or correct GCS_BUCKET_NAME"):
            await call


async def test_a_key_of_nobody(config, server, credentials):
    credentials.write_text(ServiceAccount().key_file(server.url))
    with pytest.raises(UploadFailed, match="make a new key for the service account") as refused:
        await GcsStore(config).check()
    assert "PRIVATE KEY" not in f"{refused.value!r} {refused.value.__cause__!r}"
    assert "@" not in str(refused.value)


async def test_a_wrong_clock(store, server):
    server.clock_is_wrong = True
    with pytest.raises(UploadFailed, match="set the clock of this machine"):
        await store.check()


async def test_no_credentials_are_sent(config, credentials):
    with pytest.raises(UploadFailed, match="no whole credentials"):
        await GcsStore(config.model_copy(update={"anonymous": True})).check()


async def test_a_token_that_is_taken_back_is_asked_for_anew(store, server):
    await store.check()
    server.tokens.clear()
    await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    assert await content(store) == SMALL


async def test_an_account_that_may_not(store, server):
    server.forbidden = True
    with pytest.raises(UploadFailed, match=r"roles/storage\.objectUser"):
        await store.put(KEY, "image/png", SMALL, sha256(SMALL))


async def test_no_credentials_at_all(config, credentials, monkeypatch, tmp_path):
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "none"))
    with pytest.raises(UploadFailed, match="name a service account's key file in GOOGLE_APPLICATION_CREDENTIALS"):
        await GcsStore(config).check()


async def test_a_key_file_that_is_not_there(config, credentials):
    credentials.unlink()
    with pytest.raises(UploadFailed, match="name a service account's key file in GOOGLE_APPLICATION_CREDENTIALS") as refused:
        await GcsStore(config).check()
    assert str(credentials) not in str(refused.value)


async def test_a_key_file_that_is_damaged(config, credentials):
    whole = credentials.read_text()
    for damaged in (whole.replace("MII", "XXX", 1), whole[:100]):
        credentials.write_text(damaged)
        with pytest.raises(UploadFailed, match="no whole credentials: name a service account's key file") as refused:
            await GcsStore(config).check()
        assert "PRIVATE KEY" not in f"{refused.value!r} {refused.value.__cause__!r}"


async def test_certificates_that_are_none(config, credentials, tmp_path):
    with pytest.raises(UploadFailed, match="a file cannot be read: check"):
        await GcsStore(config.model_copy(update={"ca_file": tmp_path / "none.pem"})).check()


async def test_a_certificate_that_nobody_trusts(config, credentials):
    with pytest.raises(UploadFailed, match="ATELIER_STORAGE__GCS__CA_FILE"):
        await GcsStore(config.model_copy(update={"ca_file": None})).check()


async def test_a_server_that_is_not_there(config, credentials, impatient):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    elsewhere = config.model_copy(update={"endpoint": f"http://127.0.0.1:{port}", "anonymous": True})
    with pytest.raises(UploadFailed, match="cannot be reached"):
        await GcsStore(elsewhere).check()


@pytest.mark.parametrize("endpoint", ["ftp://host", "https://", "https://key:secret@host", "https://host/bucket", "https://host?x=1"])
def test_an_endpoint_that_is_none(endpoint):
    with pytest.raises(ValueError, match="https://host"):
        GcsConfig(bucket="b", endpoint=endpoint)


def test_nobody_is_anonymous_at_google():
    with pytest.raises(ValueError, match="set the endpoint too"):
        GcsConfig(bucket="b", anonymous=True)


# Faults.


async def test_a_storm_of_503_is_waited_out(store, server, bucket, tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(os.urandom(PART_BYTES + 5))
    server.overloaded = 5

    stored = await upload_file(store, path, KEY, "video/mp4")

    assert server.overloaded == 0
    assert sha256(await content(store)) == stored.sha256
    assert await server.names(bucket) == [KEY]


@pytest.mark.slow
async def test_every_call_waits_out_what_passes(store, server, bucket):
    await store.put("artifacts/first", "image/png", SMALL, sha256(SMALL))

    async def shaken(call):
        server.overloaded = 2
        answer = await call
        assert server.overloaded == 0
        return answer

    await shaken(store.put(KEY, "image/png", SMALL, sha256(SMALL)))
    assert await shaken(store.size(KEY)) == len(SMALL)
    assert await shaken(content(store)) == SMALL
    await shaken(store.copy(KEY, "uploads/t/1", "image/png"))
    token = await store.begin("artifacts/film", "video/mp4")
    await shaken(store.put_part(token, 0, b"all"))
    await shaken(store.complete(token, 1, sha256(b"all")))
    await shaken(store.abort(token))
    await shaken(store.delete(KEY))
    await shaken(store.check())
    assert await shaken(store.sweep(0)) == 0
    assert await server.names(bucket) == ["artifacts/film", "artifacts/first", "uploads/t/1"]


async def test_parts_that_are_gone_already_are_dropped(store, server, bucket):
    token = await send(store, b"x" * PART_BYTES, b"tail")
    server.lost_answers = 2
    await store.abort(token)
    assert server.lost_answers == 0
    assert await server.names(bucket) == []


async def test_a_server_that_stays_overloaded_is_told(config, credentials, impatient, server):
    store = GcsStore(config)
    server.overloaded = 10**6
    with pytest.raises(UploadFailed, match="overloaded: try again later"):
        await store.put(KEY, "image/png", b"picture", sha256(b"picture"))
    server.overloaded = 0
    with pytest.raises(FileNotFound):
        await store.size(KEY)


@pytest.mark.slow
async def test_a_connection_that_is_cut_while_a_part_is_sent(store, server, bucket, tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(os.urandom(2 * PART_BYTES + 5))
    server.cut_uploads = 3

    stored = await upload_file(store, path, KEY, "video/mp4")

    assert server.cut_uploads == 0
    assert sha256(await content(store)) == stored.sha256
    assert await server.names(bucket) == [KEY]


async def test_a_write_whose_answer_is_lost_is_found_done(store, server, bucket):
    server.lost_answers = 1
    await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    (first,) = await server.objects(bucket)
    server.lost_answers = 1
    token = await send(store, b"all", key="artifacts/film")
    assert server.lost_answers == 0
    server.lost_answers = 2  # of joining the parts, and of removing the first
    stored = await store.complete(token, 1, sha256(b"all"))
    assert server.lost_answers == 0
    assert await content(store, "artifacts/film") == b"all"
    assert stored.size_bytes == 3
    server.lost_answers = 1
    await store.delete("artifacts/film")
    assert await server.objects(bucket) == [first]


async def test_a_download_that_is_cut_goes_on_where_it_broke(store, server, monkeypatch):
    monkeypatch.setattr(gcs_reader, "READ_BYTES", 2**20)
    data = os.urandom(3 * 2**20 + 7)
    await store.put(KEY, "video/mp4", data, sha256(data))
    server.cut_downloads = 3

    assert await content(store) == data
    assert server.cut_downloads == 0
    server.cut_downloads = 1
    assert await content(store, KEY, 10, 2_000_000) == data[10:2_000_000]
    assert server.cut_downloads == 0


async def test_bytes_that_come_damaged_are_told(store, server):
    await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    server.flipped = 1
    with pytest.raises(Unavailable, match="came damaged"):
        await content(store)
    assert await content(store) == SMALL


async def test_an_object_that_is_replaced_while_it_is_read(store, monkeypatch):
    monkeypatch.setattr(gcs_reader, "READ_BYTES", 5)
    await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    chunks = store.read(KEY)
    assert await anext(chunks) == SMALL[:5]
    await store.delete(KEY)
    await store.put(KEY, "image/png", b"another picture", sha256(b"another picture"))
    with pytest.raises(UploadFailed, match="somebody else changed the object"):
        await anext(chunks)


KILLED = """
import asyncio, os, signal, sys
from deployments.storage.cloud_configs import GcsConfig
from deployments.storage.gcs import GcsStore

async def main():
    store = GcsStore(GcsConfig.model_validate_json(sys.argv[1]))
    token = await store.begin(sys.argv[2], "video/mp4")
    await store.put_part(token, 0, b"x" * 1000)
    if sys.argv[3] == "joined":
        async def die(token):
            os.kill(os.getpid(), signal.SIGKILL)
        store._parts.drop = die
        await store.complete(token, 1, sys.argv[4])
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def kill(config, when):
    arguments = [config.model_dump_json(), KEY, when, sha256(b"x" * 1000)]
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", KILLED, *arguments], check=False)
    assert ended.returncode == -9


async def test_a_process_that_is_killed_between_two_parts_publishes_nothing(store, config, server, bucket):
    await kill(config, "between")
    assert KEY not in await server.names(bucket)

    stored = await store.put(KEY, "video/mp4", b"whole", sha256(b"whole"))

    assert (await content(store), stored.size_bytes) == (b"whole", 5)
    assert await store.sweep(0) == 1
    assert await server.names(bucket) == [KEY]


async def test_a_process_that_is_killed_before_it_cleans_up_has_published_one_object(store, config, server, bucket):
    await kill(config, "joined")
    names = await server.names(bucket)
    assert (len(names), names[0]) == (2, KEY)
    upload_id = names[1].split("/")[1]

    stored = await store.complete(UploadToken(KEY, upload_id, "video/mp4"), 1, sha256(b"x" * 1000))

    assert stored.size_bytes == 1000
    assert await server.names(bucket) == [KEY]
