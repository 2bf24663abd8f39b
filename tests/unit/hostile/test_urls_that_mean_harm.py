"""Every URL and every server of the lists ends with its code, and nothing dials an address but the one that is public here.

The process' own audit events tell what is dialled and looked up, whoever does it: a canary on loopback alone would miss an address elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys

import pytest

from deployments.jobs.errors import ServiceError
from deployments.storage.fetch import FetchConfig, GuardedFetcher
from deployments.storage.sources import InputSources
from deployments.storage.webhook_sender import GuardedSender
from tests.resolver import FakeResolver
from tests.unit.hostile.listing import expected
from tests.unit.hostile.servers import SERVERS, HostileServer
from tests.unit.hostile.urls import NAMES, PUBLIC, RELATIVE, URLS

URL_CODES, SERVER_CODES = expected("URLs"), expected("Servers")
HANGS_S = 20


class Dials:
    """What this process dials and looks up while the ``with`` lasts. An audit hook cannot be taken away again: one for all, with a switch."""

    def __init__(self) -> None:
        self._seen: list[object] | None = None
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[object, ...]) -> None:
        if self._seen is not None and event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}:
            self._seen.append(args[1] if event == "socket.connect" else (event, *args))

    @contextlib.contextmanager
    def recorded(self):
        self._seen = seen = []
        try:
            yield seen
        finally:
            self._seen = None


DIALS = Dials()


class Canary:
    """Takes every connection on loopback, of both families where there are two, and counts them."""

    def __init__(self) -> None:
        self.calls = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._hit, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await self._server.wait_closed()

    def _hit(self, _reader, writer):
        self.calls += 1
        writer.close()


@pytest.fixture
async def server():
    async with HostileServer() as server:
        yield server


@pytest.fixture
async def canary():
    async with Canary() as canary:
        yield canary


@pytest.fixture
def resolver():
    return FakeResolver(NAMES | {f"{'é' * 70}.test": []})


@pytest.fixture
def config(server, canary, monkeypatch):
    monkeypatch.setattr("deployments.storage.fetch.FIRST_PAUSE_S", 0.001)
    return FetchConfig(
        allow=(f"{PUBLIC}:{server.port}",),
        ports=frozenset({80, 443, canary.port, server.port}),  # a refusal is never for the port's sake but where the list means it
        max_bytes=2**20,
        timeout_s=6.0,  # far above what a slow machine needs for the harmless ones
        read_timeout_s=1.0,
        grace_s=0.3,
        min_rate=2000,
        tries=2,
    )


async def ending(action) -> str:
    """Return ``passes``, or the code of the error; its words must not tell what may be a secret."""
    try:
        async with asyncio.timeout(HANGS_S):
            await action
    except ServiceError as error:
        return f"{error.code}, and tells a secret" if re.search("secret|hush", str(error)) else error.code
    return "passes"


def filled(name, canary, server):
    return URLS[name].replace("{c}", str(canary.port)).replace("{m}", str(server.port))


def test_the_lists_and_the_readme_are_the_same():
    assert list(URL_CODES) == list(URLS)
    assert list(SERVER_CODES) == list(SERVERS)
    assert len(URLS) >= 60


@pytest.mark.parametrize("name", list(URLS))
async def test_a_hostile_url_ends_with_its_code(server, canary, resolver, config, tmp_path, name):
    server.locations["rebound"] = f"http://rebind.test:{canary.port}/"
    with DIALS.recorded() as dialled:
        code = await ending(InputSources(config, resolver).fetch(filled(name, canary, server), tmp_path))
    assert code == URL_CODES[name]
    assert set(dialled) <= {(PUBLIC, server.port)}
    assert canary.calls == 0
    assert len(list(tmp_path.iterdir())) == (code == "passes")
    assert all(request.lower().count("\r\nhost:") == 1 for request in server.requests)


@pytest.mark.parametrize("name", [name for name in URLS if name not in RELATIVE])
async def test_a_redirect_to_a_hostile_url_leads_nowhere(server, canary, resolver, config, tmp_path, name):
    server.locations = {"it": filled(name, canary, server), "rebound": f"http://rebind.test:{canary.port}/"}
    with DIALS.recorded() as dialled:
        code = await ending(GuardedFetcher(config, resolver).fetch(f"http://public.test:{server.port}/to/it", tmp_path))
    assert code != "passes"
    assert set(dialled) <= {(PUBLIC, server.port)}
    assert canary.calls == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name, code in URL_CODES.items() if code == "url_not_allowed" and "rebinds" not in name])
async def test_a_webhook_reaches_no_hostile_url(server, canary, resolver, config, name):
    with DIALS.recorded() as dialled:
        code = await ending(GuardedSender(config, 1.5, resolver).send(filled(name, canary, server), {}, b"{}"))
    assert code == "url_not_allowed"
    assert dialled == []
    assert canary.calls == 0


@pytest.mark.parametrize("name", list(SERVERS))
async def test_a_hostile_server_ends_with_its_code(server, canary, resolver, config, tmp_path, name):
    with DIALS.recorded() as dialled:
        code = await ending(GuardedFetcher(config, resolver).fetch(f"http://public.test:{server.port}/{name}?signature=hush", tmp_path))
    assert code == SERVER_CODES[name]
    assert set(dialled) <= {(PUBLIC, server.port)}
    assert len(list(tmp_path.iterdir())) == (code == "passes")
