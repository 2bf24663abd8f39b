"""Order, cancelling, failing, and the jobs API."""

from __future__ import annotations

import asyncio
import uuid

import pytest


@pytest.fixture
async def busy(comfy, graphs):
    """A client whose server hangs at a prompt until that is interrupted; returns the prompt's id."""
    prompt_id = await comfy.submit(graphs.through("FakeHang"))
    await comfy.listen_for("executing", node="5")
    return prompt_id


async def test_smaller_numbers_run_first_and_front_is_last_in_first_out(fake, comfy, graphs, busy):
    names = {}
    for name, more in {
        "n1": {},
        "n2": {},
        "front1": {"front": True},
        "front2": {"front": True},
        "five": {"number": -5},
        "first": {"number": -1e9},
    }.items():
        names[await comfy.submit(graphs.preview(), **more)] = name
    last = next(prompt_id for prompt_id, name in names.items() if name == "n2")
    await comfy.post("/interrupt")
    await comfy.wait(last)
    assert [names[prompt_id] for prompt_id in fake.executed[1:]] == ["first", "five", "front2", "front1", "n1", "n2"]


async def test_queue_shows_what_runs_and_what_waits_without_secrets(comfy, graphs, busy):
    graph = graphs.preview()
    waiting = await comfy.submit(graph, extra_data={"api_key_comfy_org": "secret"})
    _, queue = await comfy.get("/queue")
    [running], [pending] = queue["queue_running"], queue["queue_pending"]
    assert running[1] == busy
    number, prompt_id, shown, extra_data, outputs = pending
    assert (number, prompt_id, shown, outputs) == (1, waiting, graph, ["2"])
    assert set(extra_data) == {"client_id", "create_time"}
    assert (await comfy.get("/prompt"))[1] == {"exec_info": {"queue_remaining": 2}}


@pytest.mark.parametrize("way", ["queue", "jobs", "batch"])
async def test_a_waiting_prompt_vanishes_when_cancelled(comfy, graphs, busy, way):
    waiting = await comfy.submit(graphs.preview())
    comfy.messages.clear()
    if way == "queue":
        assert (await comfy.post("/queue", {"delete": [waiting, str(uuid.uuid4())]}))[0] == 200
    elif way == "jobs":
        assert await comfy.post(f"/api/jobs/{waiting}/cancel") == (200, {"cancelled": True})
    else:
        assert await comfy.post("/api/jobs/cancel", {"job_ids": [waiting]}) == (200, {"cancelled": True})
    await comfy.listen(lambda event, data: event == "status" and data["status"]["exec_info"]["queue_remaining"] == 1)
    assert set(comfy.events()) == {"status"}
    assert await comfy.history(waiting) is None
    assert (await comfy.get(f"/api/jobs/{waiting}"))[0] == 404
    assert await comfy.post(f"/api/jobs/{waiting}/cancel") == (200, {"cancelled": False})


@pytest.mark.parametrize("way", ["interrupt", "interrupt_all", "jobs"])
async def test_a_running_prompt_is_interrupted_when_cancelled(comfy, busy, way):
    if way == "jobs":
        assert await comfy.post(f"/api/jobs/{busy}/cancel") == (200, {"cancelled": True})
    else:
        assert (await comfy.post("/interrupt", {"prompt_id": busy} if way == "interrupt" else None))[0] == 200
    event = await comfy.listen_for("execution_interrupted", prompt_id=busy)
    assert (event["node_id"], event["node_type"], event["executed"]) == ("5", "FakeHang", ["1"])
    await comfy.listen_for("executing", node=None, prompt_id=busy)
    status = (await comfy.history(busy))["status"]
    assert (status["status_str"], status["completed"], status["messages"][-1][0]) == ("error", False, "execution_interrupted")
    assert (await comfy.get(f"/api/jobs/{busy}"))[1]["status"] == "cancelled"


async def test_what_does_not_fit_the_state_cancels_nothing(comfy, graphs, busy):
    await comfy.post("/queue", {"delete": [busy], "clear": True})
    await comfy.post("/interrupt", {"prompt_id": str(uuid.uuid4())})
    assert [item[1] for item in (await comfy.get("/queue"))[1]["queue_running"]] == [busy]
    await comfy.post("/interrupt")
    await comfy.wait(busy)
    await comfy.post("/interrupt")  # nothing runs: the next prompt is not poisoned
    _, entry = await comfy.run(graphs.preview())
    assert entry["status"]["completed"]


async def test_a_failing_node_keeps_the_outputs_before_it(comfy, graphs):
    graph = graphs.through("FakeFail", message="no luck") | {"3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    prompt_id, entry = await comfy.run(graph)
    assert [event for event, _ in entry["status"]["messages"]] == ["execution_start", "execution_cached", "execution_error"]
    assert (entry["status"]["status_str"], list(entry["outputs"])) == ("error", ["3"])
    error = entry["status"]["messages"][-1][1]
    assert (error["node_id"], error["node_type"], error["exception_message"]) == ("5", "FakeFail", "no luck\n")
    assert error["exception_type"] == "deployments.fake_comfyui.nodes_fault.FakeFailure"
    assert (error["executed"], error["current_inputs"]["message"], bool(error["traceback"])) == (["1", "3"], ["no luck"], True)
    job = (await comfy.get(f"/api/jobs/{prompt_id}"))[1]
    assert (job["status"], job["execution_error"]["node_id"], job["outputs_count"]) == ("failed", "5", 1)


async def test_a_cycle_is_refused_before_it_runs(comfy, graphs):
    graph = graphs.through("ImageInvert")
    graph["5"]["inputs"]["image"] = ["6", 0]
    graph["6"] = {"class_type": "ImageInvert", "inputs": {"image": ["5", 0]}}
    status, body = await comfy.post("/prompt", {"prompt": graph})
    assert (status, set(body["node_errors"])) == (400, {"5", "6"})
    [error] = body["node_errors"]["6"]["errors"]
    assert (error["type"], set(error["extra_info"]["cycle_nodes"])) == ("dependency_cycle", {"5", "6"})


@pytest.mark.parametrize("prompt_id", ["abc", 7, None, "{%s}", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc999c0b4ef8bb6d6bb9bd380a11"])
async def test_a_prompt_id_has_to_be_a_canonical_uuid(comfy, graphs, prompt_id):
    status, body = await comfy.post("/prompt", {"prompt": graphs.preview(), "prompt_id": prompt_id})
    assert (status, body["error"]["type"]) == (400, "invalid_prompt_id")


async def test_a_changed_node_runs_again_with_what_follows_it_and_nothing_else(fake, comfy, graphs):
    graph = graphs.through("ImageBlur", blur_radius=2, sigma=1.0)
    await comfy.run(graph)
    before = fake.executions_by_node.copy()
    graph["5"]["inputs"]["blur_radius"] = 3
    prompt_id, _ = await comfy.run(graph)
    assert fake.executions_by_node - before == {"ImageBlur": 1, "PreviewImage": 1}
    [cached] = [data for event, data in comfy.messages if event == "execution_cached" and data["prompt_id"] == prompt_id]
    assert cached["nodes"] == ["1"]


async def test_free_drops_the_cache(fake, comfy, graphs):
    graph = graphs.preview()
    await comfy.run(graph)
    assert (await comfy.post("/free", {"unload_models": True, "free_memory": True}))[0] == 200
    await comfy.run(graph)
    assert fake.executions_by_node["EmptyImage"] == 2
    assert (await comfy.post("/free"))[0] == 500


async def test_history_is_paged_and_deleted(comfy, graphs):
    ids = [(await comfy.run(graphs.preview()))[0] for _ in range(4)]
    assert list((await comfy.get("/history"))[1]) == ids
    assert list((await comfy.get("/history", max_items=2))[1]) == ids[2:]
    assert list((await comfy.get("/history", max_items=2, offset=1))[1]) == ids[1:3]
    assert (await comfy.get("/history", max_items="two"))[0] == 500
    await comfy.post("/history", {"delete": [ids[0]]})
    assert list((await comfy.get("/history"))[1]) == ids[1:]
    await comfy.post("/history", {"clear": True})
    assert (await comfy.get("/history"))[1] == {}


async def test_jobs_are_listed_in_pages(comfy, graphs):
    graph = graphs.preview()
    ids = [(await comfy.run(graphs.preview(), extra_data={"extra_pnginfo": {"workflow": {"id": "w"}}}))[0], (await comfy.run(graph))[0]]
    _, body = await comfy.get("/api/jobs", limit=1, sort_order="asc")
    assert body["pagination"] == {"offset": 0, "limit": 1, "total": 2, "has_more": True}
    [job] = body["jobs"]
    assert (job["id"], job["status"], job["outputs_count"], job["workflow_id"]) == (ids[0], "completed", 1, "w")
    assert (job["preview_output"]["nodeId"], job["preview_output"]["mediaType"], job["preview_output"]["type"]) == ("2", "images", "temp")
    assert [job["id"] for job in (await comfy.get("/api/jobs", workflow_id="w", status="completed,failed"))[1]["jobs"]] == [ids[0]]
    assert (await comfy.get("/api/jobs", status="done"))[0] == 400
    detail = (await comfy.get(f"/api/jobs/{ids[1]}"))[1]
    assert (detail["workflow"]["prompt"], list(detail["outputs"]), detail["execution_status"]["completed"]) == (graph, ["2"], True)
    assert (await comfy.post("/api/jobs/cancel", {"job_ids": ["x"]}))[0] == 400


async def test_a_job_of_a_client_that_is_not_there_runs_all_the_same(fake, visit, graphs):
    ghost = await visit(fake, socket=False)
    _, body = await ghost.post("/prompt", {"prompt": graphs.preview(), "client_id": "nobody"})
    assert (await ghost.wait(body["prompt_id"]))["status"]["completed"]


async def test_a_client_that_comes_back_is_told_where_its_prompt_is(fake, comfy, visit, graphs, busy):
    await comfy.socket.close()
    again = await visit(fake, client_id=comfy.client_id)
    assert await again.listen_for("executing") == {"node": "5"}
    await again.post("/interrupt")
    assert (await again.listen_for("execution_interrupted"))["prompt_id"] == busy


async def test_a_second_socket_of_a_client_takes_over_and_outlives_the_first(fake, comfy, visit, graphs):
    second = await visit(fake, client_id=comfy.client_id)
    await comfy.socket.close()
    async with asyncio.timeout(5):
        await second.run(graphs.preview())
    assert "execution_success" in second.events()
