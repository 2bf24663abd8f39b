"""What the tests of the object stores share: an authority of their own, and servers that present its certificate."""

import asyncio
import ssl

import pytest
import trustme
from aiohttp import web


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="module")
def certificate(authority, tmp_path_factory):
    """The paths of certificate and key of 127.0.0.1."""
    folder, issued = tmp_path_factory.mktemp("certificate"), authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    for pem in issued.cert_chain_pems:
        pem.write_to_path(folder / "cert.pem", append=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def tls(certificate):
    """What a server of 127.0.0.1 needs to speak TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
async def serve(tls):
    """Start a handler as a server of 127.0.0.1 over TLS and return its URL."""
    runners, connections = [], {}

    async def start(handle):
        async def remember(request):
            if request.transport is not None:  # else the client has gone already
                connections[request.transport] = request.transport.get_extra_info("socket")
            return await handle(request)

        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", remember)
        runners.append(web.AppRunner(app))
        await runners[-1].setup()
        site = web.TCPSite(runners[-1], "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        return f"https://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"

    yield start
    for connection in connections:
        connection.abort()  # clients keep theirs, and TLS would wait for their farewell
    for runner in runners:
        await runner.cleanup()
    async with asyncio.timeout(10):
        while any(socket.fileno() != -1 for socket in connections.values()):
            await asyncio.sleep(0)
