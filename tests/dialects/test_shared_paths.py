"""What holds over the dialects: the paths that two of them claim, and one job seen through all three."""

from __future__ import annotations

import json
import uuid
from datetime import datetime

import pytest

from tests.dialects.golden import PATTERNS
from tests.dialects.tasks import assert_like, busy, create, ends, get_raw, picture, png, reaches, slow, state_of
from tests.jobs import read, wait_for_end
from tests.workflows import empty_image

pytestmark = pytest.mark.serve

NATIVE = {"queued": "PENDING", "running": "PROCESSING", "succeeded": "COMPLETED", "failed": "FAILED", "cancelled": "CANCELLED"}


def by_task_service(api, graph):
    return create(api, "/api/tasks/create", {"workflow": graph})


def by_middleware(api, graph):
    return create(api, "/api/workflow/submit", graph)


def by_gateway(api, graph):
    return api.post("/api/v1/workflows/submit", json={"workflow": graph}).json()["data"]["prompt_id"]


def natively(api, graph):
    return api.post("/v1/jobs", json={"kind": "comfyui", "workflow": graph}).json()["id"]


SUBMITS = (by_task_service, by_middleware, by_gateway, natively)


@pytest.mark.parametrize("submit", SUBMITS)
def test_whatever_one_dialect_takes_all_show(api, submit):
    task_id = submit(api, empty_image(color=0x010203))
    task = ends(api, task_id)
    assert_like(task, {"<like>": "done", "task_id": task_id, "prompt_id": task_id, "workflow_name": None})
    assert api.get(f"/api/task/{task_id}").json() == task
    assert wait_for_end(api, task_id)["status"] == "succeeded"
    (output,) = task["outputs"]
    history = api.get(f"/api/v1/workflows/{task_id}/history").json()["data"]
    assert history["outputs"] == {"2": {"images": [{"filename": output["filename"], "subfolder": "", "type": "output"}]}}
    for path in (
        f"/api/image/{output['filename']}",
        f"/api/view?filename={output['filename']}&subfolder=&type=output",
        f"/api/v1/images/download?filename={output['filename']}",
        task["result_url"],
    ):
        assert picture(api, path).convert("RGB").getpixel((1, 1)) == (1, 2, 3), path
    assert api.get("/api/history", params={"limit": 1}).json()["history"] == [task]


def test_one_list_shows_the_tasks_of_all(api, media_server):
    swap = create(
        api,
        "/api/faceswap/create",
        {"source_url": f"{media_server}/astronaut.png", "target_url": f"{media_server}/coffee_no_face.png", "media_type": "image"},
    )
    ids = [swap, *(submit(api, empty_image(color=90 + n)) for n, submit in enumerate(SUBMITS))]
    for task_id in ids:
        ends(api, task_id)
    answer = api.get("/api/tasks", params={"limit": len(ids)}).json()
    assert set(answer) == {"tasks", "total", "limit", "offset"}
    assert [task["task_id"] for task in answer["tasks"]] == ids[::-1]
    assert {frozenset(task) for task in answer["tasks"]} == {frozenset(PATTERNS["task"])}
    assert [task["type"] for task in answer["tasks"]] == ["comfyui"] * 4 + ["faceswap"]
    for task in answer["tasks"]:
        assert task == api.get(f"/api/tasks/{task['task_id']}").json()
        assert task["status"] == NATIVE[read(api, task["task_id"])["status"]]
        times = [datetime.fromisoformat(task[key]) for key in ("created_at", "started_at", "completed_at")]
        assert times == sorted(times)


@pytest.mark.parametrize("submit", SUBMITS)
@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/interrupt/{}", None),
        ("/api/comfyui-interrupt", "task_id"),
        ("/api/comfyui-interrupt", "prompt_id"),
        ("/api/v1/workflows/interrupt", "prompt_id"),
        ("/v1/jobs/{}/cancel", None),
    ],
)
def test_any_dialect_interrupts_a_task_of_any(api, submit, path, field):
    task_id = submit(api, slow(uuid.uuid4().int % 0xFFFFFF))
    reaches(api, task_id, lambda task: task["status"] == "PROCESSING")
    answer = api.post(path.format(task_id), json={field: task_id} if field else None)
    assert answer.is_success, answer.text
    assert ends(api, task_id, 30)["status"] == "CANCELLED"
    assert api.get(f"/api/v1/workflows/{task_id}/history").json()["data"]["status"]["status_str"] == "interrupted"


def test_all_views_of_the_queue_agree(api):
    with busy(api) as ids:
        queue = api.get("/api/queue").json()
        assert queue == api.get("/api/comfyui-queue-status").json()
        shown = api.get("/api/v1/queue/status").json()["data"]
        for name in ("queue_running", "queue_pending"):
            assert shown[name] == [{key: item[key] for key in ("prompt_id", "number", "timestamp")} for item in queue[name]]
        assert {item["task_id"] for item in queue["queue_running"] + queue["queue_pending"]} == set(ids)
        assert {item["task_id"] for item in queue["queue_running"]} == {one for one in ids if state_of(api, one) == "PROCESSING"}


def by_native_upload(api, name, data):
    assert api.post("/v1/files", files={"file": (name, data)}).status_code == 201


def by_middleware_upload(api, name, data):
    assert api.post("/api/upload/image", files={"image": (name, data)}).json()["name"] == name


def by_gateway_upload(api, name, data):
    assert api.post("/api/v1/images/upload", files={"file": (name, data)}).json()["data"]["name"] == name


@pytest.mark.parametrize("upload", [by_native_upload, by_middleware_upload, by_gateway_upload])
def test_an_upload_by_any_path_is_an_input_of_all(api, upload):
    name = f"shared-{uuid.uuid4().hex[:8]}.png"
    upload(api, name, png((40, 50, 60)))
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
    }
    for submit in SUBMITS:
        task = ends(api, submit(api, graph))
        assert task["status"] == "COMPLETED", task["error"]
        assert picture(api, task["result_url"]).convert("RGB").getpixel((1, 1)) == (215, 205, 195)
    assert picture(api, f"/api/v1/images/download?filename={name}&img_type=input").size == (48, 32)
    assert picture(api, f"/api/view?filename={name}&type=input").size == (48, 32)


def test_names_of_outputs_are_unique(api):
    graph = empty_image(color=3, size=16)
    graph["1"]["inputs"]["batch_size"] = 3
    graph["4"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "e"}}
    names = []
    for task_id in (by_middleware(api, graph), by_gateway(api, graph)):
        outputs = ends(api, task_id)["outputs"]
        assert {(output["node_id"], output["filename"].split("_")[0]) for output in outputs} == {("2", task_id), ("4", task_id)}
        names += [output["filename"] for output in outputs]
    assert (len(names), len(set(names))) == (12, 12)


def test_the_health_is_the_superset(api):
    health = api.get("/api/health").json()
    assert_like(
        health,
        {
            "status": "<text>", "service": "atelier", "version": "<text>", "timestamp": "<number>", "comfyui_connected": "<any>",
            "comfyui": {"connected": "<any>", "backends": "<int>", "healthy": "<int>"}, "queue_length": "<int>", "websocket_url": "/ws",
        },
    )  # fmt: skip
    assert health["comfyui_connected"] is health["comfyui"]["connected"]
    assert (isinstance(health["timestamp"], float), health["status"] in {"healthy", "degraded"}) == (True, True)


def test_errors_are_each_dialects_own(cluster):
    for path in ("/api/tasks/none", "/api/task/none", "/api/image/none.png", "/api/none"):
        status, media_type, _ = get_raw(cluster, path)
        assert (status, media_type) == (404, "application/problem+json"), path
    for path in ("/api/v1/none", "/api/v1/workflows/none/history", "/api/v1/images/download?filename=none"):
        status, media_type, body = get_raw(cluster, path)
        assert (status, media_type, json.loads(body)["code"]) == (200, "application/json", 404), path
