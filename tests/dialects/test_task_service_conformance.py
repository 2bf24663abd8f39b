"""Dialect A beyond the conversations of ``golden/task_service.json``: one golden file a conversation, and what needs eyes or two tasks."""

from __future__ import annotations

import base64
import json
import uuid
from datetime import datetime

import pytest
from PIL import Image

from tests.cluster import wait_until
from tests.dialects.golden import FOLDER
from tests.dialects.tasks import (
    assert_like,
    busy,
    conversations_of,
    create,
    ends,
    hold_conversation,
    picture,
    reaches,
    state_of,
)
from tests.jobs import small_portrait
from tests.workflows import empty_image, text_to_image

pytestmark = pytest.mark.serve

STATUSES = ("PENDING", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED")


def data_url(data, media_type="image/jpeg"):
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize("steps", conversations_of("task_service"))
def test_conversation(api, media_server, steps):
    hold_conversation(api, media_server, steps)


def test_a_mapped_input_reaches_its_node(api, media_server):
    steps = json.loads((FOLDER / "task_service" / "registered_by_mapping.json").read_text("utf-8"))
    kept = hold_conversation(api, media_server, steps)
    assert picture(api, kept["url"]).convert("RGB").getpixel((1, 1)) == (1, 2, 3)  # 0x010203


def test_a_name_is_bound_to_the_samplers_positive_text(api):
    """Whatever is asked for as `prompt` must change the picture as a change of the positive text does, and not as one of the negative."""
    name = f"positive-{uuid.uuid4().hex[:8]}"
    graph = text_to_image(steps=1, seed=5)
    swapped = {"3": graph.pop("3"), "7": graph.pop("7"), **graph}  # the negative text comes first
    assert api.post("/api/workflows", json={"name": name, "workflow": swapped, "inputs": ["prompt"]}).json()["inputs"][0]["places"] == [
        "6.text"
    ]
    by_name = ends(api, create(api, "/api/tasks/create", {"workflow": name, "inputs": {"prompt": "a fox"}}))
    swapped["6"]["inputs"]["text"] = "a fox"
    by_hand = ends(api, create(api, "/api/tasks/create", {"workflow": swapped}))
    assert picture(api, by_name["result_url"]).tobytes() == picture(api, by_hand["result_url"]).tobytes()


def test_a_face_swap_of_data_urls_fits_its_box(api, media):
    body = {
        "source_url": data_url(small_portrait(media / "astronaut.png", 256)),
        "target_url": data_url((media / "grace_hopper.jpg").read_bytes()),
        "resolution": "400x300",
        "media_type": "image",
    }
    task = ends(api, create(api, "/api/faceswap/create", body))
    assert task["status"] == "COMPLETED", task["error"]
    (output,) = task["outputs"]
    result = picture(api, task["result_url"])
    assert result.size == (256, 300) == (output["width"], output["height"])
    assert task["result_urls"] == [task["result_url"]] == [output["url"]]
    assert output["filename"].startswith(task["task_id"])
    assert output["size_bytes"] == len(api.get(f"/api/image/{output['filename']}").content)


def test_a_face_swap_gives_the_target_another_face(api, media, media_server):
    body = {"source_url": f"{media_server}/synthetic_woman.jpg", "target_url": f"{media_server}/astronaut.png", "resolution": "512x512"}
    task = ends(api, create(api, "/api/faceswap/create", body))
    assert task["status"] == "COMPLETED", task["error"]
    before, after = Image.open(media / "astronaut.png").convert("RGB"), picture(api, task["result_url"]).convert("RGB")
    assert (after.size, after.tobytes() != before.tobytes()) == (before.size, True)


def test_data_of_another_kind_than_said_is_refused_at_once(api, media):
    still = data_url((media / "grace_hopper.jpg").read_bytes())
    clip = data_url((media / "woman_face.mp4").read_bytes(), "video/mp4")
    for target, media_type in ((still, "video"), (clip, "image")):
        answer = api.post("/api/faceswap/create", json={"source_url": still, "target_url": target, "media_type": media_type})
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), answer.text
        assert answer.json()["code"] == "media_type_mismatch"


def test_a_task_without_a_face_fails_and_says_so(api, media_server):
    body = {"source_url": f"{media_server}/astronaut.png", "target_url": f"{media_server}/coffee_no_face.png", "media_type": "image"}
    task = ends(api, create(api, "/api/faceswap/create", body))
    assert (task["status"], task["error_code"], task["result_url"], task["outputs"]) == ("FAILED", "no_face_detected", None, [])
    assert "target" in task["error"]


def test_both_forms_paint_the_same(api):
    inputs = {"prompt": "a lighthouse", "seed": 7, "steps": 1, "width": 64, "height": 64}
    bodies = (
        {"workflow_name": "text-to-image", "params": {"input_data": {"wf_json": inputs}}},
        {"workflow": "text-to-image", "inputs": inputs},
        {"workflow": "text-to-image", "inputs": inputs | {"seed": 8}},
    )
    first, second, other = (picture(api, ends(api, create(api, "/api/tasks/create", body))["result_url"]) for body in bodies)
    assert first.size == (64, 64)
    assert first.tobytes() == second.tobytes() != other.tobytes()


def test_a_higher_priority_goes_first(api):
    with busy(api) as ids:
        low, high = (create(api, "/api/tasks/create", {"workflow": empty_image(color=700 + n), "priority": n}) for n in (0, 5))
        for task_id in ids:
            api.post(f"/api/interrupt/{task_id}")
        started = [datetime.fromisoformat(ends(api, task_id)["started_at"]) for task_id in (high, low)]
    assert started == sorted(started)


def test_progress_is_told_in_percent_with_its_node(api):
    task_id = create(
        api, "/api/tasks/create", {"workflow": "text-to-image", "inputs": {"prompt": "slow", "steps": 100, "width": 64, "height": 64}}
    )
    task = reaches(api, task_id, lambda task: bool((task["progress_detail"] or {}).get("step")))
    assert_like(task["progress_detail"], json.loads((FOLDER / "middleware/messages/progress_detail.json").read_text("utf-8")))
    assert (task["status"], task["progress_detail"]["node"], task["progress_detail"]["node_title"]) == ("PROCESSING", "3", "Sampler")
    assert (task["progress_detail"]["steps"], 0 < task["progress"] < 100) == (100, True)
    assert api.post("/api/comfyui-interrupt", json={"prompt_id": task_id}).json()["interrupted"] == [task_id]
    ended = ends(api, task_id)
    assert (ended["status"], ended["result_url"]) == ("CANCELLED", None)
    assert 0 <= ended["progress"] < 100


def test_the_list_has_pages_newest_first(api):
    ids = [create(api, "/api/tasks/create", {"workflow": empty_image(color=500 + n)}) for n in range(5)]
    for task_id in ids:
        ends(api, task_id)
    whole = api.get("/api/tasks", params={"limit": 5}).json()
    assert (whole["limit"], whole["offset"], [task["task_id"] for task in whole["tasks"]]) == (5, 0, ids[::-1])
    pages = [api.get("/api/tasks", params={"limit": 2, "offset": offset}).json() for offset in (0, 2, 4)]
    assert [task["task_id"] for page in pages for task in page["tasks"]][:5] == ids[::-1]
    assert {page["total"] for page in pages} == {whole["total"]}
    beyond = api.get("/api/tasks", params={"offset": whole["total"]}).json()
    assert beyond == {"tasks": [], "total": whole["total"], "limit": 100, "offset": whole["total"]}


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("COMPLETED", "completed", "Completed", "succeeded"), "COMPLETED"),
        (("FAILED", "failed"), "FAILED"),
        (("CANCELLED", "cancelled"), "CANCELLED"),
    ],
)
def test_the_list_takes_any_word_for_a_status(api, words, status):
    answers = [api.get("/api/tasks", params={"status": word, "limit": 500}).json() for word in words]
    assert {answer["total"] for answer in answers} == {api.get("/api/stats").json()["by_status"][status]}
    assert {task["status"] for answer in answers for task in answer["tasks"]} <= {status}


def test_the_list_is_kept_to_a_type_and_a_status(api):
    with busy(api) as ids:
        waiting, running = (api.get("/api/tasks", params={"status": word, "type": "comfyui"}).json() for word in ("queued", "running"))
        assert {task["status"] for task in waiting["tasks"]} == {"PENDING"}
        assert {task["status"] for task in running["tasks"]} == {"PROCESSING"}
        assert {task["task_id"] for task in waiting["tasks"] + running["tasks"]} >= set(ids)
        swaps = api.get("/api/tasks", params={"type": "faceswap", "limit": 500}).json()
        assert {(task["type"], task["task_type"]) for task in swaps["tasks"]} <= {("faceswap", "faceswap")}
        assert not {task["task_id"] for task in swaps["tasks"]} & set(ids)


def test_the_figures_add_up(api):
    with busy(api):
        stats = api.get("/api/stats").json()
        assert (stats["running"], stats["queue_length"]) == (stats["by_status"]["PROCESSING"], stats["by_status"]["PENDING"])
        assert stats["running"] > 0
        assert stats["queue_length"] > 0
        assert api.get("/api/health").json()["queue_length"] == stats["queue_length"]
    stats = api.get("/api/stats").json()
    assert tuple(stats["by_status"]) == STATUSES
    assert {"comfyui", "faceswap"} <= set(stats["by_type"])
    assert {tuple(counts) for counts in stats["by_type"].values()} == {STATUSES}
    assert stats["by_status"] == {status: sum(counts[status] for counts in stats["by_type"].values()) for status in STATUSES}
    assert stats["total"] == sum(stats["by_status"].values()) == api.get("/api/tasks").json()["total"]
    done, failed = stats["by_status"]["COMPLETED"], stats["by_status"]["FAILED"]
    if done + failed:
        assert stats["success_rate"] == pytest.approx(done / (done + failed), abs=0.001)
        assert stats["failure_rate"] == pytest.approx(failed / (done + failed), abs=0.001)
    for times in (stats["processing_time"], stats["waiting_time"]):
        assert times["p50_s"] is None or 0 <= times["p50_s"] <= times["p95_s"]
    assert stats["attempts_total"] - stats["retries_total"] <= stats["total"]
    assert api.get("/api/status").json()["tasks"]["by_status"] == stats["by_status"]


def test_the_queue_shows_what_runs_and_what_waits(api):
    with busy(api) as ids:
        queue = api.get("/api/comfyui-queue-status").json()
        item = {"prompt_id": "<uuid>", "task_id": "<uuid>", "number": "<int>", "timestamp": "<int>", "workflow_name": "<any>"}
        count = {"running_count": len(queue["queue_running"]), "pending_count": len(queue["queue_pending"])}
        assert_like(queue, {"queue_running": ["<each>", item], "queue_pending": ["<each>", item], **count})
        items = queue["queue_running"] + queue["queue_pending"]
        assert {item["task_id"] for item in items} >= set(ids)
        assert all(item["prompt_id"] == item["task_id"] for item in items)
        assert len({item["number"] for item in items}) == len(items)
        waiting = [item["task_id"] for item in queue["queue_pending"] if item["task_id"] in ids]
        assert waiting == sorted(waiting, key=ids.index)
    assert not {item["task_id"] for item in api.get("/api/comfyui-queue-status").json()["queue_pending"]} & set(ids)


def test_an_interrupt_of_one_spares_the_others(api):
    with busy(api, 2) as (first, second):
        answer = api.post("/api/comfyui-interrupt", json={"task_id": first})
        assert_like(answer.json(), {"message": "<text>", "interrupted": [first], "count": 1})
        assert ends(api, first, 20)["status"] == "CANCELLED"
        assert state_of(api, second) == "PROCESSING"


@pytest.mark.parametrize("send", [{}, {"json": {}}], ids=["without a body", "with an empty one"])
def test_an_interrupt_takes_all_that_runs(api, send):
    with busy(api) as ids:
        running = {task_id for task_id in ids if state_of(api, task_id) == "PROCESSING"}
        answer = api.post("/api/comfyui-interrupt", **send).json()
        assert_like(answer, {"message": "<text>", "interrupted": ["<each>", "<uuid>"], "count": len(answer["interrupted"])})
        assert running <= set(answer["interrupted"])
        assert {ends(api, task_id, 20)["status"] for task_id in running} == {"CANCELLED"}


def test_nobody_is_told_how_or_where_a_backend_was_started(api, fake_backends):
    wait_until(lambda: api.get("/api/health").json()["comfyui"]["healthy"] == 2, 30, "the backends are not healthy")
    for path in ("/api/comfyui-system-stats", "/api/system/info", "/api/status", "/api/health"):
        text = api.get(path).text
        assert "argv" not in text
        assert "--listen" not in text
        assert not [backend.url for backend in fake_backends if backend.url.removeprefix("http://") in text]
    stats = api.get("/api/comfyui-system-stats").json()
    assert {backend["name"] for backend in stats["backends"]} >= {"fake0", "fake1"}
    assert {device["backend"] for device in stats["devices"]} >= {"fake0", "fake1"}


def test_the_status_names_every_part(api):
    status = wait_until(
        lambda: (found := api.get("/api/status").json())["components"]["comfyui"]["status"] == "healthy" and found,
        30,
        "ComfyUI is not healthy",
    )
    pools = status["components"]["pools"]
    assert set(pools) >= {"comfyui", "faceswap"}
    for pool in pools.values():
        assert_like(pool, {"queued": "<int>", "running": "<int>", "uploading": "<int>", "oldest_age_s": "<any>", "estimate_s": "<any>"})
    assert {
        backend["name"]: backend["tags"] for backend in status["components"]["comfyui"]["backends"] if backend["name"][:4] == "fake"
    } == {
        "fake0": [],
        "fake1": ["old"],
    }
    assert set(status["tasks"]["by_status"]) == set(STATUSES)


def test_an_ended_task_keeps_its_times_in_order(api):
    task = ends(api, create(api, "/api/tasks/create", {"workflow": empty_image(color=9)}))
    assert task["status"] == "COMPLETED"
    (attempt,) = task["attempt_history"]
    places = (task["created_at"], attempt["started_at"], attempt["ended_at"], task["updated_at"])
    assert (times := [datetime.fromisoformat(place) for place in places]) == sorted(times)
    assert (task["started_at"] <= task["completed_at"], task["cancel_requested"]) == (True, False)
