"""The WebSocket against the fake server: its identity, its first words, and that it comes back."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from deployments.comfyui_client.config import ClientConfig
from deployments.comfyui_client.messages import Message
from deployments.comfyui_client.socket import EventSocket
from deployments.fake_comfyui.config import FakeConfig
from deployments.fake_comfyui.server import FakeComfyUI
from tests.workflows import text_to_image

QUICK = ClientConfig(reconnect_s=0.01)


class Listener:
    """Remembers what it hears."""

    def __init__(self):
        self.messages, self.pictures, self.connections = [], [], []
        self.breaks_on = None
        self.news = asyncio.Event()

    def on_message(self, message):
        self.messages.append(message)
        self.news.set()
        if message.type == self.breaks_on:
            raise ZeroDivisionError(message.type)

    def on_picture(self, picture):
        self.pictures.append(picture)
        self.news.set()

    def on_connection(self, *, connected):
        self.connections.append(connected)
        self.news.set()

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                self.news.clear()
                await self.news.wait()

    def heard(self, kind):
        return any(message.type == kind for message in self.messages)


@pytest.fixture
async def fake():
    async with FakeComfyUI(FakeConfig(step_s=0.001)) as fake:
        yield fake


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
async def socket(fake, listener):
    socket = EventSocket("gpu1", f"{fake.url}/", "atelier", QUICK, listener)
    socket.start()
    yield socket
    await socket.close()


def ids_at(fake):
    return list(fake._backend.hub._registered)


async def submit(fake, client_id, graph):
    async with httpx.AsyncClient(base_url=fake.url) as http:
        body = {"prompt": graph, "client_id": client_id, "extra_data": {"preview_method": "latent2rgb"}}
        assert (await http.post("/prompt", json=body)).status_code == 200


async def test_it_connects_under_its_client_id_and_hears_the_server(fake, socket, listener):
    await listener.until(lambda: listener.heard("status"))
    assert (socket.connected, socket.generation, listener.connections) == (True, 1, [True])
    assert socket.client_id.startswith("atelier-")
    assert ids_at(fake) == [socket.client_id]


async def test_the_first_thing_it_says_are_its_feature_flags(socket, listener):
    await listener.until(lambda: listener.heard("feature_flags"))  # the answer; the server looks at the first message alone


async def test_previews_therefore_say_whose_they_are(fake, socket, listener):
    await listener.until(lambda: listener.heard("feature_flags"))
    await submit(fake, socket.client_id, text_to_image())
    await listener.until(
        lambda: Message("executing", {"node": None, "prompt_id": fake.executed[0]} if fake.executed else {}) in listener.messages
    )
    assert {(picture.prompt_id, picture.comfy_node) for picture in listener.pictures} == {(fake.executed[0], "3")}


async def test_after_a_crash_it_comes_back_under_another_id(fake, socket, listener):
    await listener.until(lambda: socket.connected)
    before = socket.client_id
    await fake.crash()
    await listener.until(lambda: not socket.connected)
    await fake.restart()
    await listener.until(lambda: socket.connected)
    assert (listener.connections, ids_at(fake)) == ([True, False, True], [socket.client_id])
    assert socket.client_id.rpartition("-")[0] == before.rpartition("-")[0]
    assert socket.client_id != before
    assert socket.generation > 1


async def test_a_server_that_is_not_there_yet_is_found(listener):
    fake = FakeComfyUI(FakeConfig())
    await fake.start()
    await fake.crash()
    socket = EventSocket("gpu1", fake.url, "atelier", QUICK, listener)
    socket.start()
    async with asyncio.timeout(10):
        while socket.generation < 3:
            await asyncio.sleep(0.005)
    assert (socket.connected, listener.connections) == (False, [])
    await fake.restart()
    await listener.until(lambda: socket.connected)
    await socket.close()
    await fake.stop()


async def test_close_ends_the_task_and_says_so(fake, socket, listener):
    await listener.until(lambda: socket.connected)
    await socket.close()
    assert (socket._task.done(), socket.connected, listener.connections) == (True, False, [True, False])
    async with asyncio.timeout(5):
        while ids_at(fake):
            await asyncio.sleep(0.005)


async def test_close_ends_one_that_never_connected(listener):
    socket = EventSocket("gpu1", "http://127.0.0.1:1", "atelier", QUICK, listener)
    await socket.close()  # not even started
    socket.start()
    await socket.close()
    assert (socket._task.done(), listener.connections) == (True, [])


def test_two_sockets_to_one_server_have_ids_of_their_own(listener):
    assert len({EventSocket("gpu1", "http://127.0.0.1:1", "atelier", QUICK, listener).client_id for _ in range(3)}) == 3


@pytest.mark.parametrize(
    "message", ["not JSON", json.dumps({"type": "breaks", "data": {}}), "[" * 100_000, b"\0\0\0\4\0\0\0\2" + b"[" * 100_000, b"\0"]
)
async def test_a_message_that_breaks_something_does_not_end_it(fake, socket, listener, message):
    listener.breaks_on = "breaks"
    await listener.until(lambda: listener.heard("feature_flags"))
    hub = fake._backend.hub
    hub.post(message, socket.client_id)
    hub.post(json.dumps({"type": "after", "data": {}}), socket.client_id)
    await listener.until(lambda: listener.heard("after"))
    assert (socket.generation, listener.connections, socket._task.done()) == (1, [True], False)
