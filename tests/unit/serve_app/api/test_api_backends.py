"""ComfyUI servers over HTTP."""

from __future__ import annotations

import pytest

from deployments.jobs.model import BackendHealth, BackendSpec

PATH = "/v1/admin/backends"
ADDED = {"url": "http://gpu2:8188", "name": "second", "tags": ["sdxl"], "weight": 2.5, "in_flight": 1}


async def test_backends_show_who_is_held_and_how_it_is(client, store):
    await store.configure_backends([BackendSpec("first", "http://gpu1:8188", ("flux",))])
    await store.hold_backends("replica-1", {}, ())
    health = BackendHealth(healthy=True, version="0.33.0", in_flight=1, queue_remaining=2, model="m", checked_at=1_800_000_000.0)
    await store.hold_backends("replica-1", {"first": health}, ())
    assert (await client.get(PATH)).json() == {
        "backends": [
            {
                "name": "first",
                "url": "http://gpu1:8188",
                "tags": ["flux"],
                "weight": 1.0,
                "in_flight": 2,
                "configured": True,
                "draining": False,
                "held": True,
                "health": {
                    "healthy": True,
                    "reason": "",
                    "version": "0.33.0",
                    "fake": False,
                    "in_flight": 1,
                    "queue_remaining": 2,
                    "model": "m",
                    "checked_at": "2027-01-15T08:00:00Z",
                },
            }
        ]
    }


async def test_backend_is_added_and_removed(client):
    added = await client.post(PATH, json=ADDED)
    assert added.status_code == 201
    assert added.json() == ADDED | {"configured": False, "draining": False, "held": False, "health": None}
    assert (await client.get(PATH)).json()["backends"] == [added.json()]
    removed = await client.delete(f"{PATH}/second")
    again = await client.delete(f"{PATH}/second")
    assert (removed.status_code, removed.content) == (204, b"")
    assert (again.status_code, again.json()["code"]) == (404, "backend_not_found")


async def test_backend_is_drained_and_resumed(client):
    await client.post(PATH, json=ADDED)
    drained = await client.post(f"{PATH}/second/drain")
    resumed = await client.post(f"{PATH}/second/resume")
    assert [(r.status_code, r.json()["draining"]) for r in (drained, resumed)] == [(200, True), (200, False)]


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/x"), ("POST", "/x/drain"), ("POST", "/x/resume")])
async def test_backend_that_is_not_there(client, method, path):
    response = await client.request(method, PATH + path)
    assert (response.status_code, response.json()["code"]) == (404, "backend_not_found")


async def test_backend_of_the_settings_cannot_be_removed_nor_its_name_taken(client, store):
    await store.configure_backends([BackendSpec("second", "http://gpu1:8188")])
    for response in (await client.delete(f"{PATH}/second"), await client.post(PATH, json=ADDED)):
        assert (response.status_code, response.json()["code"]) == (409, "name_taken")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"url": "http://10.0.0.7:8188"}, "url_not_allowed"),
        ({"url": "ftp://gpu2"}, "invalid_input"),
        ({"url": "http://gpu2:8188#weight=9"}, "invalid_input"),
        ({"url": "http://user:secret@gpu2"}, "invalid_input"),
        ({"url": ""}, "invalid_input"),
        ({"name": "Not A Name"}, "invalid_input"),
        ({"tags": ["a&b"]}, "invalid_input"),
        ({"tags": ["a", "b", "c", "d", "e", "f", "g"]}, "invalid_input"),
        ({"weight": 0}, "invalid_input"),
        ({"in_flight": 3}, "invalid_input"),
        ({"wieght": 1}, "invalid_input"),
    ],
)
async def test_backend_that_cannot_be_added(client, changes, code):
    response = await client.post(PATH, json=ADDED | changes)
    assert (response.status_code, response.json()["code"]) == (422, code)
    assert "secret" not in response.text
    assert (await client.get(PATH)).json()["backends"] == []


@pytest.mark.parametrize("action", ["drain", "resume"])
async def test_drain_takes_no_body(client, action):
    assert (await client.post(f"{PATH}/x/{action}", content=b"{}")).status_code == 413
