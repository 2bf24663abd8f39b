"""The WebSockets of the middleware and the gateway, and pictures that only eyes can tell: a mask."""

from __future__ import annotations

import io
import json
import uuid

import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.workflows import empty_image, text_to_image

pytestmark = pytest.mark.serve

WAIT_S = 60


def hear(socket, until):
    """Return the messages up to the one that a client waits for."""
    heard = []
    while not heard or not until(heard[-1]):
        heard.append(json.loads(socket.recv(timeout=WAIT_S)))
    return heard


def address(cluster, path):
    return cluster.url.replace("http", "ws", 1) + path


def test_the_middleware_tells_every_task_to_every_listener(api, cluster):
    with connect(address(cluster, "/ws")) as first, connect(address(cluster, "/ws")) as second:
        ids = [api.post("/api/workflow/submit", json=text_to_image(steps=40, seed=n)).json()["task_id"] for n in range(3)]
        updates: dict[str, list[dict]] = {}
        for socket in (first, second):
            ended: set[str] = set()
            updates = {task_id: [] for task_id in ids}
            while ended < set(ids):
                update = json.loads(socket.recv(timeout=WAIT_S))
                assert update["type"] == "task_update"
                if update["task_id"] in updates:  # other tests share the cluster
                    updates[update["task_id"]].append(update)
                    ended |= {update["task_id"]} if update["status"] == "COMPLETED" else set()
            for told in updates.values():
                assert list(dict.fromkeys(update["status"] for update in told)) == ["PENDING", "PROCESSING", "COMPLETED"]
                assert [update["progress"] for update in told] == sorted(update["progress"] for update in told)
                assert [output["url"] for output in told[-1]["outputs"]] == told[-1]["result_urls"]
                assert api.get(told[-1]["result_url"]).headers["content-type"] == "image/png"
                assert any((update["progress_detail"] or {}).get("node") == "3" for update in told)
        first.send('{"type": "ping"}')
        assert hear(first, lambda message: message["type"] == "pong")
        resumed = updates[ids[0]][0]["event_id"]
    with connect(address(cluster, f"/ws?after={resumed}")) as again:
        assert hear(again, lambda update: update["task_id"] == ids[0] and update["status"] == "COMPLETED")


def test_the_gateway_tells_a_client_of_its_own_prompts(api, cluster):
    client_id = f"client-{uuid.uuid4().hex[:8]}"
    with connect(address(cluster, f"/api/v1/ws/{client_id}")) as socket:
        assert json.loads(socket.recv(timeout=WAIT_S)) == {
            "type": "connected",
            "data": {"message": "WebSocket 连接已建立", "client_id": client_id},
        }
        socket.send('{"type":"ping"}')
        pong = json.loads(socket.recv(timeout=WAIT_S))
        assert (pong["type"], list(pong["data"])) == ("pong", ["timestamp"])
        socket.send("rubbish")
        assert json.loads(socket.recv(timeout=WAIT_S)) == {"type": "error", "data": {"code": 400, "message": "请求参数验证失败"}}
        socket.send(json.dumps({"type": "submit", "data": {"workflow": {"3": {"class_type": "KSampler", "inputs": {}}}}}))
        assert json.loads(socket.recv(timeout=WAIT_S)) == {"type": "submit_error", "data": {"code": 1002, "message": "工作流无效"}}
        foreign = api.post("/api/v1/workflows/submit", json={"workflow": empty_image(), "client_id": "another"}).json()["data"]["prompt_id"]
        socket.send(json.dumps({"type": "submit", "data": {"workflow": text_to_image(steps=6)}}))
        accepted = json.loads(socket.recv(timeout=WAIT_S))
        prompt_id = accepted["data"]["prompt_id"]
        assert accepted == {"type": "submit_success", "data": {"prompt_id": prompt_id, "client_id": client_id, "message": "工作流已提交"}}
        told = hear(socket, lambda message: message["type"] == "execution_success")
    assert {message["data"]["prompt_id"] for message in told} == {prompt_id} != {foreign}
    kinds = [message["type"] for message in told]
    assert (kinds[0], kinds[-3:]) == ("execution_start", ["executed", "executing", "execution_success"])
    steps = [message["data"] for message in told if message["type"] == "progress"]
    assert steps
    assert all(step["max"] == 6 and step["node"] == "3" for step in steps)
    assert told[-3]["data"]["output"]["images"][0]["filename"].startswith(prompt_id)
    assert told[-2]["data"]["node"] is None


def test_the_gateway_tells_of_a_scenario_and_of_an_interrupt(api, cluster):
    with connect(address(cluster, "/api/v1/ws/studio"), additional_headers={"Accept-Language": "en"}) as socket:
        assert json.loads(socket.recv(timeout=WAIT_S))["data"]["message"] == "WebSocket connected"
        body = {"prompt": "slow", "steps": 150, "client_id": "studio"}
        prompt_id = api.post("/api/v1/scenarios/text2img", json=body).json()["data"]["prompt_id"]
        hear(socket, lambda message: message["type"] == "progress")
        api.post("/api/v1/workflows/interrupt", json={"prompt_id": prompt_id})
        told = hear(socket, lambda message: message["type"].startswith("execution_"))
    assert (told[-1]["type"], told[-1]["data"]["prompt_id"]) == ("execution_interrupted", prompt_id)


@pytest.mark.parametrize("path", ["/ws", "/api/v1/ws/me"])
def test_a_page_of_another_host_opens_no_socket(cluster, path):
    with pytest.raises(InvalidStatus), connect(address(cluster, path), origin="https://evil.example"):  # type: ignore[call-overload]  # a str subtype
        pass


def test_the_queue_is_cleared_and_what_runs_is_spared(api):
    long = {"workflow": text_to_image(steps=400)}
    ids = [api.post("/api/workflow/submit", json=long | {"params": {"3.seed": n}}).json()["task_id"] for n in range(8)]
    try:
        cleared = api.post("/api/queue/clear").json()
        assert set(cleared["task_ids"]) & set(ids)
        states = {task_id: api.get(f"/api/task/{task_id}").json()["status"] for task_id in ids}
        assert {states[task_id] for task_id in cleared["task_ids"] if task_id in states} == {"CANCELLED"}
        assert "PROCESSING" in states.values()
        assert api.get("/api/queue").json()["pending_count"] == 0
    finally:
        stopped = api.post("/api/comfyui-interrupt").json()
    assert set(stopped["interrupted"]) >= {task_id for task_id, state in states.items() if state == "PROCESSING"}


def test_a_mask_becomes_the_alpha_of_its_picture(api, media):
    picture = Image.open(media / "coffee_no_face.png").convert("RGB")
    alpha = np.zeros((picture.height, picture.width), np.uint8)
    alpha[: picture.height // 2] = 255
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([np.zeros((*alpha.shape, 3), np.uint8), alpha])).save(buffer, "PNG")
    stored = api.post("/api/upload/image", files={"image": ("coffee.png", (media / "coffee_no_face.png").read_bytes())}).json()
    form = {"original_ref": json.dumps({"filename": stored["name"], "subfolder": "", "type": "input"})}
    masked = api.post("/api/upload/mask", files={"image": ("mask.png", buffer.getvalue())}, data=form)
    assert masked.status_code == 200, masked.text
    found = np.asarray(Image.open(io.BytesIO(api.get(masked.json()["url"]).content)))
    np.testing.assert_array_equal(found, np.dstack([np.asarray(picture), alpha]))
