import pytest
from aiohttp import ClientSession, web
from yarl import URL

from deployments.jobs.errors import UrlNotAllowed
from deployments.storage.address import AllowList
from deployments.storage.guard import AddressGuard, parse_url, without_secrets


async def test_connector_refuses_an_address_that_nobody_checked_before():
    hits = []

    async def hit(request):
        hits.append(request.path)
        return web.Response()

    app = web.Application()
    app.router.add_get("/", hit)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    url = URL(f"http://127.0.0.1:{port}/")
    try:
        closed = AddressGuard(AllowList(), frozenset({80, port}))
        async with ClientSession(connector=closed.connector(url)) as session:
            with pytest.raises(UrlNotAllowed, match="private address"):
                await session.get(url)
        assert hits == []
        opened = AddressGuard(AllowList.parse([f"127.0.0.1:{port}"]), frozenset())
        async with ClientSession(connector=opened.connector(url)) as session, session.get(url) as response:
            assert response.status == 200
    finally:
        await runner.cleanup()


def test_parse_url_leaves_a_signature_as_it_was_sent():
    text = "https://bucket.example/a%20b/c+d?X-Sig=a%2Fb%3D&x=1+2"
    assert str(parse_url(text)) == text


def test_without_secrets_shows_scheme_host_and_path():
    assert without_secrets(URL("https://user:pw@a.test:8443/b?sig=1#c")) == "https://a.test/b"
