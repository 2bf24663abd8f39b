"""Dialect C beyond the conversations of ``golden/gateway.json``: one golden file a conversation, and what needs eyes, a socket or a queue."""

from __future__ import annotations

import json
import uuid

import httpx
import pytest

from tests.cluster import wait_until
from tests.dialects.golden import FOLDER
from tests.dialects.tasks import (
    WAIT_S,
    assert_like,
    busy,
    conversations_of,
    ends,
    hear,
    hold_conversation,
    listening,
    picture,
    png,
    slow,
    state_of,
)
from tests.workflows import empty_image, text_to_image

pytestmark = pytest.mark.serve

SUBMIT = "/api/v1/workflows/submit"
ENVELOPE = {"code", "message", "data"}
FAILS = empty_image(color=12) | {
    "3": {"class_type": "FakeFail", "inputs": {"image": ["1", 0], "message": "out of luck"}, "_meta": {"title": "Unlucky"}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "never"}},
}
INVALID = {"code": 1002, "message": "工作流无效", "data": None}


def ask(api, method, path, **send):
    """Return the envelope of a success."""
    answer = api.request(method, path, **send)
    assert answer.status_code == httpx.codes.OK
    envelope = answer.json()
    assert set(envelope) == ENVELOPE
    assert envelope["code"] == 200, envelope
    return envelope


def submit(api, workflow, client_id="me"):
    data = ask(api, "POST", SUBMIT, json={"workflow": workflow, "client_id": client_id})["data"]
    assert data["client_id"] == client_id
    return data["prompt_id"]


def history(api, prompt_id):
    return ask(api, "GET", f"/api/v1/workflows/{prompt_id}/history")["data"]


def reaches(api, prompt_id, *states):
    return wait_until(
        lambda: (found := history(api, prompt_id))["status"]["status_str"] in states and found,
        WAIT_S,
        f"{prompt_id} gets to none of {states}",
        lambda: json.dumps(history(api, prompt_id)),
    )


def download(api, name, img_type="output"):
    return picture(api, str(httpx.URL("/api/v1/images/download", params={"filename": name, "subfolder": "", "img_type": img_type})))


def run_scenario(api, **body):
    """Run `text2img` and return its picture."""
    prompt_id = ask(api, "POST", "/api/v1/scenarios/text2img", json=body)["data"]["prompt_id"]
    return download(api, only_image(reaches(api, prompt_id, "success"))["filename"])


def only_image(found):
    """Return the one picture of a history."""
    (node,) = found["outputs"].values()
    (image,) = node["images"]
    return image


@pytest.mark.parametrize("steps", conversations_of("gateway"))
def test_conversation(api, media_server, steps):
    hold_conversation(api, media_server, steps)


def test_an_error_says_more_in_english(api):
    for path, body, code in (
        (SUBMIT, {"workflow": {"3": {"class_type": "KSampler", "inputs": {"seed": 123456789, "steps": 20, "cfg": 7.0}}}}, 1002),
        (SUBMIT, {}, 400),
        ("/api/v1/scenarios/none", {"prompt": "a"}, 404),
        ("/api/v1/workflows/interrupt", {"prompt_id": "abc123def456"}, 404),
        ("/api/v1/none", {}, 404),
    ):
        answer = api.post(path, json=body, headers={"Accept-Language": "en"})
        envelope = answer.json()
        assert (answer.status_code, set(envelope), envelope["code"], envelope["data"]) == (200, ENVELOPE, code, None)
        assert envelope["message"].isascii(), envelope
        chinese = api.post(path, json=body).json()
        assert (chinese["code"], chinese["message"].isascii()) == (code, False)
    graph = empty_image()
    graph["1"]["inputs"]["width"] = "wide"
    refused = api.post(SUBMIT, json={"workflow": graph}, headers={"Accept-Language": "en"}).json()
    assert (refused["code"], "width" in refused["message"]) == (1002, True), refused  # what is wrong, not only that it is


def test_a_result_is_what_was_submitted(api):
    prompt_id = submit(api, empty_image(color=0x0A0B0C))
    found = reaches(api, prompt_id, "success")
    assert found == {
        "prompt_id": prompt_id,
        "outputs": {"2": {"images": [{"filename": only_image(found)["filename"], "subfolder": "", "type": "output"}]}},
        "status": {"status_str": "success", "completed": True, "messages": []},
    }
    name = only_image(found)["filename"]
    assert name.startswith(prompt_id)
    assert download(api, name).convert("RGB").getpixel((1, 1)) == (10, 11, 12)
    url = ask(api, "GET", "/api/v1/images/url", params={"filename": name, "subfolder": "", "img_type": "output"})["data"]
    assert url["filename"] == name
    plain = httpx.get(url["url"], timeout=30)  # by a client that knows nothing of this server
    assert (plain.status_code, plain.headers["content-type"]) == (200, "image/png")
    assert plain.content == api.get("/api/v1/images/download", params={"filename": name}).content


def test_the_history_is_empty_until_the_end(api):
    with busy(api) as ids:
        waiting = submit(api, empty_image(color=41))
        assert history(api, waiting) == {
            "prompt_id": waiting,
            "outputs": {},
            "status": {"status_str": "pending", "completed": False, "messages": []},
        }
        assert history(api, ids[0]) == {
            "prompt_id": ids[0],
            "outputs": {},
            "status": {"status_str": "running", "completed": False, "messages": []},
        }
    assert history(api, ids[0])["status"]["status_str"] == "interrupted"
    assert reaches(api, waiting, "success")["outputs"].keys() == {"2"}


def test_the_history_of_a_failure_has_what_was_done_before(api):
    prompt_id = submit(api, FAILS)
    found = reaches(api, prompt_id, "error")
    assert (found["outputs"].keys(), found["status"]["completed"]) == ({"2"}, False)


def test_image_to_image_starts_from_the_upload(api):
    name = f"start-{uuid.uuid4().hex[:8]}.png"
    results = []
    for color in ((250, 0, 0), (0, 0, 250)):
        ask(api, "POST", "/api/v1/images/upload", files={"file": (name, png(color))}, data={"overwrite": "true"})
        assert download(api, name, "input").convert("RGB").getpixel((1, 1)) == color
        body = {"prompt": "a sunset", "negative_prompt": "", "input_image": name, "seed": 7, "steps": 1}
        data = ask(api, "POST", "/api/v1/scenarios/cpu_quickly", json=body)["data"]
        assert (data["scenario"], set(data)) == ("cpu_quickly", {"prompt_id", "scenario", "client_id"})
        results.append(download(api, only_image(reaches(api, data["prompt_id"], "success"))["filename"]).convert("RGB"))
    assert [result.size for result in results] == [(512, 512)] * 2
    red, blue = (sum(pixel[0] - pixel[2] for pixel in (result.getpixel((x, 256)) for x in range(0, 512, 16))) for result in results)
    assert red > blue  # the rest is the same: prompt, seed, steps


def test_a_picture_that_nobody_has_is_left_to_comfyui(api):
    """The scenario's default, `your_image_here.png`, is passed on as it is: refused by ComfyUI, at once or as it begins."""
    envelope = api.post("/api/v1/scenarios/cpu_quickly", json={"prompt": "a sunset"}).json()
    if envelope["code"] == 200:
        assert reaches(api, envelope["data"]["prompt_id"], "success", "error")["status"]["status_str"] == "error"
    else:
        assert envelope == INVALID


def test_text_to_image_has_the_scenarios_defaults(api):
    assert run_scenario(api, prompt="a fox", steps=1).size == (512, 512)
    sized = {"prompt": "a fox", "negative_prompt": "", "width": 96, "height": 64, "steps": 1, "cfg": 7.0}
    first, second, drawn = (run_scenario(api, **sized, seed=seed) for seed in (12345, 12345, -1))
    assert first.size == (96, 64)
    assert first.tobytes() == second.tobytes() != drawn.tobytes()


def test_the_queue_is_shown_and_cleared(api):
    with busy(api) as ids:
        waiting = [submit(api, empty_image(color=60 + n)) for n in range(2)]
        queue = ask(api, "GET", "/api/v1/queue/status")["data"]
        item = {"prompt_id": "<uuid>", "number": "<int>", "timestamp": "<int>"}
        counts = {"running_count": len(queue["queue_running"]), "pending_count": len(queue["queue_pending"])}
        assert_like(queue, {"queue_running": ["<each>", item], "queue_pending": ["<each>", item], **counts})
        assert {one["prompt_id"] for one in queue["queue_pending"]} >= set(waiting)
        assert {one["prompt_id"] for one in queue["queue_running"]} <= set(ids)
        assert all(1.6e9 < one["timestamp"] < 1e10 for one in queue["queue_running"] + queue["queue_pending"])
        assert ask(api, "POST", "/api/v1/queue/clear", json={"clear": False})["data"] == {"cleared": 0}
        cleared = ask(api, "POST", "/api/v1/queue/clear", json={"clear": True})["data"]
        assert_like(cleared, {"cleared": "<int>"})
        assert cleared["cleared"] >= 2
        assert [history(api, prompt_id)["status"]["status_str"] for prompt_id in waiting] == ["interrupted"] * 2
        after = ask(api, "GET", "/api/v1/queue/status")["data"]
        assert (after["queue_pending"], after["pending_count"]) == ([], 0)
        assert after["running_count"] >= 1


def test_an_interrupt_ends_one_prompt(api):
    with busy(api, 2) as (first, second):
        envelope = ask(api, "POST", "/api/v1/workflows/interrupt", json={"prompt_id": first})
        assert envelope == {"code": 200, "message": "success", "data": {"prompt_id": first}}
        assert reaches(api, first, "interrupted")["outputs"] == {}
        assert history(api, second)["status"]["status_str"] == "running"


def test_a_socket_answers_each_message(cluster):
    client_id = f"client-{uuid.uuid4().hex[:8]}"
    steps = json.loads((FOLDER / "gateway" / "messages" / "first_and_refused.json").read_text("utf-8"))
    with listening(cluster, f"/api/v1/ws/{client_id}") as socket:
        assert json.loads(socket.recv(timeout=WAIT_S)) == {
            "type": "connected",
            "data": {"message": "WebSocket 连接已建立", "client_id": client_id},
        }
        for step in steps:
            socket.send(json.dumps(step["send"]))
            assert_like(json.loads(socket.recv(timeout=WAIT_S)), step["reply"])
        for rubbish in ("", "{", b"\x00\x01"):
            socket.send(rubbish)
            assert json.loads(socket.recv(timeout=WAIT_S)) == steps[0]["reply"], rubbish


def run_of(messages, prompt_id):
    """Return the kinds of a run's messages, each of which must be that prompt's and have ComfyUI's fields."""
    fields = {
        "execution_start": set(),
        "executing": {"node"},
        "progress": {"value", "max", "node"},
        "executed": {"node", "output"},
        "execution_success": set(),
        "execution_error": {"node_id", "exception_message"},
        "execution_interrupted": set(),
    }
    for message in messages:
        assert set(message) == {"type", "data"}
        assert message["data"]["prompt_id"] == prompt_id
        assert fields[message["type"]] <= set(message["data"]), message
    return [message["type"] for message in messages]


def test_a_socket_tells_of_a_run_from_start_to_end(api, cluster):
    client_id = f"client-{uuid.uuid4().hex[:8]}"
    with listening(cluster, f"/api/v1/ws/{client_id}") as socket:
        socket.recv(timeout=WAIT_S)
        foreign = submit(api, empty_image(color=71), client_id="somebody-else")
        graph = text_to_image(steps=8, seed=uuid.uuid4().int % 2**32)
        socket.send(json.dumps({"type": "submit", "data": {"workflow": graph}}))
        accepted = json.loads(socket.recv(timeout=WAIT_S))
        prompt_id = accepted["data"]["prompt_id"]
        assert accepted == {"type": "submit_success", "data": {"prompt_id": prompt_id, "client_id": client_id, "message": "工作流已提交"}}
        told = hear(socket, lambda message: message["type"] == "execution_success")
        reaches(api, foreign, "success")
        socket.send('{"type": "ping"}')
        assert json.loads(socket.recv(timeout=WAIT_S))["type"] == "pong"  # and nothing of somebody else's in between
    kinds = run_of(told, prompt_id)
    assert (kinds[0], kinds[-1], kinds.count("execution_start"), kinds.count("execution_success")) == (
        "execution_start",
        "execution_success",
        1,
        1,
    )
    values = [message["data"]["value"] for message in told if message["type"] == "progress" and message["data"]["node"] == "3"]
    assert values == sorted(values)
    assert {message["data"]["max"] for message in told if message["type"] == "progress" and message["data"]["node"] == "3"} == {8}
    (executed,) = [message for message in told if message["type"] == "executed"]
    assert executed["data"]["output"] == history(api, prompt_id)["outputs"]["9"]


def test_a_socket_tells_of_a_scenario_by_http(api, cluster):
    client_id = f"client-{uuid.uuid4().hex[:8]}"
    with listening(cluster, f"/api/v1/ws/{client_id}") as socket:
        socket.recv(timeout=WAIT_S)
        body = {"prompt": "a fox", "width": 64, "height": 64, "steps": 3, "client_id": client_id}
        prompt_id = ask(api, "POST", "/api/v1/scenarios/text2img", json=body)["data"]["prompt_id"]
        kinds = run_of(hear(socket, lambda message: message["type"] == "execution_success"), prompt_id)
        assert kinds[0] == "execution_start"
        assert "executed" in kinds


def test_a_socket_tells_of_a_failure_and_of_an_interrupt(api, cluster):
    client_id = f"client-{uuid.uuid4().hex[:8]}"
    with listening(cluster, f"/api/v1/ws/{client_id}") as socket:
        socket.recv(timeout=WAIT_S)
        failing = submit(api, FAILS, client_id)
        told = hear(socket, lambda message: message["type"] == "execution_error")
        assert run_of(told, failing)[0] == "execution_start"
        assert (told[-1]["data"]["node_id"], "out of luck" in told[-1]["data"]["exception_message"]) == ("3", True)
        hanging = submit(api, slow(uuid.uuid4().int % 0xFFFFFF), client_id)
        hear(socket, lambda message: message["type"] == "executing")
        ask(api, "POST", "/api/v1/workflows/interrupt", json={"prompt_id": hanging})
        told = hear(socket, lambda message: message["type"] == "execution_interrupted")
        assert run_of(told, hanging)[-1] == "execution_interrupted"
        assert state_of(api, hanging) == "CANCELLED"


def test_each_of_two_clients_hears_of_its_own_runs(api, cluster):
    names = [f"client-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    with listening(cluster, f"/api/v1/ws/{names[0]}") as first, listening(cluster, f"/api/v1/ws/{names[1]}") as second:
        sockets = (first, second)
        for socket in sockets:
            socket.recv(timeout=WAIT_S)
        ids = [submit(api, empty_image(color=80 + n), names[n]) for n in range(2)]
        for socket, prompt_id in zip(sockets, ids, strict=True):
            run_of(hear(socket, lambda message: message["type"] == "execution_success"), prompt_id)
            assert ends(api, prompt_id)["status"] == "COMPLETED"


def test_a_socket_speaks_english_when_asked(cluster):
    with listening(cluster, "/api/v1/ws/reader", **{"Accept-Language": "en"}) as socket:
        connected = json.loads(socket.recv(timeout=WAIT_S))
        assert (connected["type"], connected["data"]["client_id"]) == ("connected", "reader")
        assert connected["data"]["message"].isascii()
        socket.send("{}")
        assert json.loads(socket.recv(timeout=WAIT_S))["data"]["message"].isascii()
