"""Workflows on the deployed application: submitted, followed, previewed, cancelled, failed, drained."""

from __future__ import annotations

import io
import json
import struct

import pytest
from PIL import Image
from websockets.sync.client import connect

from tests.cluster import wait_until
from tests.jobs import read, upload_media, wait_for, wait_for_end
from tests.workflows import empty_image, text_to_image

pytestmark = pytest.mark.serve

HANGS = empty_image(color=77) | {
    "3": {"class_type": "FakeHang", "inputs": {"image": ["1", 0]}, "_meta": {"title": "Hangs"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "never"}},
}


def run(api, workflow, **more):
    answer = api.post("/v1/jobs", json={"kind": "comfyui", "workflow": workflow, **more})
    assert answer.status_code in {200, 202}, answer.text
    return answer.json()


def picture(api, output):
    return Image.open(io.BytesIO(api.get(output["url"]).content)).convert("RGB")


def node_of(job):
    return (job["progress"] or {}).get("comfy_node")


def test_a_named_workflow_makes_a_picture_and_says_with_what(api):
    answer = api.post("/v1/workflows/text-to-image/run", json={"inputs": {"prompt": "a lighthouse", "seed": 7}, "labels": {"made": "here"}})
    assert answer.status_code == 202, answer.text
    job = wait_for_end(api, answer.json()["id"])
    assert (job["status"], job["labels"]) == ("succeeded", {"made": "here"})
    (output,) = job["outputs"]
    assert (output["media_type"], output["comfy_node"] in job["spec"]["graph"]) == ("image/png", True)
    assert picture(api, output).size == (output["width"], output["height"])
    facts = job["attempts"][-1]["facts"]
    assert facts["backend"] in {"fake0", "fake1"}
    assert list(facts["chosen"].values()) == ["fake_sd15.safetensors"]


def test_an_upload_is_the_input_of_a_workflow_and_its_result_the_next_ones(api, media):
    file_id = upload_media(api, media / "astronaut.png")
    first = wait_for_end(api, api.post("/v1/workflows/invert/run", json={"inputs": {"image": file_id}}).json()["id"])
    assert first["status"] == "succeeded", first["error"]
    second = wait_for_end(
        api, api.post("/v1/workflows/invert/run", json={"inputs": {"image": first["outputs"][0]["file_id"]}}).json()["id"]
    )
    original = Image.open(media / "astronaut.png").convert("RGB")
    place = (original.width // 2, original.height // 3)
    inverted, again = (picture(api, job["outputs"][0]).getpixel(place) for job in (first, second))
    assert inverted == tuple(255 - value for value in original.getpixel(place))
    assert again == original.getpixel(place)


def test_a_video_and_a_text_come_out_as_what_they_are(api, media):
    first, second = (upload_media(api, media / name) for name in ("astronaut.png", "grace_hopper.jpg"))
    inputs = {"first": first, "second": second, "third": first, "frames_each": 4}
    job = wait_for_end(api, api.post("/v1/workflows/video-from-pictures/run", json={"inputs": inputs}).json()["id"])
    assert job["status"] == "succeeded", job["error"]
    assert "video/mp4" in {output["media_type"] for output in job["outputs"]}
    text = {
        "1": {"class_type": "PrimitiveString", "inputs": {"value": "hello"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    job = wait_for_end(api, run(api, text)["id"])
    assert [(o["media_type"], api.get(o["url"]).text) for o in job["outputs"]] == [("text/plain", "hello")]


def test_progress_and_previews_arrive_while_the_sampler_works(api, cluster):
    job = run(api, text_to_image(steps=120, size=128, seed=99))  # long enough for a slow machine to open a socket
    previews, nodes, last = [], set(), None
    with connect(f"{cluster.url.replace('http', 'ws')}/v1/events?job_id={job['id']}&previews=1", max_size=None) as socket:
        while last not in {"succeeded", "failed"}:
            message = socket.recv(timeout=60)
            if isinstance(message, bytes):
                (length,) = struct.unpack_from(">I", message)
                previews.append((json.loads(message[4 : 4 + length]), message[4 + length :]))
            else:
                event = json.loads(message)
                last = event["status"]
                nodes.add((event.get("progress") or {}).get("comfy_node_title"))
    assert last == "succeeded"
    assert "KSampler" in nodes
    assert previews, "no preview came"
    header, data = previews[0]
    assert (header["type"], header["job_id"], header["media_type"]) == ("preview", job["id"], "image/jpeg")
    assert Image.open(io.BytesIO(data)).size[0] > 0
    assert [preview["n"] for preview, _ in previews] == sorted(preview["n"] for preview, _ in previews)


def test_a_wrong_value_is_refused_before_anything_is_queued(api):
    answer = api.post("/v1/jobs", json={"kind": "comfyui", "workflow": text_to_image(ckpt="nope.safetensors")})
    assert (answer.status_code, answer.json()["code"]) == (422, "workflow_invalid")
    (node,) = answer.json()["nodes"]
    assert (node["comfy_node"], node["input"], node["kind"], node["received"]) == (
        "4",
        "ckpt_name",
        "value_not_in_list",
        "nope.safetensors",
    )
    assert "fake_sd15.safetensors" in node["allowed"]


def test_a_failing_node_is_named_and_what_was_done_before_it_is_kept(api):
    graph = empty_image(color=5) | {
        "3": {"class_type": "FakeFail", "inputs": {"image": ["1", 0], "message": "out of luck"}, "_meta": {"title": "Unlucky"}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "never"}},
    }
    job = wait_for_end(api, run(api, graph)["id"])
    assert (job["status"], job["error"]["code"], job["attempt"]) == ("failed", "comfy_node_failed", 1)
    (node,) = job["error"]["details"]["nodes"]
    assert (node["comfy_node"], node["title"], node["kind"]) == ("3", "Unlucky", "execution_error")
    assert "Unlucky" in job["error"]["message"]
    assert [output["comfy_node"] for output in job["outputs"]] == ["2"]
    assert picture(api, job["outputs"][0]).getpixel((1, 1)) == (0, 0, 5)


def test_cancelling_stops_one_prompt_and_leaves_the_others(api):
    hanging = run(api, HANGS)
    wait_for(api, hanging["id"], lambda job: node_of(job) == "3")
    others = [run(api, empty_image(color=200 + n)) for n in range(4)]
    api.post(f"/v1/jobs/{hanging['id']}/cancel")
    assert wait_for_end(api, hanging["id"], 20)["status"] == "cancelled"
    assert {wait_for_end(api, job["id"])["status"] for job in others} == {"succeeded"}


def test_a_job_goes_to_a_backend_with_its_tags(api):
    jobs = [run(api, empty_image(color=300 + n), options={"backend_tags": ["old"]}) for n in range(4)]
    assert {wait_for_end(api, job["id"])["attempts"][-1]["facts"]["backend"] for job in jobs} == {"fake1"}
    answer = api.post("/v1/jobs", json={"kind": "comfyui", "workflow": empty_image(), "options": {"backend_tags": ["new"]}})
    assert answer.status_code == 422


def test_a_time_limit_ends_a_prompt_that_hangs(api):
    job = wait_for_end(api, run(api, HANGS, options={"timeout_s": 2})["id"])
    assert (job["status"], job["error"]["code"]) == ("failed", "job_timed_out")
    assert wait_for_end(api, run(api, empty_image(color=6))["id"])["status"] == "succeeded"  # its backend is free again


def test_backends_are_shown_drained_and_added(api, fake_backends):
    def health():
        return {b["name"]: b["health"] for b in api.get("/v1/admin/backends").json()["backends"]}

    wait_until(lambda: all(h and h["healthy"] and h["fake"] for h in health().values()), 30, "the backends are not healthy", health)
    assert {b["name"] for b in api.get("/v1/capabilities").json()["backends"] if b["fake"]} == {"fake0", "fake1"}
    assert api.post("/v1/admin/backends/fake0/drain").json()["draining"] is True
    try:
        wait_until(lambda: not health_of(api, "fake0")["health"]["in_flight"], 30, "fake0 does not drain")
        jobs = [run(api, empty_image(color=400 + n)) for n in range(6)]
        backends = [wait_for_end(api, job["id"])["attempts"][-1]["facts"]["backend"] for job in jobs]
        assert set(backends[2:]) == {"fake1"}  # the replica hears of a drain within two seconds
    finally:
        api.post("/v1/admin/backends/fake0/resume")
    refused = api.post("/v1/admin/backends", json={"url": "http://127.0.0.1:1"})
    assert (refused.status_code, refused.json()["code"]) == (422, "url_not_allowed")
    added = api.post("/v1/admin/backends", json={"url": "http://127.0.0.2:9", "name": "nobody", "tags": ["nobody"]})
    assert added.status_code == 201, added.text
    wait_until(lambda: (health_of(api, "nobody")["health"] or {}).get("reason"), 30, "the new backend is not looked at")
    assert api.delete("/v1/admin/backends/nobody").status_code == 204


def health_of(api, name):
    return next(backend for backend in api.get("/v1/admin/backends").json()["backends"] if backend["name"] == name)


def test_an_uploaded_workflow_runs_by_its_name_and_version(api):
    body = {"name": "mine", "graph": empty_image(color=1), "parameters": {"colour": {"type": "integer", "default": 1, "bind": "1.color"}}}
    assert api.post("/v1/workflows", json=body).status_code == 201
    job = wait_for_end(api, api.post("/v1/workflows/mine/run", json={"inputs": {"colour": 9}}).json()["id"])
    assert picture(api, job["outputs"][0]).getpixel((1, 1)) == (0, 0, 9)
    assert api.put("/v1/workflows/mine", json={"graph": empty_image(color=2)}).status_code == 200
    old, new = (wait_for_end(api, run(api, name)["id"]) for name in ("mine@1", "mine"))
    assert [picture(api, j["outputs"][0]).getpixel((1, 1)) for j in (old, new)] == [(0, 0, 1), (0, 0, 2)]
    assert "/v1/workflows/mine/run" in api.get("/openapi.json").json()["paths"]
    assert api.delete("/v1/workflows/mine").status_code == 204
    assert read(api, old["id"])["status"] == "succeeded"
