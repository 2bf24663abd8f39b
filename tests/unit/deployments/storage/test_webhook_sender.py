"""Webhooks leave through the guard, follow nothing, read nothing, and wait for nobody for long."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver

from deployments.jobs.errors import UrlNotAllowed
from deployments.storage.fetch import FetchConfig
from deployments.storage.webhook_sender import GuardedSender

BODY = b'{"type": "job.succeeded"}'


class Resolver(AbstractResolver):
    """Every name is this machine."""

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self):
        pass


@contextlib.asynccontextmanager
async def receiver(handle):
    seen = []

    async def take(request):
        seen.append((request.path_qs, dict(request.headers), await request.read()))
        return await handle(request)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1], seen
    finally:
        await runner.cleanup()


def sender(port, timeout_s=5.0):
    return GuardedSender(FetchConfig(allow=(f"hooks.test:{port}",), ports={80, 443, port}), timeout_s, Resolver())


def answers(status, **headers):
    async def handle(_):
        return web.Response(status=status, headers=headers)

    return handle


async def test_a_delivery_arrives_as_it_was_signed():
    async with receiver(answers(204)) as (port, seen):
        answer = await sender(port).send(f"http://hooks.test:{port}/a?key=1", {"webhook-id": "x", "Content-Type": "application/json"}, BODY)
    assert (answer.status_code, answer.error) == (204, None)
    ((path, headers, body),) = seen
    assert (path, headers["webhook-id"], headers["Content-Type"], body) == ("/a?key=1", "x", "application/json", BODY)


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("nonsense", None), (None, None)])
async def test_what_a_receiver_says_of_later_is_passed_on(value, seconds):
    async with receiver(answers(503, **({"Retry-After": value} if value else {}))) as (port, _):
        answer = await sender(port).send(f"http://hooks.test:{port}/", {}, BODY)
    assert (answer.status_code, answer.retry_after_s) == (503, seconds)


async def test_a_redirect_is_an_answer_and_never_followed():
    async with receiver(answers(200)) as (inside, hits), receiver(answers(307, Location=f"http://127.0.0.1:{inside}/")) as (port, _):
        answer = await sender(port).send(f"http://hooks.test:{port}/", {}, BODY)
        assert (answer.status_code, hits) == (307, [])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "inside.test", "169.254.169.254"])
async def test_a_private_address_is_refused_and_never_dialled(host):
    async with receiver(answers(200)) as (port, hits):
        with pytest.raises(UrlNotAllowed):
            await sender(port).send(f"http://{host}:{port}/", {}, BODY)
    assert hits == []


async def test_a_receiver_that_does_not_answer_is_given_up():
    hang = asyncio.Event()

    async def silent(_):
        await hang.wait()
        return web.Response()

    async with receiver(silent) as (port, _):
        answer = await sender(port, timeout_s=0.2).send(f"http://hooks.test:{port}/", {}, BODY)
        hang.set()
    assert (answer.status_code, answer.error) == (None, "the receiver did not answer in time")


async def test_a_huge_answer_is_not_read():
    written = []

    async def huge(request):
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(2000):
                await response.write(bytes(2**20))
                written.append(1)
        return response

    async with receiver(huge) as (port, _):
        answer = await sender(port).send(f"http://hooks.test:{port}/", {}, BODY)
        assert answer.status_code == 200
    assert len(written) < 100


async def test_a_receiver_that_is_not_there_is_told_without_its_url():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    answer = await sender(port).send(f"http://hooks.test:{port}/?key=secret", {}, BODY)
    assert answer.status_code is None
    assert "secret" not in (answer.error or "")
