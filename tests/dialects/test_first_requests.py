"""The first requests of dialects A to D exactly as their clients send them; hosts are replaced."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.cluster import wait_until

pytestmark = pytest.mark.serve

ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}


def ended(api, path):
    def look():
        task = api.get(path).json()
        return task if task["status"] in {"COMPLETED", "FAILED", "CANCELLED"} else None

    return wait_until(look, 90, f"{path} does not end")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "/api/tasks/create",
            '{"workflow_name":"basic_generation","params":{"input_data":{"wf_json":{"prompt":"a beautiful landscape","seed":12345}}}}',
        ),
        ("/api/tasks/create", '{"workflow":"text-to-image","inputs":{"prompt":"cyberpunk city at night","seed":42}}'),
    ],
)
def test_task_service(api, path, text):
    task_id = api.post(path, content=text, headers=JSON).json()["task_id"]
    task = ended(api, f"/api/tasks/{task_id}")
    assert (task["status"], len(task["result_urls"])) == ("COMPLETED", 1)
    assert task_id in [one["task_id"] for one in api.get("/api/tasks").json()["tasks"]]
    assert api.get("/api/stats").json()["by_status"]["COMPLETED"] >= 1


def test_task_service_face_swap(api, media_server):
    text = """{"source_url":"https://example.com/source_face.jpg","target_url":"https://example.com/target_video.mp4","resolution":"1024x1024","media_type":"video"}"""
    text = text.replace("https://example.com/source_face.jpg", f"{media_server}/grace_hopper.jpg")
    text = text.replace("https://example.com/target_video.mp4", f"{media_server}/woman_face.mp4")
    task_id = api.post("/api/faceswap/create", content=text, headers=JSON).json()["task_id"]
    task = ended(api, f"/api/tasks/{task_id}")
    assert task["status"] == "COMPLETED", task["error"]
    (output,) = task["outputs"]
    assert (output["media_type"], max(output["width"], output["height"])) == ("video/mp4", 1024)


def test_middleware_bare_workflow_by_curl(api, cluster):
    command = [
        "curl",
        "-s",
        "-X",
        "POST",
        f"{cluster.url}/api/workflow/submit",
        "-H",
        "Content-Type: application/json",
        "-d",
        "@workflows/qwen_t2i_distill.json",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    task = ended(api, f"/api/task/{json.loads(done.stdout)['task_id']}")
    assert (task["status"], len(task["outputs"])) == ("COMPLETED", 1)


def test_middleware_workflow_with_params(api):
    workflow = json.loads((ROOT / "workflows/text-to-image.json").read_text())
    workflow["4"]["inputs"]["ckpt_name"] = "fake_sd15.safetensors"
    answer = api.post(
        "/api/workflow/submit", json={"workflow": workflow, "params": {"6.text": "a lighthouse", "3.seed": 12345}, "timeout": 600}
    )
    task = ended(api, f"/api/task/{answer.json()['task_id']}")
    assert task["status"] == "COMPLETED"


def test_gateway(api, media):
    def post(path, text):
        return api.post(path, content=text, headers=JSON).json()

    for name in ("input.png", "image.png"):
        data = {"overwrite": "true"}
        stored = api.post("/api/v1/images/upload", files={"file": (name, (media / "astronaut.png").read_bytes())}, data=data).json()
        assert (stored["code"], stored["message"], stored["data"]["filename"], stored["data"]["name"]) == (200, "上传成功", name, name)
    scenario = post(
        "/api/v1/scenarios/cpu_quickly",
        '{"prompt":"a beautiful sunset over mountains","negative_prompt":"blurry, low quality","input_image":"input.png"}',
    )
    assert (scenario["code"], scenario["message"], scenario["data"]["scenario"]) == (200, "图生图任务已提交", "cpu_quickly")
    prompt_id = scenario["data"]["prompt_id"]
    submitted = post(
        "/api/v1/workflows/submit",
        '{"workflow":{"3":{"class_type":"KSampler","inputs":{"seed":123456789,"steps":20,"cfg":7.0}}},"client_id":"my_client"}',
    )
    assert submitted == {"code": 1002, "message": "工作流无效", "data": None}  # shortened in the contract: ComfyUI refuses it too

    def finished():
        history = api.get(f"/api/v1/workflows/{prompt_id}/history").json()
        return history if history["data"]["status"]["completed"] else None

    history = wait_until(finished, 60, "the scenario does not end")
    assert history["message"] == "获取历史记录成功"
    (images,) = history["data"]["outputs"].values()
    assert api.get("/api/v1/images/download", params={"filename": images["images"][0]["filename"]}).headers["content-type"] == "image/png"
    assert post("/api/v1/workflows/interrupt", json.dumps({"prompt_id": prompt_id}))["code"] == 200
    assert api.get("/api/v1/queue/status").json()["message"] == "获取队列状态成功"
    assert post("/api/v1/queue/clear", '{"clear":true}')["code"] == 200
    url = api.get("/api/v1/images/url", params={"filename": "image.png"}).json()
    assert (url["message"], api.get(url["data"]["url"]).status_code) == ("获取图片 URL 成功", 200)


def test_drawing(api, cluster, media):
    picture = next(path for path in sorted(media.iterdir()) if path.suffix in {".jpg", ".png"}).read_bytes()
    accepted = api.post("/api/sketch", files={"file": ("sketch.png", picture)}).json()
    assert accepted["status"] == "uploaded"
    assert accepted["websocket_url"] == f"/api/ws/{accepted['session_id']}"
    with connect(f"{cluster.url.replace('http', 'ws')}{accepted['websocket_url']}", max_size=2**24) as socket:
        canvas = "data:image/png;base64," + base64.b64encode(picture).decode()
        socket.send(json.dumps({"type": "sketch_update", "sketch_data": canvas, "style": "anime"}))
        urls = []
        while len(urls) < 2:  # of the request before, or of none of its own if this one took its place; then of this one
            said = json.loads(socket.recv(timeout=90))
            assert said["status"] in {"processing", "completed"}, said
            if said["status"] == "processing":
                assert 0 <= said["progress"] <= 1
            else:
                urls.append(said["result_url"])
                if said["seq"] == 2:
                    break
    assert urls[-1].startswith(f"/api/result/{accepted['session_id']}")
    assert api.get(urls[-1]).headers["content-type"] == "image/png"
