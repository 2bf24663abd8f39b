"""How many replicas a pool wants, from the depth of its queue.

Serve instantiates the policy once in its controller and calls it every tick of the control loop (0.1 s): it must never block and never
raise, so the store is asked by one-shot tasks and the newest answer is used.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import ray
from ray.serve.config import AutoscalingContext

from deployments.job_store import ACTOR_NAME, NAMESPACE
from deployments.jobs.model import Depth, ScalingDecision

ANSWER_TIMEOUT_S = 2.0
STALE_AFTER_S = 10.0  # an older answer says nothing about now: hold


def desired_replicas(depth: Depth, *, slots: int, target_wait_s: float | None) -> tuple[int, str]:
    """Return how many replicas a pool wants, and why, in words.

    Running jobs count: a policy that looked at waiting jobs alone would stop the replicas that are busy. Jobs that only upload do not,
    their slots are free. Of the waiting jobs that carry estimates, enough replicas are asked for to start the last within
    ``target_wait_s``, but never more than there are jobs; one without an estimate gets a slot of its own.

    Args:
        depth: load of the pool.
        slots: jobs that one replica computes at once.
        target_wait_s: waiting time to aim at; None to have a slot for every job.
    """
    computing = depth.running - depth.uploading
    load = f"{depth.queued} queued + {computing} computing"
    by_count = math.ceil((depth.queued + computing) / slots)
    if target_wait_s is None or depth.estimate_s <= 0:
        return by_count, f"{load}, {slots} slots a replica"
    slots_by_time = computing + depth.queued - depth.estimated + depth.estimate_s / target_wait_s
    return min(by_count, math.ceil(slots_by_time / slots)), f"{load}, {depth.estimate_s:.0f} s of work to start within {target_wait_s:g} s"


class DepthPolicy:
    """Serve autoscaling policy of one pool. Serve clamps, smooths and delays what it answers."""

    def __init__(self, pool: str, slots: int = 1, target_wait_s: float | None = None, poll_s: float = 0.5) -> None:
        self._pool = pool
        self._slots = slots
        self._target_wait_s = target_wait_s
        self._poll_s = poll_s
        self._depth: Depth | None = None
        self._answered = -math.inf
        self._asked = -math.inf
        self._task: asyncio.Task[None] | None = None

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Answer Serve's tick with (desired replicas, state)."""
        now = time.monotonic()
        if now - self._asked >= self._poll_s and (self._task is None or self._task.done()):
            self._asked = now
            self._task = asyncio.get_running_loop().create_task(self._ask(context.current_num_replicas, context.target_num_replicas))
        return self._decide(context.target_num_replicas, now)[0], {}

    def _decide(self, current_target: int, now: float) -> tuple[int, str]:
        if self._depth is None or now - self._answered > STALE_AFTER_S:
            return current_target, "the job store is silent: hold"
        return desired_replicas(self._depth, slots=self._slots, target_wait_s=self._target_wait_s)

    async def _ask(self, current: int, target: int) -> None:
        try:
            # Looked up each time: a store that was replaced has another handle.
            store = ray.get_actor(ACTOR_NAME, namespace=NAMESPACE)
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                self._depth = await store.depth.remote(self._pool)
                self._answered = time.monotonic()
                await store.record_scaling.remote(self._decision(current, target))
        except Exception:  # noqa: BLE001, S110 -- an exception here would abort the controller's tick; a silent store means hold
            pass

    def _decision(self, current: int, target: int) -> ScalingDecision:
        desired, reason = self._decide(target, time.monotonic())
        depth = self._depth
        return ScalingDecision(
            self._pool, time.time(), current, desired, reason, queued=depth.queued if depth else 0, running=depth.running if depth else 0
        )
