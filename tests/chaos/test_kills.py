"""``kill -9`` of every part, mid-video: an accepted job ends succeeded, once, with one output, and every attempt is counted."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.jobs import events, frames_done, read, submit, upload_media, wait_for, wait_for_end

REPLACE_STORE = """
import asyncio, sys, time
import ray
from deployments.handles import ensure_store
from deployments.job_store import ACTOR_NAME, NAMESPACE, fingerprint_of
from serve_app.settings import Settings

ray.init(namespace=NAMESPACE, log_to_driver=False)
config = Settings().store.model_copy(update={"max_queued": int(sys.argv[1])})
asyncio.run(ensure_store(config))
deadline = time.monotonic() + 5
while time.monotonic() < deadline:  # workers and ingress of the application find it meanwhile, and must leave it alone
    actor = ray.get_actor(ACTOR_NAME, namespace=NAMESPACE)
    assert ray.get(actor.fingerprint.remote()) == fingerprint_of(config)
"""

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

REPLICA = "ray::ServeReplica:atelier:"


@pytest.fixture
def running(api, media):
    """A video job that has swapped some frames and has most before it."""
    source, target = upload_media(api, media / "astronaut.png"), upload_media(api, media / "woman_hand_over_face.mp4")
    job = submit(api, source, target)
    return wait_for(api, job["id"], lambda seen: frames_done(seen) > 5)


def assert_one_result(api, cluster, job, outcomes):
    assert job["status"] == "succeeded", job
    assert [attempt["outcome"] for attempt in job["attempts"]] == outcomes
    assert job["attempt"] == len(outcomes)
    output, *others = job["outputs"]
    assert others == []
    assert hashlib.sha256(api.get(output["url"]).content).hexdigest() == output["sha256"]
    stored = [path for path in cluster.data_dir.rglob(f"artifacts/default/{job['id']}/**/*") if path.is_file()]
    assert [path.parent.name for path in stored] == [str(job["attempt"])]


def test_a_killed_worker_costs_one_attempt(api, cluster, running):
    cluster.kill(REPLICA + "FaceSwap")
    assert_one_result(api, cluster, wait_for_end(api, running["id"]), ["worker_lost", "succeeded"])


def test_a_killed_ingress_costs_nothing(api, cluster, running):
    cluster.kill(REPLICA + "Ingress")
    assert_one_result(api, cluster, wait_for_end(api, running["id"]), ["succeeded"])


def test_a_stream_goes_on_where_a_killed_ingress_broke_it(api, cluster, running):
    path = f"/v1/jobs/{running['id']}/events"
    seen = []
    with pytest.raises(httpx.TransportError), api.stream("GET", path) as stream:
        for event in events(stream.iter_lines()):
            seen.append(event)
            if len(seen) == 4:
                cluster.kill(REPLICA + "Ingress")
    read(api, running["id"])  # returns when there is an ingress again
    with api.stream("GET", path, headers={"Last-Event-ID": seen[-1]["id"]}) as stream:
        later = list(events(stream.iter_lines()))
    numbers = [tuple(map(int, event["id"].split("-"))) for event in seen + later]
    assert numbers == sorted(set(numbers))  # none twice, in order
    assert [event["status"] for event in seen + later if event["type"] == "state"] == ["queued", "running", "succeeded"]


def test_a_killed_uploader_costs_nothing(api, cluster, running):
    cluster.kill(REPLICA + "Uploader")
    assert_one_result(api, cluster, wait_for_end(api, running["id"]), ["succeeded"])


def test_a_killed_job_store_costs_nothing(api, cluster, running):
    cluster.kill("ray::JobStoreActor")
    assert_one_result(api, cluster, wait_for_end(api, running["id"]), ["succeeded"])


def test_no_accepted_job_is_lost_when_the_store_dies_under_a_burst(api, cluster, running):
    reference = running["spec"]["source"]["file_id"]

    def try_submit(number: int) -> str | None:
        if number == 30:
            cluster.kill("ray::JobStoreActor")
        body = {"kind": "faceswap", "source": reference, "target": reference, "priority": -9}
        answer = api.post("/v1/jobs", json=body, headers={"Idempotency-Key": f"burst-{number}"})
        return answer.json()["id"] if answer.status_code == httpx.codes.ACCEPTED else None

    with ThreadPoolExecutor(8) as pool:
        accepted = [job_id for job_id in pool.map(try_submit, range(60)) if job_id]
    assert len(accepted) > 30
    assert len(set(accepted)) == len(accepted)
    assert {read(api, job_id)["id"] for job_id in accepted} == set(accepted)
    for job_id in accepted:
        api.post(f"/v1/jobs/{job_id}/cancel")
    wait_for_end(api, running["id"])


def test_everything_killed_and_started_again_finishes_the_job(api, cluster, running):
    cluster.kill_everything()
    cluster.start()
    assert_one_result(api, cluster, wait_for_end(api, running["id"]), ["worker_lost", "succeeded"])


def test_a_redeploy_lets_the_running_job_end(api, cluster, running):
    source, target = (running["spec"][role]["file_id"] for role in ("source", "target"))
    api.post(f"/v1/jobs/{running['id']}/cancel")
    # However long the application takes to be built, one of them is at work when the replicas are rolled.
    jobs = [submit(api, source, target, output={"resolution": "1920x1080"}) for _ in range(10)]
    wait_for(api, jobs[0]["id"], lambda seen: frames_done(seen) > 5)
    cluster.redeploy({"slots": 2})
    waiting = [job["id"] for job in jobs if read(api, job["id"])["status"] == "queued"]
    for job_id in waiting:
        api.post(f"/v1/jobs/{job_id}/cancel")
    for job in jobs:
        ended = wait_for_end(api, job["id"])
        if ended["status"] != "cancelled" or job["id"] not in waiting:
            assert_one_result(api, cluster, ended, ["succeeded"])
    drained = [line for path in cluster.logs("serve/replica_atelier_FaceSwap_*.log") for line in path.read_text().splitlines()]
    assert any('"action": "drain_started"' in line and '"jobs": 1' in line for line in drained)  # it was caught at work


def test_a_store_of_another_config_takes_over_and_loses_nothing(api, cluster, running):
    replaced = cluster.python(REPLACE_STORE, "3")
    assert replaced.returncode == 0, replaced.stderr
    assert_one_result(api, cluster, wait_for_end(api, running["id"]), ["succeeded"])
    assert cluster.python(REPLACE_STORE, "10000").returncode == 0
