"""Downloads: nothing leads to the canary, a server on loopback that stands for everything private (the hostile list is tests/unit/hostile).

Names are resolved by a fake; "media.test" is the one name that the allow-list opens. No test name ever reaches a real address.
"""

import asyncio
import contextlib
import datetime as dt
import gzip
import hashlib
import io
import socket
import ssl
from dataclasses import dataclass, field

import pytest
import trustme
from aiohttp import web
from PIL import Image
from pydantic import ValidationError

from deployments.jobs.errors import FetchFailed, InvalidInput, MediaTooLarge, ServiceError, UnsupportedMedia, UrlNotAllowed
from deployments.storage.fetch import FetchConfig, GuardedFetcher
from tests.resolver import FakeResolver

LIMIT = 1 << 20


def png_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(buffer, "PNG")
    return buffer.getvalue()


PNG = png_bytes()


@dataclass
class World:
    media: int  # port of the allowed server
    canary: int  # port of the forbidden one
    hits: list[str]  # requests that reached the canary
    resolver: FakeResolver

    def fetcher(self, **options):
        config = {"allow": (f"media.test:{self.media}",), "ports": {80, 443, self.canary, self.media}, "max_bytes": LIMIT, **options}
        return GuardedFetcher(FetchConfig(**config), self.resolver)

    def url(self, path: str) -> str:
        return f"http://media.test:{self.media}{path}"


async def picture(_):
    return web.Response(body=PNG, content_type="text/plain", headers={"ETag": '"abc"'})


LONG = PNG + bytes(range(256)) * 1024  # in several chunks


@dataclass
class Shaky:
    """Serves a file that breaks off, changes, or asks for patience, as each next answer is told to."""

    script: list = field(default_factory=list)  # of functions of the request
    seen: list = field(default_factory=list)  # headers of each request

    async def handle(self, request):
        self.seen.append(dict(request.headers))
        return await self.script.pop(0)(request)


def cut_after(n, body=LONG, etag='"v1"'):
    async def handle(request):
        answer = web.StreamResponse(headers={"Content-Length": str(len(body)), **({"ETag": etag} if etag else {})})
        await answer.prepare(request)
        await answer.write(body[:n])
        request.transport.close()
        return answer

    return handle


def rest(body=LONG, etag='"v1"', shift=0):
    async def handle(request):
        start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        headers = {"Content-Range": f"bytes {start + shift}-{len(body) - 1}/{len(body)}", "ETag": etag}
        return web.Response(status=206, body=body[start + shift :], headers=headers)

    return handle


def whole(body=LONG, etag='"v2"'):
    async def handle(_):
        return web.Response(body=body, headers={"ETag": etag})

    return handle


def says(code, **headers):
    async def handle(_):
        return web.Response(status=code, headers=headers)

    return handle


async def page(_):
    return web.Response(text="<!DOCTYPE html><p>Sign in", content_type="image/png")


async def zipped(_):
    return web.Response(body=b"PK\x03\x04" + b"A" * 600, content_type="image/png")


async def slowloris(request):
    answer = web.StreamResponse()
    await answer.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await answer.write(b"x")
            await asyncio.sleep(0.05)
    return answer


async def infinite(request):
    answer = web.StreamResponse()
    await answer.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await answer.write(PNG[:64] + b"x" * 65536)
    return answer


async def bomb(_):
    return web.Response(body=gzip.compress(bytes(5_000_000)), headers={"Content-Encoding": "gzip"})


async def liar(request):
    answer = web.StreamResponse(headers={"Content-Length": "100000"})
    await answer.prepare(request)
    await answer.write(PNG)
    request.transport.close()
    return answer


async def boaster(request):
    answer = web.StreamResponse(headers={"Content-Length": str(10**12)})
    await answer.prepare(request)
    return answer


async def silent(_):
    await asyncio.sleep(30)


async def to(request):
    return web.Response(status=302, headers={"Location": request.query["url"]})


async def loop(_):
    return web.Response(status=307, headers={"Location": "/loop"})


async def sets_cookie(request):
    location = "/picture" if "Cookie" not in request.headers else "/page"
    return web.Response(status=302, headers={"Location": location, "Set-Cookie": "spy=1"})


async def status(request):
    return web.Response(status=int(request.match_info["code"]))


MEDIA_ROUTES = {
    "/picture": picture, "/page": page, "/zipped": zipped, "/slowloris": slowloris, "/infinite": infinite, "/bomb": bomb, "/liar": liar,
    "/boaster": boaster, "/silent": silent, "/to": to, "/loop": loop, "/cookie": sets_cookie, "/status/{code}": status,
}  # fmt: skip


@contextlib.asynccontextmanager
async def serve(routes, tls=None):
    app = web.Application()
    for path, handler in routes.items():
        app.router.add_route("*", path, handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture
def shaky(monkeypatch):
    monkeypatch.setattr("deployments.storage.fetch.FIRST_PAUSE_S", 0.001)
    return Shaky()


@pytest.fixture
async def world(shaky):
    hits = []

    async def hit(request):
        hits.append(str(request.url))
        return web.Response(body=PNG)

    async with serve(MEDIA_ROUTES | {"/shaky": shaky.handle}) as media, serve({"/{tail:.*}": hit}) as canary:
        resolver = FakeResolver(
            {
                "media.test": [["127.0.0.1"]],
                "inside.test": [["10.0.0.7"]],
                "loop.test": [["127.0.0.1"]],
                "loop.test.": [["127.0.0.1"]],
                "metadata.test": [["169.254.169.254"]],
                "mapped.test": [["::ffff:127.0.0.1"]],
                "nat64.test": [["64:ff9b::7f00:1"]],
                "mixed.test": [["127.0.0.1", "10.0.0.7"]],
                "rebind.test": [["127.0.0.1"], ["10.0.0.7"]],
                "localhost": [["127.0.0.1"]],
            }
        )
        yield World(media, canary, hits, resolver)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/x", "http://localhost/", "https://[::1]/", "ftp://a/b", "http://u:p@a.test/", "http://a.test:22/"]
)
def test_check_url_refuses_at_once_what_needs_no_dns(url):
    with pytest.raises(UrlNotAllowed):
        GuardedFetcher(FetchConfig()).check_url(url)


def test_check_url_takes_names_and_open_private_ports():
    fetcher = GuardedFetcher(FetchConfig(allow=("10.0.0.0/8", "minio:9000")))
    for url in ("https://example.com/a.png?sig=%2B", "http://10.1.2.3:9000/x", "http://minio:9000/b", "http://cache.lan:9000/"):
        fetcher.check_url(url)


@pytest.mark.parametrize("entry", ["*.corp", "10.0.0", "127.1", "a b", "minio:99999", "minio:0", "10.0.0.5/8", "bücher.example"])
def test_fetch_config_refuses_an_allowed_place_that_never_matches(entry):
    with pytest.raises(ValidationError, match="allow"):
        FetchConfig(allow=("minio", entry))


async def test_fetch_hashes_types_and_keeps_the_file(world, tmp_path):
    fetched = await world.fetcher().fetch(world.url("/picture?signature=a%2Fb"), tmp_path)

    assert fetched.path.read_bytes() == PNG
    assert (fetched.media_type, fetched.size_bytes, fetched.etag) == ("image/png", len(PNG), '"abc"')
    assert fetched.sha256 == hashlib.sha256(PNG).hexdigest()
    assert fetched.path.parent == tmp_path


async def test_fetch_dials_the_address_that_was_checked(world, tmp_path):
    fetcher = world.fetcher(allow=(f"127.0.0.1:{world.media}",))

    await fetcher.fetch(f"http://rebind.test:{world.media}/picture", tmp_path)
    assert world.resolver.asked == ["rebind.test"]
    with pytest.raises(UrlNotAllowed):
        await fetcher.fetch(f"http://rebind.test:{world.media}/picture", tmp_path)


async def test_fetch_refuses_all_when_one_answer_is_private(world, tmp_path):
    fetcher = world.fetcher(allow=(f"127.0.0.1:{world.media}",))
    with pytest.raises(UrlNotAllowed):
        await fetcher.fetch(f"http://mixed.test:{world.media}/picture", tmp_path)


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{c}/",
        "http://[::ffff:127.0.0.1]:{c}/",
        "file:///etc/passwd",
        "//127.0.0.1:{c}/",
        "http://169.254.169.254/latest/",
        "http://loop.test:{c}/",
        "http://a b/",
        "http://user:pw@media.test:{m}/picture",
        "http://" + "a" * 70 + ".test/",
        "//" + "a" * 70 + ".test/",
        "http://[::1/",
    ],
)
async def test_fetch_checks_every_redirect(world, tmp_path, target):
    with pytest.raises(UrlNotAllowed):
        await world.fetcher().fetch(
            world.url("/to?url=" + target.replace("{c}", str(world.canary)).replace("{m}", str(world.media)).replace(":", "%3A")), tmp_path
        )
    assert world.hits == []


async def test_fetch_follows_a_relative_redirect_without_cookies(world, tmp_path):
    fetched = await world.fetcher().fetch(world.url("/cookie"), tmp_path)
    assert fetched.media_type == "image/png"


async def test_fetch_gives_up_a_redirect_loop(world, tmp_path):
    with pytest.raises(InvalidInput, match="redirects more than 3 times"):
        await world.fetcher().fetch(world.url("/loop"), tmp_path)


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("/slowloris", FetchFailed, "bytes a second"),
        ("/infinite", MediaTooLarge, "longer than 1 MiB"),
        ("/boaster", MediaTooLarge, "longer than 1 MiB"),
        ("/bomb", UnsupportedMedia, "without Content-Encoding"),
        ("/liar", FetchFailed, "could not be downloaded"),
        ("/silent", FetchFailed, "could not be downloaded"),
        ("/page", UnsupportedMedia, "web page"),
        ("/zipped", UnsupportedMedia, "application/zip"),
        ("/status/404", InvalidInput, "answered 404"),
        ("/status/403", InvalidInput, "answered 403"),
        ("/status/204", InvalidInput, "answered 204"),
        ("/status/301", InvalidInput, "without saying where"),
        ("/status/429", FetchFailed, "answered 429"),
        ("/status/503", FetchFailed, "answered 503"),
    ],
)
async def test_fetch_stops_a_hostile_server(world, tmp_path, path, error, words):
    fetcher = world.fetcher(grace_s=0.15, min_rate=2000, read_timeout_s=0.3)

    with pytest.raises(error, match=words) as caught:
        await fetcher.fetch(world.url(path + "?signature=hush"), tmp_path)

    assert type(caught.value) is error
    assert "hush" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "ranges", "content"),
    [
        ([cut_after(100_000), rest()], [None, 100_000], LONG),
        ([cut_after(100_000), cut_after(5), whole()], [None, 100_000, 5], LONG),
        ([cut_after(100_000), whole(PNG + LONG)], [None, 100_000], PNG + LONG),
        ([cut_after(100_000, etag='W/"v1"'), whole()], [None, None], LONG),
        ([cut_after(100_000, etag=None), whole()], [None, None], LONG),
        ([cut_after(100_000), rest(shift=1), whole()], [None, 100_000, None], LONG),
        ([cut_after(100_000), says(416), whole()], [None, 100_000, None], LONG),
        ([says(503), says(429), says(502), whole()], [None] * 4, LONG),
        ([says(503, **{"Retry-After": "0"}), whole()], [None] * 2, LONG),
    ],
)
async def test_fetch_goes_on_where_a_connection_broke_and_never_mixes_two_files(world, shaky, tmp_path, script, ranges, content):
    shaky.script = list(script)
    fetched = await world.fetcher().fetch(world.url("/shaky"), tmp_path)
    assert fetched.path.read_bytes() == content
    assert (fetched.sha256, fetched.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert [headers.get("Range") for headers in shaky.seen] == [None if n is None else f"bytes={n}-" for n in ranges]
    assert all(("If-Range" in headers) == ("Range" in headers) for headers in shaky.seen)
    assert list(tmp_path.iterdir()) == [fetched.path]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ([says(503)] * 4, "answered 503"),
        ([cut_after(1000)] * 2 + [cut_after(0)] * 3, "could not be downloaded"),
        ([says(503, **{"Retry-After": "3600"})], "answered 503"),
        ([says(206)] * 4, "another part"),
    ],
)
async def test_fetch_gives_up_after_its_tries(world, shaky, tmp_path, script, words):
    shaky.script = list(script)
    with pytest.raises(FetchFailed, match=words) as caught:
        await world.fetcher().fetch(world.url("/shaky"), tmp_path)
    assert type(caught.value) is FetchFailed
    assert list(tmp_path.iterdir()) == []
    assert len(shaky.seen) <= 4


async def test_fetch_says_that_nothing_has_changed(world, shaky, tmp_path):
    shaky.script = [says(304), whole()]
    assert await world.fetcher().fetch(world.url("/shaky"), tmp_path, etag='"v1"') is None
    assert shaky.seen[0]["If-None-Match"] == '"v1"'
    assert list(tmp_path.iterdir()) == []
    assert (await world.fetcher().fetch(world.url("/shaky"), tmp_path, etag='"v1"')).etag == '"v2"'


async def test_a_304_that_nobody_asked_for_is_refused(world, shaky, tmp_path):
    shaky.script = [says(304)]
    with pytest.raises(InvalidInput, match="answered 304"):
        await world.fetcher().fetch(world.url("/shaky"), tmp_path)


async def test_fetch_ends_after_its_whole_time(world, tmp_path):
    with pytest.raises(FetchFailed, match="took too long"):
        await world.fetcher(timeout_s=0.2, grace_s=10).fetch(world.url("/slowloris"), tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_fetch_reports_a_closed_port_as_passing(world, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(FetchFailed) as caught:
            await world.fetcher(allow=("media.test",)).fetch(f"http://media.test:{port}/x?signature=hush", tmp_path)
    assert caught.value.retryable
    assert caught.value.__cause__ is None
    assert "hush" not in str(caught.value)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def server_tls(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


async def fetch_over_tls(world, tmp_path, authority, certificate):
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    target = tmp_path / "in"
    target.mkdir()
    async with serve(MEDIA_ROUTES, server_tls(certificate)) as port:
        return await world.fetcher(allow=("media.test",), ca_file=ca_file).fetch(f"https://media.test:{port}/picture", target)


async def test_fetch_trusts_a_configured_authority(world, tmp_path, authority):
    fetched = await fetch_over_tls(world, tmp_path, authority, authority.issue_cert("media.test"))
    assert fetched.size_bytes == len(PNG)


@pytest.mark.parametrize("flaw", ["name", "authority", "date"])
async def test_fetch_refuses_a_bad_certificate(world, tmp_path, authority, flaw):
    issuer = trustme.CA() if flaw == "authority" else authority
    name = "other.test" if flaw == "name" else "media.test"
    expiry = dt.datetime(2020, 1, 1, tzinfo=dt.UTC) if flaw == "date" else None

    with pytest.raises(InvalidInput, match="is not trusted") as caught:
        await fetch_over_tls(
            world, tmp_path, authority, issuer.issue_cert(name, not_before=expiry and expiry - dt.timedelta(1), not_after=expiry)
        )

    assert isinstance(caught.value, ServiceError)
    assert not caught.value.retryable
