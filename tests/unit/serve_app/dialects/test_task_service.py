"""Dialect A against an in-memory service: what its requests become, and how its replies look."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

FORM_1 = {"workflow_name": "invert", "params": {"input_data": {"wf_json": {"image": "mine.png", "quality": 80}}}}
FORM_2 = {"workflow": "invert", "inputs": {"image": "mine.png", "quality": 80}}
_BUFFER = io.BytesIO()
Image.new("RGB", (8, 8)).save(_BUFFER, "PNG")
PNG = base64.b64encode(_BUFFER.getvalue()).decode()


@pytest.mark.parametrize("body", [FORM_1, FORM_2, FORM_2 | {"workflow": "invert.json", "unknown": 1}])
async def test_both_forms_become_the_same_job(client, next_job, backend, body):
    answer = await client.post("/api/tasks/create", json=body)
    assert answer.status_code == 200, answer.text
    task = answer.json()
    assert (task["status"], task["type"], task["workflow_name"], task["progress"]) == ("PENDING", "comfyui", "invert", 0)
    job = await next_job("comfyui")
    assert (job.id, job.spec["graph"]["1"]["inputs"]["image"], job.spec["graph"]["3"]["inputs"]["quality"]) == (
        task["task_id"],
        "mine.png",
        80,
    )


@pytest.mark.parametrize("place", ["wf_json", "workflow"])
async def test_a_graph_is_run_as_one(client, next_job, backend, graph, place):
    body = {"workflow": graph} if place == "workflow" else {"workflow_name": "invert", "params": {"input_data": {"wf_json": graph}}}
    assert (await client.post("/api/tasks/create", json=body)).status_code == 200
    assert (await next_job("comfyui")).spec["graph"].keys() == graph.keys()


@pytest.mark.parametrize(
    ("options", "job"),
    [({"priority": 7}, (7, 3, 3600)), ({"max_retries": 0}, (0, 1, 3600)), ({"max_attempts": 5}, (0, 5, 3600)), ({"timeout": 9}, (0, 3, 9))],
)
async def test_options_are_those_of_the_job(client, next_job, backend, options, job):
    assert (await client.post("/api/tasks/create", json=FORM_2 | options)).status_code == 200
    made = await next_job("comfyui")
    assert (made.priority, made.max_attempts, made.timeout_s) == job


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "invalid_input"),
        ({"workflow": "unknown"}, 404, "workflow_not_found"),
        ({"workflow_name": "invert", "params": {"input_data": {"wf_json": {"quality": 800, "image": "a.png"}}}}, 422, "workflow_invalid"),
        ([1], 422, "invalid_input"),
    ],
)
async def test_a_task_that_cannot_be_run_says_why(client, backend, body, status, code):
    answer = await client.post("/api/tasks/create", json=body)
    assert (answer.status_code, answer.json()["code"], bool(answer.json()["detail"])) == (status, code, True)


async def test_a_face_swap_by_urls(client, next_job):
    body = {
        "source_url": "https://example.com/a.jpg",
        "target_url": "https://example.com/b.mp4",
        "resolution": "1024x1024",
        "media_type": "video",
    }
    answer = await client.post("/api/faceswap/create", json=body)
    assert answer.status_code == 200, answer.text
    job = await next_job()
    assert job.spec == {
        "kind": "faceswap",
        "source": {"url": "https://example.com/a.jpg"},
        "target": {"url": "https://example.com/b.mp4", "media_type": "video/*"},
        "output": {"resolution": "1024x1024"},
    }


async def test_a_face_swap_by_data_urls(client, next_job):
    url = f"data:image/png;base64,{PNG}"
    answer = await client.post("/api/faceswap/create", json={"source_url": url, "target_url": url, "media_type": "image"})
    assert answer.status_code == 200, answer.text
    assert (await next_job()).spec["source"].keys() == {"file_id"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"target_url": f"data:image/png;base64,{PNG}", "media_type": "video"}, "media_type_mismatch"),
        ({"target_url": "s3://bucket/b.mp4"}, "url_not_allowed"),
        ({"target_url": "ftp://example.com/b.mp4"}, "invalid_input"),
        ({"target_url": "https://127.0.0.1/b.mp4"}, "url_not_allowed"),
        ({"target_url": "https://example.com/b.mp4", "resolution": "big"}, "invalid_input"),
        ({}, "invalid_input"),
    ],
)
async def test_a_face_swap_that_cannot_be_run_says_why(client, body, code):
    answer = await client.post("/api/faceswap/create", json={"source_url": "https://example.com/a.jpg", **body})
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_a_task_shows_its_outputs(client, next_job, backend, finish):
    task_id = (await client.post("/api/tasks/create", json=FORM_2)).json()["task_id"]
    artifact = await finish(await next_job("comfyui"))
    task = (await client.get(f"/api/tasks/{task_id}")).json()
    url = f"http://atelier.test/v1/files/{artifact.file_id}"
    assert (task["status"], task["progress"], task["result_url"], task["result_urls"], task["attempts"]) == (
        "COMPLETED",
        100,
        url,
        [url],
        1,
    )
    assert task["outputs"] == [
        {"filename": artifact.name, "url": url, "media_type": "image/png", "type": "output", "subfolder": "", "node_id": "9",
         "size_bytes": 8, "width": 64, "height": 64, "duration_s": None}
    ]  # fmt: skip
    assert (await client.get(f"/api/image/{artifact.name}")).content == b"\x89PNG\r\n\x1a\n"


async def test_a_face_swaps_output_has_a_name_of_its_own(client, next_job, finish):
    body = {"source_url": "https://example.com/a.jpg", "target_url": "https://example.com/b.jpg"}
    task_id = (await client.post("/api/faceswap/create", json=body)).json()["task_id"]
    await finish(await next_job(), node=None)
    (output,) = (await client.get(f"/api/tasks/{task_id}")).json()["outputs"]
    assert output["filename"] == f"{task_id}_result.png"
    assert (await client.get(f"/api/image/{output['filename']}")).status_code == 200
    assert (await client.get("/api/image/result.png")).status_code == 200  # the newest of that name


async def test_the_list_is_paged_and_filtered(client, next_job, backend, finish):
    ids = [(await client.post("/api/tasks/create", json=FORM_2)).json()["task_id"] for _ in range(3)]
    await finish(await next_job("comfyui"))
    page = (await client.get("/api/tasks", params={"limit": 1, "offset": 1})).json()
    assert ([task["task_id"] for task in page["tasks"]], page["total"], page["limit"], page["offset"]) == ([ids[1]], 3, 1, 1)
    done = (await client.get("/api/tasks", params={"status": "completed", "type": "comfyui"})).json()
    assert ([task["task_id"] for task in done["tasks"]], done["total"]) == ([ids[0]], 1)
    assert (await client.get("/api/tasks", params={"type": "faceswap"})).json()["total"] == 0
    assert (await client.get("/api/tasks", params={"status": "odd"})).status_code == 422


async def test_stats_have_counts_and_rates(client, next_job, backend, finish):
    for _ in range(2):
        await client.post("/api/tasks/create", json=FORM_2)
    await finish(await next_job("comfyui"))
    stats = (await client.get("/api/stats")).json()
    assert stats["by_status"] == {"PENDING": 1, "PROCESSING": 0, "COMPLETED": 1, "FAILED": 0, "CANCELLED": 0}
    assert stats["by_type"] == {"comfyui": stats["by_status"]}
    assert (stats["total"], stats["queue_length"], stats["success_rate"], stats["failure_rate"], stats["retries_total"]) == (
        2,
        1,
        1.0,
        0.0,
        0,
    )
    assert stats["processing_time"]["p50_s"] >= 0


async def test_interrupt_stops_what_runs_and_only_that(client, next_job, store, backend):
    first, second = [(await client.post("/api/tasks/create", json=FORM_2)).json()["task_id"] for _ in range(2)]
    job = await next_job("comfyui")
    assert (await client.post("/api/comfyui-interrupt")).json() == {"message": "1 interrupted", "interrupted": [first], "count": 1}
    assert (await client.get(f"/api/tasks/{first}")).json()["cancel_requested"] is True
    await store.acknowledge_cancel(job.id, job.attempt)
    assert (await client.post("/api/comfyui-interrupt", json={"task_id": second})).json()["interrupted"] == [second]
    assert [(await client.get(f"/api/tasks/{one}")).json()["status"] for one in (first, second)] == ["CANCELLED", "CANCELLED"]
    assert (await client.post("/api/comfyui-interrupt", json={"prompt_id": "unknown"})).status_code == 404


async def test_the_queue_shows_what_runs_and_what_waits(client, next_job, backend):
    ids = [(await client.post("/api/tasks/create", json=FORM_2 | {"priority": n})).json()["task_id"] for n in (0, 1, 2)]
    running = (await next_job("comfyui")).id
    queue = (await client.get("/api/comfyui-queue-status")).json()
    assert running == ids[2]
    assert [(item["task_id"], item["number"]) for item in queue["queue_running"]] == [(ids[2], 0)]
    assert [(item["task_id"], item["number"]) for item in queue["queue_pending"]] == [(ids[1], 1), (ids[0], 2)]
    assert (queue["running_count"], queue["pending_count"]) == (1, 2)


async def test_a_registered_workflow_is_run_by_its_names(client, next_job, backend, graph):
    body = {"name": "mine", "workflow": graph, "inputs": ["prompt", "seed"]}
    registered = (await client.post("/api/workflows", json=body)).json()
    assert (registered["name"], registered["version"]) == ("mine", 1)
    assert registered["inputs"] == [
        {"name": "prompt", "type": "string", "places": ["6.text"]}, {"name": "seed", "type": "seed", "places": ["3.seed"]},
    ]  # fmt: skip
    answer = await client.post("/api/tasks/create", json={"workflow": "mine", "inputs": {"prompt": "a fox", "seed": 3}})
    assert answer.status_code == 200, answer.text
    made = (await next_job("comfyui")).spec["graph"]
    assert (made["6"]["inputs"]["text"], made["3"]["inputs"]["seed"]) == ("a fox", 3)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": "Not A Name"}, 422),
        ({"name": "invert"}, 409),
        ({"inputs": ["nowhere"]}, 422),
        ({"inputs": {"x": "99.text"}}, 422),
        ({"workflow": {}}, 422),
    ],
)
async def test_a_registration_that_cannot_be_kept_says_why(client, backend, graph, change, status):
    answer = await client.post("/api/workflows", json={"name": "mine", "workflow": graph, "inputs": []} | change)
    assert (answer.status_code, bool(answer.json()["detail"])) == (status, True)


async def test_status_and_health_name_every_part(client, backend):
    status = (await client.get("/api/status")).json()
    assert status["components"]["job_store"] == {"status": "healthy"}
    assert (status["status"], status["components"]["comfyui"]["status"], status["components"]["engines"]) == (
        "degraded",
        "unhealthy",
        ["embedded", "mesh", "bridge"],
    )
    health = (await client.get("/api/health")).json()
    assert (health["status"], health["comfyui_connected"], health["comfyui"]) == (
        "healthy",
        False,
        {"connected": False, "backends": 1, "healthy": 0},
    )


async def test_without_a_server_the_stats_of_its_system_say_so(client, backend):
    answer = (await client.get("/api/comfyui-system-stats")).json()
    assert answer == {
        "system": {},
        "devices": [],
        "backends": [{"name": "gpu1", "healthy": False, "system": {}, "devices": [], "error": "does not answer"}],
    }
