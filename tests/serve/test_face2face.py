"""Faces that speak, on a deployed cluster: natively, and by the request of an older service."""

from __future__ import annotations

import base64
import http.client
import io
import json
from typing import Any

import av
import httpx
import pytest

from tests.cluster import wait_until
from tests.jobs import read, upload_media, wait_for_end

pytestmark = pytest.mark.serve


def video_of(content: bytes) -> tuple[int, Any, Any]:
    """Return frames, and the lengths of picture and sound in seconds."""
    with av.open(io.BytesIO(content)) as container:
        frames = sum(1 for _ in container.decode(video=0))
        lengths = [stream.duration * stream.time_base for stream in container.streams if stream.duration and stream.time_base]
        return frames, float(lengths[0]), float(lengths[1])


def test_a_still_speaks(api, media):
    audio, picture = upload_media(api, media / "librivox_speech.wav"), upload_media(api, media / "astronaut.png")
    job = api.post("/v1/jobs", json={"kind": "face2face", "audio": audio, "video": picture, "options": {"fps": 10}}).json()
    done = wait_for_end(api, job["id"])
    assert (done["status"], done["attempt"]) == ("succeeded", 1), done["error"]
    (output,) = done["outputs"]
    assert (output["media_type"], output["width"], output["height"]) == ("video/mp4", 512, 512)
    frames, picture_s, sound_s = video_of(api.get(output["url"]).content)
    assert (frames, picture_s, sound_s) == (71, pytest.approx(7.1, abs=0.1), pytest.approx(7.1, abs=0.001))


def test_a_reference_is_prepared_ahead(api, media):
    answer = api.post("/v1/references", json={"video": upload_media(api, media / "woman_face.mp4")})
    assert answer.status_code == 202
    done = wait_for_end(api, answer.json()["id"])
    assert (done["kind"], done["status"]) == ("reference", "succeeded"), done["error"]
    assert api.get(done["outputs"][0]["url"]).json()["loop_frames"] == 50


def test_one_request_is_answered_with_the_whole_video(api, media_server):
    body = {"audio_url": f"{media_server}/espeak_mandarin.wav", "video_url": f"{media_server}/woman_face.mp4"}
    answer = api.post("/api/generate_video", json=body, timeout=120)
    assert answer.status_code == 200, answer.text[:500]
    told = answer.json()
    content = base64.b64decode(told["video_data"], validate=True)
    assert (told["success"], told["format"], told["size"]) == (True, "mp4", len(content))
    frames, _, sound_s = video_of(content)
    assert (frames, sound_s) == (round(sound_s * 24000 / 1001), pytest.approx(6.41, abs=0.01))


def test_what_went_wrong_is_said_in_the_same_form(api, media_server):
    body = {"audio_url": f"{media_server}/espeak_mandarin.wav", "video_url": f"{media_server}/coffee_no_face.png"}
    answer = api.post("/api/generate_video", json=body, timeout=120)
    assert (answer.status_code, answer.json()["success"]) == (422, False)
    assert "no face found" in answer.json()["error"]


def test_a_client_that_hangs_up_cancels_its_job(api, media_server):
    body = {"audio_url": f"{media_server}/librivox_speech.wav", "video_url": f"{media_server}/solvay_1927.jpg"}
    known = {job["id"] for job in jobs_of(api)}
    connection = http.client.HTTPConnection(api.base_url.host, api.base_url.port)
    connection.request("POST", "/api/generate_video", json.dumps(body), {"Content-Type": "application/json"})
    wait_until(lambda: len(jobs_of(api)) > len(known), 30, "the job was not accepted")
    (job,) = (job for job in jobs_of(api) if job["id"] not in known)
    connection.close()
    wait_until(lambda: read(api, job["id"])["status"] == "cancelled", 30, "the job was not cancelled")


def test_three_at_once_on_two_duix_services_one_of_which_dies(api, media, duix_services):
    audio, clip = upload_media(api, media / "librivox_speech.wav"), upload_media(api, media / "woman_face.mp4")
    for service in duix_services:
        service.habits.hold = True
    asked = {"kind": "face2face", "audio": audio, "video": clip, "engine": "duix"}
    jobs = [api.post("/v1/jobs", json=asked).json() for _ in range(3)]
    wait_until(lambda: all(service.tasks for service in duix_services), 60, "both services have a task")
    duix_services[0].kill()
    duix_services[1].habits.hold = False
    ended = [wait_for_end(api, job["id"]) for job in jobs]
    duix_services[0].habits.hold = False
    duix_services[0].start()
    assert [job["status"] for job in ended] == ["succeeded"] * 3, [job["error"] for job in ended]
    assert sorted(job["attempt"] for job in ended) == [1, 1, 2]
    (killed,) = (job for job in ended if job["attempt"] == 2)
    first, second = killed["attempts"]
    assert (first["outcome"], second["facts"]["backend"]) == ("backend_lost", "duix1")
    frames, picture_s, sound_s = video_of(api.get(killed["outputs"][0]["url"]).content)
    assert (frames, picture_s, sound_s) == (178, pytest.approx(7.12, abs=0.001), pytest.approx(7.1, abs=0.001))


def test_what_the_chosen_engine_cannot_do_is_refused(api):
    asked = {"kind": "face2face", "audio": "http://127.0.0.2/a.wav", "video": "http://127.0.0.2/a.mp4", "engine": "duix"}
    answer = api.post("/v1/jobs", json=asked | {"options": {"fps": 25}})
    assert (answer.status_code, "options.fps" in answer.json()["detail"]) == (422, True), answer.text
    engines = {engine["name"] for engine in api.get("/v1/capabilities").json()["engines"] if engine["kind"] == "face2face"}
    assert engines == {"mesh", "duix"}


def jobs_of(api: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get("/v1/jobs", params={"kind": "face2face", "limit": 200}).json()["jobs"]
    return found
