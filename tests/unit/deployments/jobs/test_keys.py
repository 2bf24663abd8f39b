"""Keys of results."""

from __future__ import annotations

import dataclasses

import pytest

from deployments.jobs.config import RunnerConfig
from deployments.jobs.keys import DEFAULT_KEY_TEMPLATE, check_key_template, key_of
from deployments.jobs.model import Job
from deployments.storage.base import check_key

JOB = object.__new__(Job)
VALUES = {"id": "j1", "tenant": "default", "kind": "faceswap", "attempt": 2, "spec": {}, "created_at": 1_764_201_599.0}
for _field in dataclasses.fields(Job):
    object.__setattr__(JOB, _field.name, VALUES.get(_field.name))


@pytest.mark.parametrize(
    ("template", "name", "key"),
    [
        (DEFAULT_KEY_TEMPLATE, "result.png", "artifacts/default/j1/2/result.png"),
        (DEFAULT_KEY_TEMPLATE, "a.tar.gz", "artifacts/default/j1/2/a.tar.gz"),
        (DEFAULT_KEY_TEMPLATE, "plain", "artifacts/default/j1/2/plain"),
        ("{tenant}/{date}/{job_id}/{attempt}/{name}.{ext}", "result.mp4", "default/2025-11-26/j1/2/result.mp4"),
        ("out/{kind}/{job_id}-{attempt}-{name}.{ext}", "r.mp4", "out/faceswap/j1-2-r.mp4"),
    ],
)
def test_a_result_has_the_key_that_the_template_says(template, name, key):
    check_key_template(template)
    assert key_of(template, JOB, name) == check_key(key)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{tenant}/{job_id}/{name}.{ext}", "lacks attempt"),
        ("{tenant}/{attempt}/{name}", "lacks ext, job_id"),
        ("{job_id}/{attempt}/{name}.{ext}/{user}", "has user"),
        ("{job_id}/{attempt}/{name}.{ext}{0}", "has 0"),
        ("{job_id}/{attempt}/{name}.{ext}{", "malformed"),
        ("{job_id:>300}/{attempt}/{name}.{ext}", "letters, digits|without"),
        ("/{job_id}/{attempt}/{name}.{ext}", "letters, digits"),
        ("../{job_id}/{attempt}/{name}.{ext}", "letters, digits"),
        ("a//{job_id}/{attempt}/{name}.{ext}", "letters, digits"),
        ("a b/{job_id}/{attempt}/{name}.{ext}", "letters, digits"),
        ("uploads/{job_id}/{attempt}/{name}.{ext}", "does not begin with"),
        ("incoming/{job_id}/{attempt}/{name}.{ext}", "does not begin with"),
        ("@gcs/{job_id}/{attempt}/{name}.{ext}", "does not begin with"),
        ("", "lacks"),
    ],
)
def test_a_template_by_which_results_would_meet_is_refused_at_start(template, why):
    with pytest.raises(ValueError, match=why):
        RunnerConfig(key_template=template)


def test_a_store_that_the_job_has_chosen_begins_the_key():
    chosen = dataclasses.replace(JOB, spec={"storage": "gcs"})
    assert key_of(DEFAULT_KEY_TEMPLATE, chosen, "result.png") == check_key("@gcs/artifacts/default/j1/2/result.png")
