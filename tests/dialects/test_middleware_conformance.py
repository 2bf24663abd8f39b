"""Dialect B beyond the conversations of ``golden/middleware.json``: one golden file a conversation, and what needs eyes, a socket or a queue."""

from __future__ import annotations

import io
import json
import uuid
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.dialects.golden import FOLDER
from tests.dialects.tasks import (
    SLOTS,
    assert_like,
    busy,
    conversations_of,
    create,
    ends,
    get_raw,
    hear,
    hold_conversation,
    listening,
    picture,
    png,
    reaches,
    slow,
    state_of,
)
from tests.workflows import empty_image, text_to_image

pytestmark = pytest.mark.serve

UI_FORMAT = Path(__file__).parents[1] / "data" / "comfyui"
SUBMIT = "/api/workflow/submit"
FAILS = empty_image(color=11) | {
    "3": {"class_type": "FakeFail", "inputs": {"image": ["1", 0], "message": "out of luck"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "never"}},
}
EDITABLE = {
    "6.text", "7.text", "3.seed", "3.steps", "3.cfg", "3.sampler_name", "3.scheduler", "3.denoise", "5.width", "5.height", "5.batch_size",
}  # fmt: skip

OF_THE_TASK = ("outputs", "result_urls", "result_url", "error", "error_code", "created_at", "started_at", "completed_at", "attempts")


def message(name):
    return json.loads((FOLDER / "middleware" / "messages" / f"{name}.json").read_text("utf-8"))


def painted(api, **body):
    task = ends(api, create(api, SUBMIT, body))
    assert task["status"] == "COMPLETED", task["error"]
    return picture(api, task["result_url"]).convert("RGB")


@pytest.mark.parametrize("steps", conversations_of("middleware"))
def test_conversation(api, media_server, steps):
    hold_conversation(api, media_server, steps)


@pytest.mark.parametrize("bare", [True, False], ids=["bare", "wrapped"])
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("links", [(32, 16)]),
        ("named_values", None),
        ("converted_widget", None),
        ("notes", None),
        ("primitive", [(96, 96), (96, 96)]),
        ("subgraph_nested", None),
    ],
)
def test_the_editors_format_runs_as_its_api_format_does(api, name, sizes, bare):
    ui, graph = (json.loads((UI_FORMAT / f"{name}{ending}").read_text("utf-8")) for ending in (".json", ".api.json"))
    tasks = [ends(api, create(api, SUBMIT, body if bare else {"workflow": body})) for body in (ui, graph)]
    assert [task["status"] for task in tasks] == ["COMPLETED"] * 2, [task["error"] for task in tasks]
    of_ui, of_graph = ([(output["node_id"], output["width"], output["height"]) for output in task["outputs"]] for task in tasks)
    assert sorted(of_ui) == sorted(of_graph)
    if sizes:
        assert [(width, height) for _, width, height in of_ui] == sizes


def test_params_change_single_inputs(api):
    graph = text_to_image(steps=1, seed=1)
    plain = painted(api, workflow=graph)
    changed = painted(api, workflow=graph, params={"6.text": "a fox", "3.seed": 12345, "5.width": 96})
    again = painted(api, workflow=text_to_image(steps=1, seed=12345), params={"6.text": "a fox", "5.width": 96})
    assert (plain.size, changed.size) == ((64, 64), (96, 64))
    assert changed.tobytes() == again.tobytes()


def test_a_seed_of_minus_one_is_drawn_anew(api):
    graph = text_to_image(steps=1, seed=1)
    first, second, fixed, fixed_too = (painted(api, workflow=graph, params={"3.seed": seed}) for seed in (-1, -1, 12345, 12345))
    assert first.tobytes() != second.tobytes()
    assert fixed.tobytes() == fixed_too.tobytes()
    graph["3"]["inputs"]["seed"] = -1
    assert painted(api, workflow=graph).tobytes() not in {first.tobytes(), second.tobytes()}


def test_the_parameters_of_a_workflow_are_found(api):
    read = api.get("/api/workflow/text-to-image.json").json()
    assert read == api.get("/api/workflow/text-to-image").json()
    assert (read["shipped"], read["format"], read["filename"]) == (True, "api", "text-to-image.json")
    assert read["workflow"]["3"]["class_type"] == "KSampler"
    found = {parameter["key"]: parameter for parameter in read["parameters"]}
    assert set(found) >= EDITABLE
    assert len(found) == len(read["parameters"])
    for key, parameter in found.items():
        assert key == f"{parameter['node_id']}.{parameter['name']}"
        assert parameter["class_type"] == read["workflow"][parameter["node_id"]]["class_type"]
        assert parameter["value"] == read["workflow"][parameter["node_id"]]["inputs"][parameter["name"]]
    assert [key for key, parameter in found.items() if parameter["is_seed"]] == ["3.seed"]
    assert (found["6.text"]["multiline"], found["6.text"]["node_title"]) == (True, "Prompt")
    assert "euler" in found["3.sampler_name"]["choices"]
    assert (found["3.steps"]["min"], found["3.denoise"]["max"]) == (1, 1.0)


def test_parameters_of_other_nodes_are_found_too(api):
    name = f"other-{uuid.uuid4().hex[:8]}"
    stored = api.post("/api/workflow/upload", files={"file": (f"{name}.json", (UI_FORMAT / "links.json").read_bytes())}).json()
    values = {parameter["key"]: parameter["value"] for parameter in stored["parameters"]}
    assert values | {
        "1.width": 64, "1.height": 48, "1.batch_size": 1, "1.color": 0, "2.width": 32, "2.height": 16, "2.crop": "center", "2.upscale_method": "lanczos",
    } == values  # fmt: skip
    read = api.get(f"/api/workflow/{name}.json").json()
    assert (read["format"], {node["type"] for node in read["workflow"]["nodes"]}) == ("ui", {"EmptyImage", "ImageScale", "SaveImage"})
    assert painted(api, workflow=f"{name}.json", params={"2.width": 20}).size == (20, 16)


def test_a_files_name_becomes_the_workflows(api):
    unique = uuid.uuid4().hex[:8]
    stored = api.post("/api/workflow/upload", files={"file": (f"My_Flow {unique}.json", json.dumps(empty_image()).encode())}).json()
    assert (stored["name"], stored["filename"]) == (f"my_flow-{unique}", f"my_flow-{unique}.json")
    listed = {one["name"]: one for one in api.get("/api/workflows").json()["workflows"]}
    assert (listed[stored["name"]]["shipped"], listed["text-to-image"]["shipped"]) == (False, True)
    assert len(listed) == api.get("/api/workflows").json()["total"]
    assert api.get("/api/system/info").json()["workflows"] == len(listed)


def test_a_change_is_kept_in_the_saved_workflow(api):
    name = f"kept-{uuid.uuid4().hex[:8]}"
    api.post("/api/workflow/upload", files={"file": (f"{name}.json", json.dumps(empty_image(color=1)).encode())})
    updated = api.post("/api/workflow/update", json={"filename": f"{name}.json", "params": {"1.color": 0x0A0B0C, "1.width": 40}}).json()
    assert {p["key"]: p["value"] for p in updated["parameters"]}["1.color"] == 0x0A0B0C
    read = api.get(f"/api/workflow/{name}.json").json()
    assert (read["version"], read["workflow"]["1"]["inputs"]["width"]) == (2, 40)
    result = painted(api, workflow=name)
    assert (result.size, result.getpixel((0, 0))) == ((40, 32), (10, 11, 12))


def test_a_waiting_task_is_interrupted_before_it_began(api):
    with busy(api) as ids:
        waiting = ids[-1]
        assert state_of(api, waiting) == "PENDING"
        answer = api.post(f"/api/interrupt/{waiting}").json()
        assert answer.pop("message")
        assert_like(
            answer, {"<like>": "task", "task_id": waiting, "status": "CANCELLED", "completed_at": "<time>", "cancel_requested": "<any>"}
        )
        assert ends(api, waiting)["started_at"] is None
        assert state_of(api, ids[0]) == "PROCESSING"


def test_the_queue_is_cleared_of_what_waits(api):
    with busy(api) as ids:
        before = api.get("/api/queue").json()
        assert before["pending_count"] >= len(ids) - SLOTS
        cleared = api.post("/api/queue/clear").json()
        assert_like(cleared, {"message": "<text>", "cleared": len(cleared["task_ids"]), "task_ids": ["<each>", "<uuid>"]})
        assert set(cleared["task_ids"]) >= {item["task_id"] for item in before["queue_pending"]} & set(ids)
        after = api.get("/api/queue").json()
        assert (after["queue_pending"], after["pending_count"]) == ([], 0)
        assert after["running_count"] >= 1
        assert {ends(api, task_id)["status"] for task_id in cleared["task_ids"]} == {"CANCELLED"}
        assert api.post("/api/queue/clear").json()["cleared"] == 0


def test_the_history_holds_what_has_ended(api):
    done = ends(api, create(api, SUBMIT, empty_image(color=21)))
    failed = ends(api, create(api, SUBMIT, FAILS))
    with busy(api, 1) as (running,):
        history = api.get("/api/history", params={"limit": 500}).json()
        assert running not in {task["task_id"] for task in history["history"]}
    stopped = ends(api, running)
    history = api.get("/api/history", params={"limit": 500}).json()
    assert set(history) == {"history", "total", "limit", "offset"}
    found = {task["task_id"]: task for task in history["history"]}
    assert [found[task["task_id"]] for task in (done, failed, stopped)] == [done, failed, stopped]
    assert {task["status"] for task in found.values()} <= {"COMPLETED", "FAILED", "CANCELLED"}
    assert {task["type"] for task in found.values()} == {"comfyui"}
    order = [task["task_id"] for task in history["history"] if task["task_id"] in {done["task_id"], failed["task_id"], running}]
    assert order == [running, failed["task_id"], done["task_id"]]
    second = api.get("/api/history", params={"limit": 1, "offset": 1}).json()
    assert ([task["task_id"] for task in second["history"]], second["limit"], second["offset"]) == ([failed["task_id"]], 1, 1)
    assert api.get(found[done["task_id"]]["result_url"]).headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    "path",
    [
        "..", "../../etc/passwd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%2f..%2fetc%2fpasswd", "/etc/passwd", "%2fetc%2fpasswd", "..%5c..%5catelier.db",
        "....//....//etc/passwd", "%252e%252e%252fetc%252fpasswd", "%c0%ae%c0%ae%c0%afetc%c0%afpasswd", "a.png%00.txt", ".", "~root", "C:%5cWindows%5cwin.ini",
    ],
)  # fmt: skip
def test_a_hostile_name_leads_nowhere(cluster, path):
    for route in ("/api/image/", "/api/workflow/", "/api/models/"):
        status, media_type, body = get_raw(cluster, route + path)
        assert (status, media_type) in {
            (404, "application/problem+json"),
            (422, "application/problem+json"),
            (400, "application/problem+json"),
        }, route
        assert b"root:x:" not in body


def test_a_generated_picture_is_a_png_under_its_own_name(api):
    task = ends(api, create(api, SUBMIT, empty_image(color=0x123456)))
    (output,) = task["outputs"]
    assert output["filename"].startswith(f"{task['task_id']}_2_")
    answers = [
        api.get(path)
        for path in (output["url"], f"/api/image/{output['filename']}", f"/api/view?filename={output['filename']}&type=output")
    ]
    assert {answer.headers["content-type"] for answer in answers} == {"image/png"}
    assert {answer.content for answer in answers} == {answers[0].content}
    assert (answers[0].content[:8], len(answers[0].content)) == (b"\x89PNG\r\n\x1a\n", output["size_bytes"])
    assert Image.open(io.BytesIO(answers[0].content)).convert("RGB").getpixel((3, 3)) == (0x12, 0x34, 0x56)
    assert httpx.get(task["result_url"], timeout=30).content == answers[0].content  # by a client that knows nothing of this server


def test_comfyui_answers_through_the_middleware(api, fake_backends):
    own = httpx.get(f"{fake_backends[0].url}/object_info", timeout=30).json()
    nodes = api.get("/api/nodes").json()
    assert set(nodes) >= set(own)
    assert nodes["KSampler"] == own["KSampler"]
    folders = api.get("/api/models").json()
    assert set(folders) >= {"checkpoints", "loras", "vae"}
    for folder in folders:
        names = api.get(f"/api/models/{folder}").json()
        assert all(isinstance(name, str) for name in names), folder
    assert isinstance(api.get("/api/embeddings").json(), list)


def test_an_upload_is_the_input_of_a_workflow(api):
    name = f"blue-{uuid.uuid4().hex[:8]}.png"
    stored = [
        api.post("/api/upload/image", files={"image": (name, png((0, 0, value)))}, data={"overwrite": "true"}).json() for value in (9, 200)
    ]
    assert [one["name"] for one in stored] == [name, name]
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    assert painted(api, workflow=graph).getpixel((1, 1)) == (0, 0, 200)
    apart = api.post("/api/upload/image", files={"image": (name, png((0, 0, 7)))}, data={"overwrite": "false"}).json()
    assert apart["name"] != name
    assert picture(api, apart["url"]).convert("RGB").getpixel((1, 1)) == (0, 0, 7)
    assert painted(api, workflow=graph).getpixel((1, 1)) == (0, 0, 200)


def test_a_mask_gives_its_alpha_to_the_original(api):
    original = api.post("/api/upload/image", files={"image": (f"{uuid.uuid4().hex[:8]}.png", png((10, 20, 30)))}).json()
    form = {"original_ref": json.dumps({"filename": original["name"], "type": "input", "subfolder": ""})}
    answer = api.post("/api/upload/mask", files={"image": ("clipspace-mask.png", png((0, 0, 0, 77)))}, data=form)
    masked = answer.json()
    assert_like(masked, {"name": "<text>", "subfolder": "", "type": "input", "file_id": "<uuid>", "url": "<url>"})
    result = picture(api, masked["url"])
    assert (result.format, result.mode, result.size, result.getpixel((5, 5))) == ("PNG", "RGBA", (48, 32), (10, 20, 30, 77))
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": masked["name"]}},
        "3": {"class_type": "MaskToImage", "inputs": {"mask": ["1", 1]}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "mask"}},
    }
    assert abs(painted(api, workflow=graph).getpixel((5, 5))[0] - (255 - 77)) <= 1  # ComfyUI's mask is 1 where it is transparent


def updates_of(socket, *ids):
    """Hear of tasks until all have ended, each update being whole."""
    told = {task_id: [] for task_id in ids}
    while any(not updates or updates[-1]["status"] not in {"COMPLETED", "FAILED", "CANCELLED"} for updates in told.values()):
        update = hear(socket, lambda update: update["type"] == "task_update")[-1]
        if update["task_id"] in told:  # other tests share the cluster
            ended = update["status"] in {"COMPLETED", "FAILED", "CANCELLED"}
            assert_like(update, message("last_update" if ended else "update"))
            assert update["prompt_id"] == update["task_id"]
            if update["progress_detail"]:
                assert_like(update["progress_detail"], message("progress_detail"))
            told[update["task_id"]].append(update)
    return told


def test_every_listener_hears_of_every_end_in_order(api, cluster, media_server):
    with listening(cluster, "/ws") as first, listening(cluster, "/ws") as second:
        done = create(api, SUBMIT, text_to_image(steps=20, seed=int(uuid.uuid4()) % 2**32))
        failed = create(api, SUBMIT, FAILS)
        stopped = create(api, SUBMIT, slow(uuid.uuid4().int % 0xFFFFFF))
        swap = {"source_url": f"{media_server}/astronaut.png", "target_url": f"{media_server}/grace_hopper.jpg", "media_type": "image"}
        swapped = create(api, "/api/faceswap/create", swap)
        reaches(api, stopped, lambda task: task["status"] == "PROCESSING")
        api.post(f"/api/interrupt/{stopped}")
        ids = {done: "COMPLETED", failed: "FAILED", stopped: "CANCELLED", swapped: "COMPLETED"}
        for told in (updates_of(first, *ids), updates_of(second, *ids)):
            for task_id, status in ids.items():
                states = list(dict.fromkeys(update["status"] for update in told[task_id]))
                assert states == ["PENDING", "PROCESSING", status], task_id
                assert [update["progress"] for update in told[task_id]][:-1] == sorted(update["progress"] for update in told[task_id][:-1])
                assert [update["timestamp"] for update in told[task_id]] == sorted(update["timestamp"] for update in told[task_id])
                assert len({update["event_id"] for update in told[task_id]}) == len(told[task_id])
                task, last = api.get(f"/api/task/{task_id}").json(), told[task_id][-1]
                assert {key: last[key] for key in OF_THE_TASK} == {key: task[key] for key in OF_THE_TASK}
            assert told[failed][-1]["error_code"] == "comfy_node_failed"
            assert told[done][-1]["progress"] == 100


def test_a_client_that_says_rubbish_still_hears(api, cluster):
    with listening(cluster, "/ws") as socket:
        socket.send("rubbish")
        socket.send('{"type": "dance"}')
        socket.send('{"type": "ping"}')
        assert hear(socket, lambda heard: heard["type"] == "pong")
        task_id = create(api, SUBMIT, empty_image(color=31))
        assert updates_of(socket, task_id)[task_id][-1]["status"] == "COMPLETED"
