"""Swap a face from another Ray job: through the ingress' DeploymentHandle, without HTTP.

The handle has the verbs of the HTTP API: ``submit``, ``get``, ``list_jobs``, ``cancel`` and ``watch``. They take and return plain JSON
values, so that the calling job needs none of Atelier's classes. Media go by reference: the URL of a picture or video, or the id of a
file (an upload of ``POST /v1/files``, or an output of another job).

On the head node of the cluster that runs Atelier::

    python examples/submit_from_ray_job.py https://example.com/me.jpg https://example.com/film.mp4

From elsewhere, as a Ray job::

    ray job submit --address http://127.0.0.1:8265 --working-dir examples -- \
        python submit_from_ray_job.py https://example.com/me.jpg https://example.com/film.mp4

It prints the events as they come and at the end one line of JSON for each result. Exit status 1: the job did not succeed.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle


def main() -> int:
    """Submit, watch, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="URL or file id of a picture with the face")
    parser.add_argument("target", help="URL or file id of the picture or video that it goes into")
    parser.add_argument("--app", default="atelier", help="name of the Serve application")
    arguments = parser.parse_args()
    ray.init(address="auto", log_to_driver=False)
    job = swap(serve.get_app_handle(arguments.app), arguments.source, arguments.target)
    if job["status"] != "succeeded":
        print(f"{job['status']}: {job['error']}", file=sys.stderr)
        return 1
    for output in job["outputs"]:
        print(json.dumps(output))
    return 0


def swap(ingress: DeploymentHandle[Any], source: str, target: str) -> dict[str, Any]:
    """Run one face swap to its end and return the job."""
    job = ingress.submit.remote({"kind": "faceswap", "source": source, "target": target}).result()
    events: Any = ingress.options(stream=True).watch.remote(job["id"])  # Ray's types do not say that it is a stream then
    for event in events:
        progress = event["progress"]
        print(event["status"] if progress is None else f"{progress['stage']} {progress['fraction']:.0%}", file=sys.stderr)
    ended: dict[str, Any] = ingress.get.remote(job["id"]).result()
    return ended


if __name__ == "__main__":
    sys.exit(main())
