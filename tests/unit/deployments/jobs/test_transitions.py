"""Every pair of states: what is legal happens, what is not is refused."""

from __future__ import annotations

import pytest

from deployments.jobs import transitions
from deployments.jobs.errors import Conflict
from deployments.jobs.model import Artifact, Job, JobError, JobStatus

FLAKY = JobError("fetch_failed", "hung up", retryable=True)
LOST_BACKEND = JobError("backend_lost", "the server forgot the prompt", retryable=True)


def job(status: JobStatus = JobStatus.QUEUED, **changes) -> Job:
    values = {
        "id": "j", "tenant": "default", "kind": "faceswap", "pool": "faceswap", "spec": {}, "requires": None, "status": status, "attempt": 0,
        "max_attempts": 3, "priority": 0, "timeout_s": 60.0, "created_at": 0.0, "not_before": None, "started_at": None, "finished_at": None,
        "idempotency_key": None, "coalesce_key": None, "coalesce_seq": None, "parent_id": None, "retry_of": None, "estimate_s": None, "webhook": None, "labels": {},
        "cancel_requested": False, "owner": None, "lease_until": None, "progress": None, "outputs": (), "error": None, "attempts": (), "timings": {},
    }  # fmt: skip
    return Job(**(values | changes))


MOVES = {
    "claim": (lambda j: transitions.claim(j, owner="r", now=1.0, lease_until=2.0), {JobStatus.QUEUED}),
    "succeed": (lambda j: transitions.succeed(j, outputs=(), timings={}, now=1.0), {JobStatus.RUNNING}),
    "cancel": (lambda j: transitions.cancel(j, now=1.0), {JobStatus.QUEUED, JobStatus.RUNNING}),
    "release": (lambda j: transitions.release(j, now=1.0), {JobStatus.RUNNING}),
    "fail": (lambda j: transitions.fail(j, FLAKY, timings={}, now=1.0, backoff_s=1.0), {JobStatus.RUNNING}),
    "lose": (lambda j: transitions.lose(j, now=1.0, heard=True), {JobStatus.RUNNING}),
}


@pytest.mark.parametrize("status", JobStatus)
@pytest.mark.parametrize("move", MOVES)
def test_moves_are_refused_from_every_other_state(move, status):
    apply, legal = MOVES[move]
    if status in legal:
        assert apply(job(status)).status is not status
    else:
        with pytest.raises(Conflict):
            apply(job(status))


def fail_until_final(current: Job, errors: list[JobError | None]) -> Job:
    """Claim and end attempts in turn; None is a lost worker."""
    for error in errors:
        current = transitions.claim(current, owner="r", now=0.0, lease_until=1.0)
        current = (
            transitions.lose(current, now=1.0, heard=True)
            if error is None
            else transitions.fail(current, error, timings={}, now=1.0, backoff_s=2.0)
        )
    return current


def test_lost_workers_and_errors_are_counted_apart():
    almost = fail_until_final(job(), [None, FLAKY, None, FLAKY])
    assert almost.status is JobStatus.QUEUED
    assert fail_until_final(almost, [None]).error.code == "worker_lost"
    assert fail_until_final(almost, [FLAKY]).error.code == "fetch_failed"


def test_back_off_doubles_for_errors_and_is_nothing_for_lost_workers():
    waits = [fail_until_final(job(max_attempts=9), [FLAKY] * n).not_before for n in (1, 2, 3, 8)]
    assert waits == [3.0, 5.0, 9.0, 61.0]
    assert fail_until_final(job(), [None]).not_before is None


def test_lost_backends_count_with_lost_workers():
    almost = fail_until_final(job(), [None, LOST_BACKEND, FLAKY, FLAKY])
    assert (almost.status, almost.attempt) == (JobStatus.QUEUED, 4)
    for last, code in ((None, "worker_lost"), (LOST_BACKEND, "backend_lost"), (FLAKY, "fetch_failed")):
        ended = fail_until_final(almost, [last])
        assert (ended.status, ended.error.code) == (JobStatus.FAILED, code)


def test_a_lost_backend_is_tried_again_without_back_off():
    assert fail_until_final(job(), [LOST_BACKEND, LOST_BACKEND]).not_before is None


def test_outputs_of_a_failure_come_only_with_the_end():
    made = Artifact("f", "a.png", "image/png", "local://a.png", 1, "0" * 64)
    running = job(JobStatus.RUNNING, attempt=1)
    fatal = JobError("comfy_node_failed", "node 9 failed")
    for current, error, outputs in (
        (running, fatal, (made,)),
        (running, FLAKY, ()),
        (transitions.request_cancel(running), fatal, ()),
    ):
        ended = transitions.fail(current, error, timings={}, now=1.0, backoff_s=1.0, outputs=[made])
        assert ended.outputs == outputs


def test_a_cancel_wins_over_every_way_back_to_the_queue():
    running = transitions.request_cancel(job(JobStatus.RUNNING, attempt=1))
    for ended in (
        transitions.lose(running, now=1.0, heard=True),
        transitions.lose(running, now=1.0, heard=False),
        transitions.release(running, now=1.0),
        transitions.fail(running, FLAKY, timings={}, now=1.0, backoff_s=1.0),
    ):
        assert ended.status is JobStatus.CANCELLED


def test_claim_raises_the_fencing_token():
    claimed = transitions.claim(job(attempt=4), owner="r", now=7.0, lease_until=22.0)
    assert (claimed.attempt, claimed.owner, claimed.started_at, claimed.lease_until) == (5, "r", 7.0, 22.0)


def test_a_claim_of_a_dead_worker_is_nobodys_failure_but_not_for_ever():
    current = job(max_attempts=1)
    for _ in range(transitions.MAX_NOT_STARTED):
        claimed = transitions.claim(current, owner="r", now=0.0, lease_until=1.0)
        current = transitions.lose(claimed, now=1.0, heard=False)
        assert current.status is JobStatus.QUEUED
    claimed = transitions.claim(current, owner="r", now=0.0, lease_until=1.0)
    assert transitions.lose(claimed, now=1.0, heard=False).error.code == "worker_lost"
