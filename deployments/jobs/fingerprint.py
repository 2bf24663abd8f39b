"""What makes two requests the same: a hash of what the client sent.

It is taken from the request and not from the stored spec, so that it can be compared before anything that the request refers to is
looked at: a file may have been deleted since the first time.
"""

from __future__ import annotations

import hashlib
import json

from deployments.jobs.model import JsonObject
from deployments.jobs.options import JobOptions
from deployments.jobs.spec import InlineRef, JobSpec


def fingerprint_of_submit(spec: JobSpec, options: JobOptions) -> str:
    """Hash a submit, a client-made id included. Defaults are left out: a field that a later release adds changes no fingerprint."""
    asked = {"kind": spec.kind, **spec.model_dump(mode="json", exclude_defaults=True)}
    for name in type(spec).model_fields:
        if isinstance(getattr(spec, name), InlineRef):
            asked[name]["base64"] = hashlib.sha256(asked[name]["base64"].encode()).hexdigest()  # not megabytes of JSON
    return _hash({"spec": asked, "options": options.model_dump(mode="json", exclude_defaults=True)})


def fingerprint_of_retry(job_id: str) -> str:
    """Hash the wish to run a job again."""
    return _hash({"retry_of": job_id})


def _hash(request: JsonObject) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
