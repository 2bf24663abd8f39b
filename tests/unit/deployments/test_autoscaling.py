"""The scaling rule as arithmetic, and the policy's manners inside Serve's controller."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from deployments.autoscaling import STALE_AFTER_S, DepthPolicy, desired_replicas
from deployments.jobs.model import Depth


def depth(queued=0, running=0, uploading=0, estimated=None, estimate_s=0.0) -> Depth:
    return Depth(queued, running, uploading, 0.0, queued if estimated is None else estimated, estimate_s)


@pytest.mark.parametrize(
    ("load", "slots", "target_wait_s", "expected"),
    [
        (depth(), 1, None, 0),
        (depth(queued=1), 1, None, 1),  # wakes from zero
        (depth(running=2), 1, None, 2),  # busy replicas are wanted
        (depth(running=2, uploading=2), 1, None, 0),  # their slots are free again
        (depth(queued=5, running=2), 2, None, 4),
        (depth(queued=10, estimate_s=5.0), 1, 30.0, 1),  # ten short pictures are one replica's work
        (depth(queued=2, estimate_s=1200.0), 1, 60.0, 2),  # never more replicas than jobs
        (depth(queued=3, running=1, estimate_s=90.0), 1, 45.0, 3),
        (depth(queued=3, estimated=1, estimate_s=10.0), 1, 100.0, 3),  # nobody knows how long the other two take
    ],
)
def test_desired_replicas(load, slots, target_wait_s, expected):
    assert desired_replicas(load, slots=slots, target_wait_s=target_wait_s)[0] == expected


def context(target: int) -> SimpleNamespace:
    return SimpleNamespace(current_num_replicas=target, target_num_replicas=target)


async def test_the_policy_holds_when_the_store_is_silent(monkeypatch):
    def gone(*_args, **_kwargs):
        raise ValueError("no such actor")

    monkeypatch.setattr("deployments.autoscaling.ray.get_actor", gone)
    policy = DepthPolicy("faceswap")
    assert policy(context(3)) == (3, {})
    await policy._task
    assert policy(context(3)) == (3, {})


class Method:
    def __init__(self, answer):
        self.answer = answer
        self.calls = []

    def remote(self, *args):
        self.calls.append(args)

        async def answer():
            return self.answer

        return answer()


async def test_the_policy_asks_the_store_and_reports_its_reason(monkeypatch):
    store = SimpleNamespace(depth=Method(depth(queued=4)), record_scaling=Method(None))
    monkeypatch.setattr("deployments.autoscaling.ray.get_actor", lambda *_args, **_kwargs: store)
    policy = DepthPolicy("faceswap", slots=2)
    policy(context(0))
    await policy._task
    assert policy(context(0)) == (2, {})
    decision = store.record_scaling.calls[0][0]
    assert (decision.pool, decision.current, decision.desired, decision.reason) == (
        "faceswap",
        0,
        2,
        "4 queued + 0 computing, 2 slots a replica",
    )


async def test_the_policy_holds_on_an_old_answer(monkeypatch):
    policy = DepthPolicy("faceswap")
    policy._depth, policy._answered = depth(), time.monotonic() - STALE_AFTER_S - 1
    policy._asked = time.monotonic() + 60
    assert policy(context(2)) == (2, {})
