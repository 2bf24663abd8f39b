"""Webhooks over HTTP: named by jobs, listed, sent again, tested."""

from __future__ import annotations

import uuid

import pytest

from deployments.jobs.webhook import Outcome

URL = "https://example.com/hooks?key=hidden"
SHOWN = "https://example.com/hooks"
JOB = {"source": "https://example.com/a.png", "target": "https://example.com/b.png"}


async def take(store):
    return await store.take_deliveries("d1", 10, 60.0, 0.0)


async def test_a_job_shows_who_is_told_and_never_a_key(client):
    answer = await client.post("/v1/jobs", json=JOB | {"webhook": {"url": URL, "events": ["job.failed"]}})
    assert answer.status_code == 202
    assert answer.json()["webhook"] == {"url": SHOWN, "events": ["job.failed"], "secret": "default"}
    assert "hidden" not in answer.text
    assert (await client.post("/v1/jobs", json=JOB)).json()["webhook"] is None


@pytest.mark.parametrize(
    ("webhook", "code"),
    [
        ({"url": "http://127.0.0.1/"}, "url_not_allowed"),
        ({"url": URL, "secret": "other"}, "webhook_refused"),
        ({"url": URL, "events": ["webhook.test"]}, "invalid_input"),
        ({"url": URL, "events": []}, "invalid_input"),
        ({"url": ""}, "invalid_input"),
    ],
)
async def test_a_receiver_that_cannot_be_told_is_refused_at_submit(client, webhook, code):
    answer = await client.post("/v1/jobs", json=JOB | {"webhook": webhook})
    assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_deliveries_are_listed_by_state_and_sent_again(client, store):
    job_id = (await client.post("/v1/jobs", json=JOB | {"webhook": {"url": URL}})).json()["id"]
    await client.post(f"/v1/jobs/{job_id}/cancel")
    (listed,) = (await client.get("/v1/webhooks/deliveries", params={"job_id": job_id})).json()["deliveries"]
    assert (listed["event"], listed["state"], listed["url"]) == ("job.cancelled", "pending", SHOWN)
    (delivery,) = await take(store)
    await store.settle_delivery(delivery, "d1", Outcome(500, "broken"))
    (dead,) = (await client.get("/v1/webhooks/deliveries", params={"state": "dead"})).json()["deliveries"]
    assert (dead["id"], dead["status_code"], dead["error"]) == (listed["id"], 500, "broken")
    again = await client.post(f"/v1/webhooks/deliveries/{dead['id']}/redeliver")
    assert (again.status_code, again.json()["state"], again.json()["url"]) == (202, "pending", SHOWN)
    for unknown in (str(uuid.uuid4()), "x"):
        answer = await client.post(f"/v1/webhooks/deliveries/{unknown}/redeliver")
        assert (answer.status_code, answer.json()["code"]) == (404, "delivery_not_found")


async def test_a_receiver_is_tested(client, store):
    answer = await client.post("/v1/webhooks/test", json={"url": URL})
    assert answer.status_code == 202
    sent = answer.json()
    assert (sent["event"], sent["state"], sent["url"], sent["job_id"]) == ("webhook.test", "pending", SHOWN, sent["id"])
    (delivery,) = await take(store)
    assert (delivery.id, delivery.url) == (sent["id"], URL)
    await store.settle_delivery(delivery, "d1", Outcome(204))
    (seen,) = (await client.get("/v1/webhooks/deliveries", params={"job_id": sent["job_id"]})).json()["deliveries"]
    assert (seen["state"], seen["status_code"]) == ("delivered", 204)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"url": "http://127.0.0.1/"}, "url_not_allowed"),
        ({"url": URL, "secret": "other"}, "webhook_refused"),
        ({}, "invalid_input"),
        ({"url": URL, "x": 1}, "invalid_input"),
    ],
)
async def test_a_receiver_that_may_not_be_tested(client, body, code):
    answer = await client.post("/v1/webhooks/test", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
