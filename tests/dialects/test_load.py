"""Three dialects at once under load: nothing is refused, nothing is lost, and everybody hears of everything in order."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.workflows import empty_image

pytestmark = [pytest.mark.serve, pytest.mark.slow, pytest.mark.timeout(240)]

CLIENTS = 100  # a third for each dialect
LOAD_S = 15.0  # every client goes round several times; a minute of it found nothing more
POLL_S = 0.5
END_S = 90.0
GATEWAY_CLIENT = "load"
ORDER = {"PENDING": 0, "PROCESSING": 1, "COMPLETED": 2}


@dataclass
class Seen:
    """What the clients and the listeners have seen."""

    accepted: dict[str, str] = field(default_factory=dict)  # id -> dialect
    ended: dict[str, str] = field(default_factory=dict)  # id -> how
    trouble: list[str] = field(default_factory=list)
    updates: dict[str, list[dict]] = field(default_factory=lambda: defaultdict(list))
    messages: dict[str, list[dict]] = field(default_factory=lambda: defaultdict(list))

    def note_update(self, update: dict) -> None:
        self.updates[update["task_id"]].append(update)

    def note_message(self, message: dict) -> None:
        if "prompt_id" in message["data"]:
            self.messages[message["data"]["prompt_id"]].append(message)


async def ask(http: httpx.AsyncClient, seen: Seen, method: str, path: str, body: dict | None = None) -> dict:
    answer = await http.request(method, path, json=body)
    reply = answer.json()
    if answer.status_code != httpx.codes.OK or reply.get("code", 200) != 200:
        seen.trouble.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
    return reply


async def task_service(http, seen, n):
    task_id = (await ask(http, seen, "POST", "/api/tasks/create", {"workflow": empty_image(color=n)}))["task_id"]
    seen.accepted[task_id] = "task service"
    while (task := await ask(http, seen, "GET", f"/api/tasks/{task_id}"))["completed_at"] is None:
        await asyncio.sleep(POLL_S)
    seen.ended[task_id] = task["status"]


async def middleware(http, seen, n):
    body = {"workflow": empty_image(), "params": {"1.color": n}}
    task_id = (await ask(http, seen, "POST", "/api/workflow/submit", body))["task_id"]
    seen.accepted[task_id] = "middleware"
    while (task := await ask(http, seen, "GET", f"/api/task/{task_id}"))["status"] in {"PENDING", "PROCESSING"}:
        await asyncio.sleep(POLL_S)
    seen.ended[task_id] = task["status"]


async def gateway(http, seen, n):
    body = {"workflow": empty_image(color=n), "client_id": GATEWAY_CLIENT}
    prompt_id = (await ask(http, seen, "POST", "/api/v1/workflows/submit", body))["data"]["prompt_id"]
    seen.accepted[prompt_id] = "gateway"
    while not (history := await ask(http, seen, "GET", f"/api/v1/workflows/{prompt_id}/history"))["data"]["outputs"]:
        await asyncio.sleep(POLL_S)
    seen.ended[prompt_id] = {"success": "COMPLETED"}.get(history["data"]["status"]["status_str"], "FAILED")


async def be_client(turn: Callable[..., Awaitable[None]], http: httpx.AsyncClient, seen: Seen, n: int, until: float) -> None:
    while time.monotonic() < until:
        await turn(http, seen, n)


async def listen(url: str, keep: Callable[[dict], None]) -> None:
    async with connect(url, max_size=None) as socket:
        async for text in socket:
            keep(json.loads(text))


async def load(url: str, seen: Seen) -> None:
    limits = httpx.Limits(max_connections=CLIENTS + 20, max_keepalive_connections=CLIENTS + 20)
    sockets = url.replace("http", "ws", 1)
    listeners = [
        asyncio.create_task(listen(f"{sockets}/ws", seen.note_update)),
        asyncio.create_task(listen(f"{sockets}/api/v1/ws/{GATEWAY_CLIENT}", seen.note_message)),
    ]
    turns = (task_service, middleware, gateway)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as http:
        until = time.monotonic() + LOAD_S
        async with asyncio.timeout(LOAD_S + END_S):
            await asyncio.gather(*(be_client(turns[n % 3], http, seen, n, until) for n in range(CLIENTS)))
            await heard(seen)
    for listener in listeners:
        listener.cancel()
    results = await asyncio.gather(*listeners, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results), results


async def heard(seen: Seen) -> None:
    """Return when the listeners have heard of the end of every task."""
    through_gateway = {prompt_id for prompt_id, dialect in seen.accepted.items() if dialect == "gateway"}
    while True:
        told = {task_id for task_id, updates in seen.updates.items() if updates[-1]["status"] == "COMPLETED"}
        executed = {prompt_id for prompt_id, messages in seen.messages.items() if messages[-1]["type"] == "execution_success"}
        if seen.accepted.keys() <= told and through_gateway <= executed:
            return
        await asyncio.sleep(POLL_S)


def test_three_dialects_under_load(cluster):
    seen = Seen()
    asyncio.run(load(cluster.url, seen))
    assert seen.trouble == []
    assert {task_id: seen.ended.get(task_id) for task_id in seen.accepted} == dict.fromkeys(seen.accepted, "COMPLETED")
    assert set(Counter(seen.accepted.values())) == {"task service", "middleware", "gateway"}
    for task_id in seen.accepted:
        states = [ORDER[update["status"]] for update in seen.updates[task_id]]
        assert (states == sorted(states), states[0], states[-1]) == (True, 0, 2), seen.updates[task_id]
        progress = [update["progress"] for update in seen.updates[task_id]]
        assert progress == sorted(progress), seen.updates[task_id]
    through_gateway = {prompt_id for prompt_id, dialect in seen.accepted.items() if dialect == "gateway"}
    assert seen.messages.keys() == through_gateway
    for messages in seen.messages.values():
        kinds = [message["type"] for message in messages]
        assert (kinds[0], kinds[-1], kinds.count("execution_start"), kinds.count("execution_success")) == (
            "execution_start",
            "execution_success",
            1,
            1,
        ), kinds
    print(f"{len(seen.accepted)} tasks in {LOAD_S:g} s: {dict(Counter(seen.accepted.values()))}")  # noqa: T201 -- shown by pytest -s
