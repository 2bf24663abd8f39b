"""Dialect C against an in-memory service: envelopes, scenarios, and the WebSocket of a client."""

from __future__ import annotations

import json

import httpx
import pytest

from deployments.jobs.model import Progress, Stage
from serve_app.api.app import create_api
from serve_app.api.config import ApiConfig
from serve_app.dialects.chosen import build_dialects
from serve_app.dialects.config import DialectsConfig

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
INVALID = {"code": 400, "message": "请求参数验证失败", "data": None}


@pytest.fixture(autouse=True)
def scenario(workflows):
    """A scenario is a file: the shipped workflow with a text of its own."""
    described = (workflows / "invert.yaml").read_text()
    (workflows / "negative.json").write_text((workflows / "invert.json").read_text())
    (workflows / "negative.yaml").write_text(described + "scenario: {message: 底片任务已提交, message_en: negative submitted}\n")


async def post(client, path, body, **headers):
    answer = await client.post(f"/api/v1/{path}", json=body, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    return answer.json()


async def test_a_submit_becomes_a_job_of_its_client(client, next_job, healthy, backend, graph):
    answer = await post(client, "workflows/submit", {"workflow": graph, "client_id": "my_client"})
    job = await next_job("comfyui")
    assert answer == {"code": 200, "message": "工作流已提交", "data": {"prompt_id": job.id, "client_id": "my_client"}}
    assert job.labels == {"client_id": "my_client"}
    made_up = await post(client, "workflows/submit", {"workflow": graph}, **{"accept-language": "en"})
    assert (made_up["message"], len(made_up["data"]["client_id"])) == ("workflow submitted", 36)


async def test_a_scenario_takes_its_own_fields_and_ignores_others(client, next_job, healthy, backend):
    body = {"image": "mine.png", "quality": 50, "unknown": 1, "client_id": "me"}
    answer = await post(client, "scenarios/negative", body)
    job = await next_job("comfyui")
    assert answer == {"code": 200, "message": "底片任务已提交", "data": {"prompt_id": job.id, "client_id": "me", "scenario": "negative"}}
    assert (job.spec["graph"]["1"]["inputs"]["image"], job.spec["graph"]["3"]["inputs"]["quality"]) == ("mine.png", 50)


@pytest.mark.parametrize(
    ("path", "body", "envelope"),
    [
        ("scenarios/none", {}, {"code": 404, "message": "Workflow 模板文件不存在", "data": None}),
        ("scenarios/invert", {"image": "a.png"}, {"code": 404, "message": "Workflow 模板文件不存在", "data": None}),  # no scenario
        ("scenarios/negative", {}, INVALID),
        ("scenarios/negative", {"image": "a.png", "quality": "much"}, INVALID),
        ("scenarios/negative", {"image": "a.png", "client_id": 3}, INVALID),
        ("scenarios/negative", [], INVALID),
        ("workflows/submit", {}, INVALID),
        ("workflows/submit", {"workflow": "text"}, INVALID),
        ("workflows/submit", {"workflow": {}}, {"code": 1002, "message": "工作流无效", "data": None}),
        ("workflows/submit", {"workflow": {"1": {"class_type": "A"}}}, {"code": 1002, "message": "工作流无效", "data": None}),
        ("workflows/interrupt", {"prompt_id": "abc123def456"}, {"code": 404, "message": "任务不存在", "data": None}),
        ("workflows/interrupt", {}, INVALID),
        ("queue/clear", {}, INVALID),
        ("images/upload", {}, INVALID),
        ("nothing", {}, {"code": 404, "message": "资源不存在", "data": None}),
        ("queue/status", {}, INVALID),  # another method
    ],
)
async def test_every_error_is_an_envelope(client, healthy, backend, path, body, envelope):
    assert await post(client, path, body) == envelope


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"x" * 30_000}, 400),
        ({"json": {"clear": True}, "headers": {"origin": "https://evil.example"}}, 400),
        ({"json": {"clear": True}, "headers": {"host": "evil.example"}}, 400),
    ],
)
async def test_what_never_reaches_a_route_is_an_envelope_too(client, request_, code):
    answer = await client.post("/api/v1/queue/clear", **request_)
    assert (answer.status_code, answer.json()) == (200, INVALID | {"code": code})


@pytest.mark.parametrize("path", ["workflows/submit", "scenarios/negative"])
@pytest.mark.parametrize("patience_s", [0.0, 60.0])
async def test_without_a_healthy_server_clients_are_told_after_a_while(service, desk, backend, graph, path, patience_s):
    app = create_api(
        service, ApiConfig(allowed_hosts=frozenset({"atelier.test"})), desk, build_dialects(DialectsConfig(patience_s=patience_s))
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://atelier.test") as client:
        answer = await post(client, path, {"workflow": graph, "image": "a.png"})
        listed = (await client.get("/api/tasks")).json()["total"]
    assert (answer["code"], listed) == ((1001, 0) if patience_s == 0 else (200, 1))


async def test_without_any_server_clients_are_told_at_once(client, graph):
    assert (await post(client, "workflows/submit", {"workflow": graph}))["code"] == 1001


async def test_mapped_status_follows_the_code(service, desk, graph):
    dialects = build_dialects(DialectsConfig(gateway_http_status="mapped"))
    app = create_api(service, ApiConfig(allowed_hosts=frozenset({"atelier.test"})), desk, dialects)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://atelier.test") as client:
        answers = [
            await client.post(f"/api/v1/{path}", json=body)
            for path, body in (("workflows/submit", {"workflow": graph}), ("queue/clear", {}), ("none", {}))
        ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(502, 1001), (400, 400), (404, 404)]


async def test_a_dialect_that_is_off_is_not_there(service, desk):
    app = create_api(
        service, ApiConfig(allowed_hosts=frozenset({"atelier.test"})), desk, build_dialects(DialectsConfig(enabled=frozenset({"tasks"})))
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://atelier.test") as client:
        statuses = {
            path: (await client.get(path)).status_code for path in ("/api/v1/queue/status", "/api/queue", "/api/stats", "/api/tasks")
        }
    assert statuses == {"/api/v1/queue/status": 404, "/api/queue": 404, "/api/stats": 200, "/api/tasks": 200}


async def test_history_is_comfyuis(client, next_job, healthy, backend, graph, finish):
    prompt_id = (await post(client, "workflows/submit", {"workflow": graph}))["data"]["prompt_id"]
    before = (await client.get(f"/api/v1/workflows/{prompt_id}/history")).json()
    assert before["data"] == {
        "prompt_id": prompt_id,
        "outputs": {},
        "status": {"status_str": "pending", "completed": False, "messages": []},
    }
    artifact = await finish(await next_job("comfyui"))
    after = (await client.get(f"/api/v1/workflows/{prompt_id}/history")).json()
    assert (after["code"], after["message"]) == (200, "获取历史记录成功")
    assert after["data"]["outputs"] == {"9": {"images": [{"filename": artifact.name, "subfolder": "", "type": "output"}]}}
    url = (await client.get("/api/v1/images/url", params={"filename": artifact.name})).json()
    assert url == {
        "code": 200,
        "message": "获取图片 URL 成功",
        "data": {"url": f"http://atelier.test/v1/files/{artifact.file_id}", "filename": artifact.name},
    }
    assert (await client.get("/api/v1/images/download", params={"filename": artifact.name, "img_type": "output"})).headers[
        "content-type"
    ] == "image/png"


async def test_queue_status_and_clear(client, next_job, healthy, backend, graph):
    ids = [(await post(client, "workflows/submit", {"workflow": graph}))["data"]["prompt_id"] for _ in range(2)]
    running = await next_job("comfyui")
    status = (await client.get("/api/v1/queue/status")).json()
    assert (status["code"], status["message"]) == (200, "获取队列状态成功")
    assert status["data"]["queue_running"] == [{"prompt_id": ids[0], "number": 0, "timestamp": int(running.created_at)}]
    assert [item["prompt_id"] for item in status["data"]["queue_pending"]] == [ids[1]]
    assert (await post(client, "queue/clear", {"clear": False}))["data"] == {"cleared": 0}
    assert await post(client, "queue/clear", {"clear": True}) == {"code": 200, "message": "success", "data": {"cleared": 1}}
    assert await post(client, "workflows/interrupt", {"prompt_id": ids[0]}) == {
        "code": 200,
        "message": "success",
        "data": {"prompt_id": ids[0]},
    }


@pytest.mark.parametrize(("overwrite", "name"), [(None, "image.png"), ("true", "image.png"), ("false", "image (1).png")])
async def test_uploads_replace_by_default(client, overwrite, name):
    await client.post("/api/v1/images/upload", files={"file": ("image.png", PNG)})
    answer = await client.post(
        "/api/v1/images/upload", files={"file": ("image.png", PNG + b"2")}, data={"overwrite": overwrite} if overwrite else {}
    )
    assert answer.json() == {"code": 200, "message": "上传成功", "data": {"filename": name, "name": name, "local_path": f"input/{name}"}}
    assert (await client.get("/api/v1/images/download", params={"filename": name, "img_type": "input"})).content == PNG + b"2"


async def test_an_upload_that_is_no_media_fails_as_a_file_operation(client):
    answer = await client.post("/api/v1/images/upload", files={"file": ("image.png", b"just words, and some more of them")})
    assert answer.json() == {"code": 1003, "message": "文件操作失败", "data": None}


async def said(peer, text):
    peer.to_app.put_nowait({"type": "websocket.receive", "text": text if isinstance(text, str) else json.dumps(text)})
    return await peer.receive_json()


async def test_a_client_submits_and_hears_of_its_own_prompts(client, websocket, next_job, store, healthy, backend, graph, finish):
    async with websocket(path="/api/v1/ws/my_client") as peer:
        assert (await peer.receive())["type"] == "websocket.accept"
        assert await peer.receive_json() == {"type": "connected", "data": {"message": "WebSocket 连接已建立", "client_id": "my_client"}}
        assert (await said(peer, {"type": "ping"}))["type"] == "pong"
        peer.to_app.put_nowait({"type": "websocket.receive", "bytes": b"{}"})
        assert (await peer.receive_json())["type"] == "error"
        for rubbish in ("{", '{"type": "dance"}', "[]"):
            assert await said(peer, rubbish) == {"type": "error", "data": {"code": 400, "message": "请求参数验证失败"}}
        for wrong, code, message in (
            ({}, 400, "请求参数验证失败"),
            ({"workflow": {}}, 1002, "工作流无效"),
            (None, 400, "请求参数验证失败"),
        ):
            answer = await said(peer, {"type": "submit", "data": wrong})
            assert answer == {"type": "submit_error", "data": {"code": code, "message": message}}
        accepted = await said(peer, {"type": "submit", "data": {"workflow": graph}})
        prompt_id = accepted["data"]["prompt_id"]
        assert accepted == {"type": "submit_success", "data": {"prompt_id": prompt_id, "client_id": "my_client", "message": "工作流已提交"}}
        await post(client, "workflows/submit", {"workflow": graph, "client_id": "another"})
        own, foreign = await next_job("comfyui"), await next_job("comfyui")
        await finish(foreign)
        await store.heartbeat(own.id, own.attempt, Progress(Stage.COMPUTING, 0.5, comfy_node="3", step=2, steps=4))
        started = [await peer.receive_json() for _ in range(3)]
        await finish(own)
        ended = [await peer.receive_json() for _ in range(3)]
    assert [message["type"] for message in (*started, *ended)] == [
        "execution_start",
        "executing",
        "progress",
        "executed",
        "executing",
        "execution_success",
    ]
    assert {message["data"]["prompt_id"] for message in (*started, *ended)} == {prompt_id}
    assert started[2]["data"] == {"prompt_id": prompt_id, "node": "3", "value": 2, "max": 4}


async def test_a_scenarios_prompt_is_told_to_the_client_that_it_names(client, websocket, next_job, healthy, backend):
    async with websocket(path="/api/v1/ws/me", **{"accept-language": "en"}) as peer:
        await peer.receive()
        assert (await peer.receive_json())["data"]["message"] == "WebSocket connected"
        prompt_id = (await post(client, "scenarios/negative", {"image": "a.png", "client_id": "me"}))["data"]["prompt_id"]
        await next_job("comfyui")
        message = await peer.receive_json()
    assert (message["type"], message["data"]["prompt_id"]) == ("execution_start", prompt_id)
