"""Who may ask: the Host and the Origin of requests, and the settings they are compared with."""

from __future__ import annotations

import httpx
import pytest
from pydantic import ValidationError

from serve_app.api.app import create_api
from serve_app.api.config import ApiConfig
from serve_app.api.origins import Origin, parse_authority

PROBLEM = "application/problem+json"
URL = "https://example.com/a.png"
REQUEST = {"source": URL, "target": URL}


@pytest.fixture
def ask(service):
    async def ask(path="/v1/stats", method="GET", config=None, **headers):
        transport = httpx.ASGITransport(create_api(service, ApiConfig(**(config or {}))))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return await client.request(method, path, headers=headers, **({"json": REQUEST} if method == "POST" else {}))

    return ask


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST.:8000", "app.localhost", "[::1]:8000", "127.5.5.5"]
)
async def test_host_of_this_machine_is_answered(ask, host):
    assert (await ask(Host=host)).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "10.0.0.7", "", "a b", "[x", "user@localhost", "localhost:99999", "."],
)
async def test_host_of_others_is_refused(ask, host):
    response = await ask(Host=host)
    assert (response.status_code, response.json()["code"], response.headers["content-type"]) == (421, "host_not_allowed", PROBLEM)


@pytest.mark.parametrize(
    ("config", "host", "status"),
    [
        ({"public_base_url": "https://Atelier.example/x/"}, "atelier.example", 200),
        ({"allowed_hosts": {"Atelier.Internal."}}, "atelier.internal:8000", 200),
        ({"allowed_hosts": {"fd00::1"}}, "[fd00:0::1]:8000", 200),
        ({"bind_host": "10.0.0.7"}, "10.0.0.7:8000", 200),
        ({"bind_host": "10.0.0.7"}, "10.0.0.8", 421),
        ({"bind_host": "0.0.0.0"}, "10.0.0.8", 200),
        ({"bind_host": "::"}, "[fd00::1]:8000", 200),
        ({"bind_host": "0.0.0.0"}, "evil.example", 421),
        ({"bind_host": ""}, ".", 421),
    ],
)
async def test_host_is_compared_with_the_configured_ones(ask, config, host, status):
    assert (await ask(config=config, Host=host)).status_code == status


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_probes_are_answered_whatever_they_ask_for(ask, path):
    assert (await ask(path, Host="10.1.2.3:8000")).status_code in {200, 503}


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", "https://studio.example", "https://atelier.example"])
async def test_origin_of_a_trusted_page_may_submit(ask, origin):
    config = {"public_base_url": "https://atelier.example:443/x", "allowed_origins": {"https://Studio.example:443/"}}
    assert (await ask("/v1/jobs", "POST", config, Origin=origin)).status_code == 202


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "", "http://[x", "http://127.0.0.1", "http://127.0.0.1:8001", "file://", "http://127.0.0.1:8000/x"],
)
async def test_origin_of_another_page_may_not_change_anything(ask, service, origin):
    for method, path in [("POST", "/v1/jobs"), ("DELETE", "/v1/jobs/x"), ("POST", "/v1/files"), ("POST", "/v1/jobs/x/cancel")]:
        response = await ask(path, method, Origin=origin)
        assert (response.status_code, response.json()["code"], response.headers["content-type"]) == (403, "origin_not_allowed", PROBLEM)
    assert (await service.stats()).by_status["queued"] == 0
    assert (await ask(Origin=origin)).status_code == 200


@pytest.mark.parametrize("headers", [{"host": "evil.example", "origin": "http://evil.example"}, {"host": "evil.example"}])
async def test_websocket_refuses_the_host_of_others(websocket, headers):
    async with websocket(**headers) as peer:
        assert (await peer.receive())["type"] == "websocket.close"


async def test_websocket_refusal_is_a_problem_where_the_server_can_send_one(app, websocket):
    async with websocket(origin="https://evil.example") as peer:
        peer.task.cancel()
    peer.scope["extensions"] = {"websocket.http.response": {}}
    sent = []

    async def send(message):
        sent.append(message)

    await app(peer.scope, peer.to_app.get, send)
    assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 403)
    assert b"origin_not_allowed" in sent[1]["body"]


@pytest.mark.parametrize(
    "bad",
    [
        {"public_base_url": "atelier.example"},
        {"public_base_url": "ftp://atelier.example"},
        {"public_base_url": "https://user@atelier.example"},
        {"public_base_url": "https://atelier.example/?a=1"},
        {"public_base_url": "https://atelier.example/a b"},
        {"public_base_url": "http://[x"},
        {"allowed_origins": {"studio.example"}},
        {"allowed_origins": {"https://studio.example/page"}},
        {"allowed_origins": {"*"}},
        {"allowed_origins": {"null"}},
        {"allowed_hosts": {"atelier.internal:8000"}},
        {"allowed_hosts": {"https://atelier.internal"}},
        {"allowed_hosts": {"*"}},
    ],
)
def test_config_refuses_addresses_that_are_none(bad):
    with pytest.raises(ValidationError, match=next(iter(bad))):
        ApiConfig(**bad)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("https://Atelier.example/x//", "https://atelier.example/x"), ("http://a.example:80", "http://a.example"), ("", None), (None, None)],
)
def test_config_normalises_the_public_address(given, kept):
    assert ApiConfig(public_base_url=given).public_base_url == kept


def test_origin_reads_and_writes_one_spelling():
    assert str(Origin.parse("HTTPS://[FD00:0::1]:8443")) == "https://[fd00::1]:8443"
    assert parse_authority("Example.com.:80") == ("example.com", 80)
