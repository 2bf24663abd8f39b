"""Each fault, switched on alone, and lives that end."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid

import aiohttp
import pytest

from deployments.fake_comfyui.config import Hazards


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_reconnect_loses_events(start, visit, graphs):
    fake = await start({"reconnect_loses_events": True})
    first = await visit(fake, client_id="c")
    second = await visit(fake, client_id="c")
    await second.run(graphs.preview())
    await first.socket.close()
    other = await visit(fake)  # its greeting is sent after the server has seen the close
    second.messages.clear()
    await second.wait(await second.submit(graphs.preview()))
    await other.run(graphs.preview())  # a status to all would have come by now
    with pytest.raises(TimeoutError):
        await second.socket.receive(timeout=0.05)


def stalled_reader(fake):
    """A client that opens its socket and reads no more than the answer to that."""
    raw = socket.create_connection((fake.config.host, fake.port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.sendall(
        b"GET /ws?clientId=stalled HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert raw.recv(1)
    return raw


def long_chain(graphs, length=100):
    graph = graphs.preview(width=8, height=8)
    graph |= {f"n{i}": {"class_type": "ImageInvert", "inputs": {"image": [f"n{i - 1}" if i else "1", 0]}} for i in range(length)}
    graph["2"]["inputs"]["images"] = [f"n{length - 1}", 0]
    return graph


@pytest.mark.parametrize("stall", [True, False])
async def test_head_of_line_stall(start, visit, graphs, stall):
    fake = await start({"head_of_line_stall": stall})
    with await asyncio.to_thread(stalled_reader, fake) as raw:
        poster, other = await visit(fake, socket=False), await visit(fake)
        for _ in range(4):  # 2 MB of progress_state each: more than the socket's buffers hold
            graph = long_chain(graphs)
            _, body = await poster.post("/prompt", {"prompt": graph, "client_id": "stalled"})
            await poster.wait(body["prompt_id"])
        other.messages.clear()
        prompt_id = await other.submit(graphs.preview())
        await other.wait(prompt_id)
        if stall:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await other.listen_for("executing", node=None, prompt_id=prompt_id)
            await visit(fake)  # a newcomer is greeted all the same
            raw.close()
        assert await other.listen_for("executing", node=None, prompt_id=prompt_id)


async def test_late_history_keeps_the_prompt_running_until_it_is_there(start, visit, graphs):
    comfy = await visit(await start({"late_history_s": 0.3}, seed=3))
    prompt_id = await comfy.submit(graphs.preview())
    await comfy.listen_for("execution_success", prompt_id=prompt_id)
    assert await comfy.history(prompt_id) is None
    assert [item[1] for item in (await comfy.get("/queue"))[1]["queue_running"]] == [prompt_id]
    await comfy.listen_for("executing", node=None, prompt_id=prompt_id)
    assert await comfy.history(prompt_id) is not None


@pytest.mark.parametrize("hazard", [True, False])
async def test_duplicate_id_500_although_both_run(start, visit, graphs, hazard):
    fake = await start({"duplicate_id_500": hazard})
    comfy = await visit(fake)
    blocker = await comfy.submit(graphs.through("FakeHang"), number=0)
    await comfy.wait_until_running(blocker)
    twin = {"prompt": graphs.preview(), "prompt_id": str(uuid.uuid4()), "number": 7}
    statuses = [(await comfy.post("/prompt", twin))[0] for _ in range(2)]
    last = await comfy.submit(graphs.preview(), number=8)
    await comfy.post("/interrupt")
    await comfy.wait(last)
    assert statuses == [200, 500 if hazard else 200]
    assert fake.executed.count(twin["prompt_id"]) == 2


async def test_silent_pending_delete_says_nothing(start, visit, graphs):
    comfy = await visit(await start({"silent_pending_delete": 1}))
    comfy.messages.clear()
    prompt_id = await comfy.submit(graphs.preview())
    async with asyncio.timeout(5):
        while (await comfy.get("/prompt"))[1]["exec_info"]["queue_remaining"]:
            await asyncio.sleep(0.005)
    assert await comfy.history(prompt_id) is None
    await comfy.listen_for("status")  # of the acceptance
    with pytest.raises(TimeoutError):
        await comfy.socket.receive(timeout=0.05)


async def test_no_jobs_api(start, visit):
    comfy = await visit(await start({"no_jobs_api": True}), socket=False)
    assert (await comfy.get("/api/jobs"))[0] == 404
    assert (await comfy.post(f"/api/jobs/{uuid.uuid4()}/cancel"))[0] == 405
    assert (await comfy.post("/api/jobs/cancel", {"job_ids": []}))[0] == 405


async def test_cached_outputs_missing(start, visit, graphs):
    comfy = await visit(await start({"cached_outputs_missing": 1}))
    graph = graphs.preview()
    _, first = await comfy.run(graph)
    [item] = first["outputs"]["2"]["images"]
    assert (await comfy.view(item))[0] == 200
    _, again = await comfy.run(graph)
    assert (again["outputs"], again["status"]["completed"]) == (first["outputs"], True)
    assert (await comfy.view(item))[0] == 404


async def test_outputs_can_be_deleted_behind_the_servers_back(fake, comfy, graphs):
    prompt_id, entry = await comfy.run(graphs.preview())
    assert [path.name for path in fake.delete_outputs(prompt_id)] == [entry["outputs"]["2"]["images"][0]["filename"]]
    assert (await comfy.view(entry["outputs"]["2"]["images"][0]))[0] == 404
    assert fake.delete_outputs(prompt_id) == []


async def test_drop_websocket_leaves_no_close_frame(start, visit):
    fake = await start({"drop_websocket": 1})
    comfy = await visit(fake)
    assert comfy.messages == []
    assert comfy.socket.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE


async def test_lose_success_event_though_history_is_written(start, visit, graphs):
    comfy = await visit(await start({"lose_success_event": 1}))
    prompt_id = await comfy.submit(graphs.preview())
    await comfy.listen(lambda event, data: event == "status" and data["status"]["exec_info"]["queue_remaining"] == 0)
    entry = await comfy.history(prompt_id)
    assert entry["status"]["messages"][-1][0] == "execution_success"
    assert "execution_success" not in comfy.events()
    with pytest.raises(TimeoutError):
        await comfy.socket.receive(timeout=0.05)


async def test_crash_on_prompt_loses_everything_and_comes_back(start, visit, graphs):
    fake = await start({"crash_on_prompt": 1, "crash_down_s": 0})
    comfy = await visit(fake)
    prompt_id = await comfy.submit(graphs.preview())
    assert await comfy.listen_for("executing", node=None) is None
    assert comfy.socket.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE
    await until(lambda: fake.running and fake.executed == [prompt_id])
    again = await visit(fake)
    assert await again.history(prompt_id) is None
    assert (await again.get("/prompt"))[1]["exec_info"]["queue_remaining"] == 0


async def test_after_a_crash_the_port_answers_again_with_empty_memory_and_kept_outputs(fake, comfy, visit, graphs):
    saved = graphs.preview()
    saved["2"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "kept"}}
    prompt_id, entry = await comfy.run(saved)
    _, shown = await comfy.run(graphs.preview())
    hanging = await comfy.submit(graphs.through("FakeHang"))
    await comfy.wait_until_running(hanging)
    waiting = await comfy.submit(graphs.preview())
    url, before = fake.url, time.monotonic()
    await fake.crash()
    assert time.monotonic() - before < 1.5  # the hanging prompt keeps nobody
    assert await comfy.listen_for("never") is None
    assert comfy.socket.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE
    with pytest.raises(aiohttp.ClientConnectionError):
        await comfy.get("/prompt")
    await fake.restart()
    assert fake.url == url
    again = await visit(fake)
    assert [await again.history(known) for known in (prompt_id, hanging, waiting)] == [None, None, None]
    assert (await again.get("/prompt"))[1]["exec_info"]["queue_remaining"] == 0
    assert (await again.view(entry["outputs"]["2"]["images"][0]))[0] == 200
    assert (await again.view(shown["outputs"]["2"]["images"][0]))[0] == 404
    await again.run(saved)
    assert fake.executions_by_node["SaveImage"] == 2  # the cache is gone too


async def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_behind(start, fake):
    with pytest.raises(OSError, match="in use"):
        await start(port=fake.port)
    with pytest.raises(RuntimeError, match="already"):
        await fake.start()


async def test_restart_ends_the_wait_after_a_crash(start, visit, graphs):
    fake = await start({"crash_on_prompt": 1, "crash_down_s": None})
    comfy = await visit(fake)
    await comfy.submit(graphs.preview())
    assert await comfy.listen_for("never") is None
    await until(lambda: not fake.running)
    await fake.restart()
    assert (await comfy.get("/prompt"))[0] == 200


async def test_stop_deletes_its_own_folder_and_keeps_a_given_one(start, visit, graphs, tmp_path):
    own, given = await start(), await start(base_dir=tmp_path)
    folder = own.files.base_dir
    graph = graphs.preview()
    graph["2"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "kept"}}
    await (await visit(given)).run(graph)
    await own.stop()
    await given.stop()
    assert not folder.exists()
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["kept_00001_.png"]


def test_hazards_are_off_and_frozen():
    assert not any(value for name, value in Hazards().model_dump().items() if name != "crash_down_s")
    with pytest.raises(ValueError, match="frozen"):
        Hazards().no_jobs_api = True
    with pytest.raises(ValueError, match="extra"):
        Hazards.model_validate({"no_such_hazard": True})
