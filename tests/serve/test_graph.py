"""The application as clients see it, on a real cluster: swap, progress, cancel, order, scaling, metrics."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import yaml
from PIL import Image
from websockets.sync.client import connect

from tests.cluster import wait_until
from tests.jobs import events, frames_done, read, small_portrait, submit, upload, upload_media, wait_for, wait_for_end

pytestmark = pytest.mark.serve


@pytest.fixture(scope="module")
def portrait(api, media):
    return upload_media(api, media / "astronaut.png")


@pytest.fixture(scope="module")
def small(api, media):
    return upload(api, "small.jpg", small_portrait(media / "astronaut.png"))


@pytest.fixture(scope="module")
def clip(api, media):
    return upload_media(api, media / "woman_hand_over_face.mp4")


def test_a_picture_is_swapped_and_scaled_into_its_box(api, media, portrait):
    target = upload_media(api, media / "grace_hopper.jpg")
    job = submit(api, portrait, target, output={"resolution": "400x300", "format": "png"})
    done = wait_for_end(api, job["id"])
    assert (done["status"], done["attempt"], len(done["outputs"])) == ("succeeded", 1, 1)
    output = done["outputs"][0]
    picture = Image.open(io.BytesIO(api.get(output["url"]).content))
    assert (picture.format, picture.size) == ("PNG", (256, 300))
    assert (output["width"], output["height"]) == picture.size


def test_a_video_reports_its_frames_and_keeps_its_length(api, media, portrait):
    target = upload_media(api, media / "woman_face.mp4")
    job = submit(api, portrait, target)
    with api.stream("GET", f"/v1/jobs/{job['id']}/events") as stream:
        seen = list(events(stream.iter_lines()))
    frames = [frame for event in seen if (frame := frames_done(event))]
    assert [event["status"] for event in seen if event["type"] == "state"] == ["queued", "running", "succeeded"]
    assert frames == sorted(frames)
    assert len(frames) > 3
    done = read(api, job["id"])
    assert abs(done["outputs"][0]["duration_s"] - 2.085) < 0.05


def test_no_face_is_a_failure_that_names_the_role(api, media, portrait):
    empty = upload_media(api, media / "coffee_no_face.png")
    as_target = wait_for_end(api, submit(api, portrait, empty)["id"])
    as_source = wait_for_end(api, submit(api, empty, portrait)["id"])
    assert [job["error"]["code"] for job in (as_target, as_source)] == ["no_face_detected"] * 2
    assert "target" in as_target["error"]["message"]
    assert "source" in as_source["error"]["message"]


def test_inputs_come_by_url_where_the_operator_allows_it(api, media_server):
    source, target = f"{media_server}/astronaut.png", {"url": f"{media_server}/grace_hopper.jpg", "media_type": "image/jpeg"}
    job = submit(api, source, target)
    lying = submit(api, source, target | {"media_type": "image/png"})
    missing = submit(api, f"{media_server}/nobody.png", target)
    assert wait_for_end(api, job["id"])["status"] == "succeeded"
    assert wait_for_end(api, lying["id"])["error"]["code"] == "media_type_mismatch"
    failed = wait_for_end(api, missing["id"])["error"]
    assert (failed["code"], "404" in failed["message"]) == ("invalid_input", True)


def test_a_url_of_this_machine_is_refused(api, portrait, cluster):
    answer = api.post("/v1/jobs", json={"kind": "faceswap", "source": portrait, "target": f"{cluster.url}/health"})
    assert (answer.status_code, answer.json()["code"]) == (422, "url_not_allowed")
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_running_job_is_cancelled_between_two_frames(api, portrait, clip):
    job = submit(api, portrait, clip)
    wait_for(api, job["id"], lambda seen: frames_done(seen) > 3)
    api.post(f"/v1/jobs/{job['id']}/cancel")
    done = wait_for_end(api, job["id"], 20)
    assert (done["status"], done["outputs"]) == ("cancelled", [])


def test_a_deleted_job_takes_its_bytes_along(api, small, cluster):
    done = wait_for_end(api, submit(api, small, small)["id"])
    key = done["outputs"][0]["uri"].removeprefix("local://")
    stored = next(cluster.data_dir.rglob(key))
    assert stored.stat().st_size == done["outputs"][0]["size_bytes"]
    assert api.delete(f"/v1/jobs/{done['id']}").status_code == 204
    assert not stored.exists()
    assert api.get(done["outputs"][0]["url"]).status_code == 404


def test_60_jobs_of_three_priorities_leave_in_order(api, portrait, small, clip):
    running = [submit(api, portrait, clip) for _ in range(2)]  # holds both replicas while the others queue up
    for job in running:
        wait_for(api, job["id"], lambda seen: frames_done(seen) > 0)
    first = submit(api, small, small, priority=-5)
    api.post(f"/v1/jobs/{first['id']}/cancel")
    assert read(api, first["id"])["status"] == "cancelled"  # a queued job is cancelled at once
    with ThreadPoolExecutor(8) as pool:
        queued = list(pool.map(lambda n: submit(api, small, small, priority=(0, 5, 9)[n % 3], labels={"batch": "order"}), range(60)))
    for job in running:
        api.post(f"/v1/jobs/{job['id']}/cancel")
    done = [wait_for_end(api, job["id"]) for job in queued]
    assert {job["status"] for job in done} == {"succeeded"}
    started = sorted(done, key=lambda job: job["started_at"])
    assert [job["priority"] for job in started] == sorted((job["priority"] for job in done), reverse=True)
    for priority in (9, 5, 0):
        created = [job["created_at"] for job in started if job["priority"] == priority]
        assert created == sorted(created)


def replicas(cluster) -> int:
    """Return how many face-swap replicas `serve status` shows as running."""
    deployments = yaml.safe_load(cluster.status())["applications"]["atelier"]["deployments"]
    return deployments["FaceSwap"]["replica_states"].get("RUNNING", 0)


def test_the_pool_scales_from_zero_to_one_and_back(api, cluster, portrait, clip):
    wait_until(lambda: replicas(cluster) == 0, 60, "the idle pool keeps replicas", cluster.status)
    job = submit(api, portrait, clip)
    wait_until(lambda: replicas(cluster) == 1, 180, "the pool does not wake", cluster.status)
    assert wait_for_end(api, job["id"])["status"] == "succeeded"
    wait_until(lambda: replicas(cluster) == 0, 60, "the pool does not go back to zero", cluster.status)
    reasons = {decision["reason"].partition(",")[0] for decision in api.get("/v1/admin/scaling").json()["decisions"]}
    assert {"1 queued + 0 computing", "0 queued + 1 computing"} <= reasons


def test_a_websocket_tells_of_every_job(api, cluster, small):
    with connect(cluster.url.replace("http", "ws") + "/v1/events") as socket:
        job = submit(api, small, small)
        told = []
        while not told or told[-1]["status"] != "succeeded":
            event = json.loads(socket.recv(timeout=60))
            if event["job_id"] == job["id"] and event["type"] == "state":
                told.append(event)
    assert [event["status"] for event in told] == ["queued", "running", "succeeded"]


def test_the_job_metrics_are_on_rays_prometheus_endpoint(cluster, api, small):
    wait_for_end(api, submit(api, small, small)["id"])

    def exported() -> bool:
        text = httpx.get(cluster.metrics_url, timeout=10).text
        names = ("jobs_created", "jobs_queued", "jobs_running", "oldest_queued_age_s", "attempts_ended", "job_wait_s", "stage_s")
        return all(f"ray_atelier_{name}" in text for name in names)

    wait_until(exported, 60, "a metric is missing", lambda: httpx.get(cluster.metrics_url).text[:3000])


def test_log_lines_carry_the_job_and_its_attempt(api, cluster, small):
    job = wait_for_end(api, submit(api, small, small)["id"])
    logs = {
        "attempt_finished": "serve/replica_atelier_FaceSwap_*.log",  # a replica's own file
        "attempt_ended": "worker-*.err",  # the job store is a plain actor
        "job_accepted": "serve/replica_atelier_Ingress_*.log",
    }

    def actions() -> set[str]:
        lines = [
            json.loads(line)
            for path in cluster.logs(*logs.values())
            for line in path.read_text().splitlines()
            if job["id"] in line and line[0] == "{"
        ]
        return {
            line["action"]
            for line in lines
            if line.get("job_id") == job["id"] and (line["action"] == "job_accepted" or line["attempt"] == 1)
        }

    wait_until(lambda: actions() >= logs.keys(), 20, "a log line is missing", lambda: str(actions()))
