"""Dialect B against an in-memory service: what its requests become, and how its replies look."""

from __future__ import annotations

import json

import pytest

from deployments.jobs.model import Progress, Stage

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))


@pytest.mark.parametrize("wrapped", [True, False, "prompt"])
async def test_a_workflow_may_be_wrapped_or_bare(client, next_job, backend, graph, wrapped):
    body = {"workflow": graph} if wrapped is True else graph if wrapped is False else {"prompt": graph}
    answer = await client.post("/api/workflow/submit", json=body)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["status"], answer.json()["message"]) == ("PENDING", "workflow submitted")
    assert (await next_job("comfyui")).spec["graph"].keys() == graph.keys()


async def test_params_set_single_inputs_and_timeout_bounds_the_run(client, next_job, backend, graph):
    body = {"workflow": graph, "params": {"6.text": "a fox", "3.seed": -1, "5.width": 128}, "timeout": 5}
    assert (await client.post("/api/workflow/submit", json=body)).status_code == 200
    job = await next_job("comfyui")
    made = job.spec["graph"]
    assert (made["6"]["inputs"]["text"], made["5"]["inputs"]["width"], job.timeout_s) == ("a fox", 128, 5)
    assert made["3"]["inputs"]["seed"] >= 0


async def test_a_saved_workflow_is_submitted_by_its_file(client, next_job, backend):
    answer = await client.post("/api/workflow/submit", json={"workflow": "invert.json", "params": {"1.image": "mine.png"}})
    assert answer.status_code == 200, answer.text  # its image is required, and given by its place
    assert (await next_job("comfyui")).spec["graph"]["1"]["inputs"]["image"] == "mine.png"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"workflow": "unknown"}, 404, "workflow_not_found"),
        ({"workflow": {"1": {}}}, 422, "invalid_input"),
        ({}, 422, "invalid_input"),
        ([], 422, "invalid_input"),
        ({"workflow": {"1": {"class_type": "A", "inputs": {"x": 1}}}, "params": {"9.x": 1}}, 422, "workflow_invalid"),
        ({"workflow": {"1": {"class_type": "A", "inputs": {"x": 1}}}, "timeout": 0}, 422, "invalid_input"),
    ],
)
async def test_a_submit_that_cannot_be_run_says_why(client, backend, body, status, code):
    answer = await client.post("/api/workflow/submit", json=body)
    assert (answer.status_code, answer.json()["code"], bool(answer.json()["detail"])) == (status, code, True)


async def test_a_body_without_a_content_type_is_read_as_json(client, backend, graph):
    answer = await client.post("/api/workflow/submit", content=json.dumps(graph))
    assert answer.status_code == 200, answer.text


async def save(client, graph, name="My Portrait.JSON"):
    answer = await client.post("/api/workflow/upload", files={"file": (name, json.dumps(graph))})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_an_uploaded_workflow_is_listed_read_changed_and_run(client, next_job, backend, graph):
    saved = await save(client, graph)
    assert (saved["filename"], saved["name"], saved["title"], saved["version"], saved["format"]) == (
        "my-portrait.json",
        "my-portrait",
        "My Portrait.JSON",
        1,
        "api",
    )
    listed = (await client.get("/api/workflows")).json()
    assert ([one["filename"] for one in listed["workflows"]], listed["total"]) == (["invert.json", "my-portrait.json"], 2)
    changed = (
        await client.post("/api/workflow/update", json={"filename": "my-portrait.json", "params": {"6.text": "a fox", "3.seed": -1}})
    ).json()
    assert (changed["version"], changed["message"]) == (2, "workflow updated")
    for name in ("my-portrait", "my-portrait.json"):
        read = (await client.get(f"/api/workflow/{name}")).json()
        assert (read["workflow"]["6"]["inputs"]["text"], read["workflow"]["3"]["inputs"]["seed"], read["title"]) == (
            "a fox",
            -1,
            "My Portrait.JSON",
        )
    assert (await client.post("/api/workflow/submit", json={"workflow": "my-portrait.json"})).status_code == 200
    assert (await next_job("comfyui")).spec["graph"]["3"]["inputs"]["seed"] >= 0


async def test_the_parameters_of_a_workflow_are_found(client, backend, graph):
    found = {one["key"]: one for one in (await save(client, graph))["parameters"]}
    assert {
        "6.text",
        "3.seed",
        "3.steps",
        "3.cfg",
        "3.sampler_name",
        "3.scheduler",
        "3.denoise",
        "5.width",
        "5.height",
        "5.batch_size",
    } <= found.keys()
    assert found["3.steps"] == {
        "key": "3.steps", "node_id": "3", "node_title": found["3.steps"]["node_title"], "class_type": "KSampler", "name": "steps", "type": "integer",
        "value": 4, "default": None, "min": 1, "max": 10000, "step": None, "choices": None, "multiline": False, "media": None, "is_seed": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"filename": "invert.json", "params": {"3.quality": 1}}, 409),
        ({"filename": "none.json", "params": {}}, 404),
        ({"filename": "mine", "params": {"99.x": 1}}, 422),
        ({"filename": "mine", "params": {"1.image": "https://example.com/a.png"}}, 422),
    ],
)
async def test_an_update_that_cannot_be_made_says_why(client, backend, body, status):
    await save(
        client,
        {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}},
        "mine.json",
    )
    answer = await client.post("/api/workflow/update", json=body)
    assert (answer.status_code, bool(answer.json()["detail"])) == (status, True)


@pytest.mark.parametrize(
    ("name", "data", "status"),
    [
        ("a.json", b"{", 422),
        ("a.json", b"{}", 422),
        ("???.json", b'{"1": {"class_type": "A", "inputs": {}}}', 422),
        ("invert.json", b'{"1": {"class_type": "A", "inputs": {}}}', 409),
    ],
)
async def test_a_file_that_is_no_workflow_is_refused(client, backend, name, data, status):
    answer = await client.post("/api/workflow/upload", files={"file": (name, data)})
    assert (answer.status_code, bool(answer.json()["detail"])) == (status, True)


async def test_history_has_what_has_ended_with_results(client, next_job, backend, graph, finish):
    ids = [(await client.post("/api/workflow/submit", json=graph)).json()["task_id"] for _ in range(3)]
    await finish(await next_job("comfyui"))
    await client.post(f"/api/interrupt/{ids[1]}")
    history = (await client.get("/api/history")).json()
    assert ([(task["task_id"], task["status"]) for task in history["history"]], history["total"]) == (
        [(ids[1], "CANCELLED"), (ids[0], "COMPLETED")],
        2,
    )
    assert history["history"][1]["result_urls"]


async def test_queue_clear_cancels_what_waits_and_spares_what_runs(client, next_job, backend, graph):
    ids = [(await client.post("/api/workflow/submit", json=graph)).json()["task_id"] for _ in range(3)]
    await next_job("comfyui")
    assert (await client.post("/api/queue/clear")).json() == {"message": "2 cleared", "cleared": 2, "task_ids": ids[1:]}
    queue = (await client.get("/api/queue")).json()
    assert (queue["running_count"], queue["pending_count"], queue["queue_running"][0]["prompt_id"]) == (1, 0, ids[0])


@pytest.mark.parametrize("name", ["..", "%2e%2e%2fjobs.db", "%2Fetc%2Fpasswd", "a%00b", "none.png", "x" * 300])
async def test_a_name_never_becomes_a_path(client, name):
    answer = await client.get(f"/api/image/{name}")
    assert answer.status_code in {404, 422}


async def test_uploads_are_viewed_by_name_and_numbered_when_taken(client):
    first = (await client.post("/api/upload/image", files={"image": ("a.png", PNG)})).json()
    assert (first["name"], first["subfolder"], first["type"]) == ("a.png", "", "input")
    same = (await client.post("/api/upload/image", files={"image": ("a.png", PNG)})).json()
    other = (await client.post("/api/upload/image", files={"file": ("a.png", PNG + b"2")})).json()
    newest = (await client.post("/api/upload/image", files={"image": ("a.png", PNG + b"3")}, data={"overwrite": "true"})).json()
    assert [one["name"] for one in (same, other, newest)] == ["a.png", "a (1).png", "a.png"]
    assert (await client.get("/api/view", params={"filename": "a.png", "type": "input"})).content == PNG + b"3"
    assert (await client.get("/api/view", params={"filename": "a (1).png", "subfolder": "x"})).content == PNG + b"2"
    assert (await client.get("/api/view", params={"filename": "b.png"})).status_code == 404


async def test_an_upload_is_the_input_that_its_name_means(client, next_job, backend):
    stored = (await client.post("/api/upload/image", files={"image": ("mine.png", PNG)})).json()
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "mine.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    }
    await client.post("/api/workflow/submit", json=graph)
    (media,) = (await next_job("comfyui")).spec["media"].values()
    assert media["reference"] == {"file_id": stored["file_id"]}


@pytest.mark.parametrize(
    ("form", "status"),
    [({}, 422), ({"original_ref": "{"}, 422), ({"original_ref": '{"filename": "none.png"}'}, 404)],
)
async def test_a_mask_needs_its_picture(client, form, status):
    answer = await client.post("/api/upload/mask", files={"image": ("m.png", PNG)}, data=form)
    assert (answer.status_code, bool(answer.json()["detail"])) == (status, True)


@pytest.mark.parametrize("path", ["nodes", "models", "models/vae", "embeddings"])
async def test_without_a_server_comfyui_functions_say_so(client, backend, path):
    answer = await client.get(f"/api/{path}")
    assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")


async def test_the_socket_tells_every_change_of_every_task_in_order(client, websocket, next_job, store, backend, graph, finish):
    async with websocket(path="/ws") as peer:
        assert (await peer.receive())["type"] == "websocket.accept"
        peer.to_app.put_nowait({"type": "websocket.receive", "text": '{"type": "ping"}'})
        assert await peer.receive_json() == {"type": "pong"}
        task_id = (await client.post("/api/workflow/submit", json=graph)).json()["task_id"]
        pending = await peer.receive_json()
        job = await next_job("comfyui")
        processing = await peer.receive_json()
        await store.heartbeat(job.id, job.attempt, Progress(Stage.COMPUTING, 0.5, comfy_node="3", step=2, steps=4))
        progress = await peer.receive_json()
        await finish(job)
        done = await peer.receive_json()
    updates = (pending, processing, progress, done)
    assert [(one["type"], one["task_id"], one["status"], one["progress"]) for one in updates] == [
        ("task_update", task_id, "PENDING", 0.0), ("task_update", task_id, "PROCESSING", 0.0), ("task_update", task_id, "PROCESSING", 50.0),
        ("task_update", task_id, "COMPLETED", 100.0),
    ]  # fmt: skip
    assert progress["progress_detail"]["node"] == "3"
    assert done["result_urls"] == [one["url"] for one in done["outputs"]]
    assert (await client.get(done["result_url"])).headers["content-type"] == "image/png"
    assert done["result_url"].startswith("http://")
    async with websocket([("after", pending["event_id"])], path="/ws") as peer:
        await peer.receive()
        assert [(await peer.receive_json())["status"] for _ in range(2)] == ["PROCESSING", "COMPLETED"]
