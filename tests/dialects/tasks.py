"""What tests do with tasks of the dialects: conversations kept one a file, tasks followed to their end, backends kept busy."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from tests.cluster import Cluster, wait_until
from tests.dialects.golden import FOLDER, differences, hold
from tests.workflows import empty_image

Json = dict[str, Any]
WAIT_S = 90.0
ENDED = {"COMPLETED", "FAILED", "CANCELLED"}
SLOTS = 4  # two backends that are sent two prompts each: what comes after them waits


def conversations_of(dialect: str) -> list[Any]:
    """Return a dialect's conversations, one a file, as parameters of a test."""
    return [pytest.param(json.loads(path.read_text("utf-8")), id=path.stem) for path in sorted((FOLDER / dialect).glob("*.json"))]


def hold_conversation(api: httpx.Client, media_server: str, steps: list[Json]) -> Json:
    """Hold one under names that nobody else uses; returns what was kept."""
    unique = f"said-{uuid.uuid4().hex[:8]}"
    return hold(api, steps, media=media_server, unique=unique, picture=f"{unique}.png")


def assert_like(found: Any, pattern: Any) -> None:
    """Compare a whole value with a pattern of :mod:`tests.dialects.golden`."""
    wrong = list(differences(found, pattern))
    assert not wrong, f"{'; '.join(wrong)}\n{json.dumps(found, indent=1, ensure_ascii=False)[:3000]}"


def create(api: httpx.Client, path: str, body: Any) -> str:
    """Submit by A or B and return the task's id."""
    answer = api.post(path, json=body)
    assert answer.status_code == httpx.codes.OK, answer.text
    task_id: str = answer.json()["task_id"]
    return task_id


def reaches(api: httpx.Client, task_id: str, reached: Callable[[Json], bool], timeout_s: float = WAIT_S) -> Json:
    """Return the task as soon as ``reached(task)`` holds."""

    def look() -> Json | None:
        task: Json = api.get(f"/api/tasks/{task_id}").json()
        return task if reached(task) else None

    task: Json = wait_until(look, timeout_s, f"task {task_id} does not get there", lambda: api.get(f"/api/tasks/{task_id}").text)
    return task


def ends(api: httpx.Client, task_id: str, timeout_s: float = WAIT_S) -> Json:
    """Return the task once it has ended."""
    return reaches(api, task_id, lambda task: task["status"] in ENDED, timeout_s)


def picture(api: httpx.Client, url: str) -> Image.Image:
    """Download what must be a picture."""
    answer = api.get(url)
    assert answer.status_code == httpx.codes.OK, answer.text
    return Image.open(io.BytesIO(answer.content))


def png(color: tuple[int, ...], size: tuple[int, int] = (48, 32)) -> bytes:
    """Return a picture of one colour, with alpha when it has four parts."""
    buffer = io.BytesIO()
    Image.new("RGBA" if len(color) > 3 else "RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def slow(color: int, seconds: float = 600.0) -> Json:
    """Return a graph that takes its time; another colour, so that no backend knows its result already."""
    return empty_image(color) | {
        "3": {"class_type": "FakeDelay", "inputs": {"image": ["1", 0], "seconds": seconds}, "_meta": {"title": "Slowly"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "late"}},
    }


@contextlib.contextmanager
def busy(api: httpx.Client, count: int = 2 * SLOTS) -> Iterator[list[str]]:
    """Have slow tasks, some of which run while the others wait; none of them outlives the block."""
    color = uuid.uuid4().int % 0xFFFF00
    ids: list[str] = []
    try:
        ids += [create(api, "/api/workflow/submit", {"workflow": slow(color + n)}) for n in range(count)]
        wait_until(lambda: _settled(api, ids), WAIT_S, "nothing runs")
        yield ids
    finally:
        for task_id in reversed(ids):  # what waits first: nothing gets a turn in between
            api.post(f"/api/interrupt/{task_id}")
        for task_id in ids:
            ends(api, task_id)


def _settled(api: httpx.Client, ids: list[str]) -> bool:
    """Tell whether both backends are at work and no further task is being taken up."""
    return [state_of(api, one) for one in ids].count("PROCESSING") == min(len(ids), SLOTS)


def state_of(api: httpx.Client, task_id: str) -> str:
    """Return a task's status."""
    state: str = api.get(f"/api/task/{task_id}").json()["status"]
    return state


def get_raw(cluster: Cluster, path: str, headers: dict[str, str] | None = None) -> tuple[int, str, bytes]:
    """GET a path just as it is written, which httpx would tidy up; returns status, type and body."""
    connection = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=30)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers["content-type"] or "", answer.read()
    finally:
        connection.close()


@contextlib.contextmanager
def listening(cluster: Cluster, path: str, **headers: str) -> Iterator[ClientConnection]:
    """Open a WebSocket of a dialect."""
    with connect(cluster.url.replace("http", "ws", 1) + path, additional_headers=headers, max_size=None) as socket:
        yield socket


def hear(socket: ClientConnection, until: Callable[[Json], bool]) -> list[Json]:
    """Return the messages up to the one that a client waits for."""
    heard: list[Json] = []
    while not heard or not until(heard[-1]):
        heard.append(json.loads(socket.recv(timeout=WAIT_S)))
    return heard
