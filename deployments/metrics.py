"""The job system's metrics on Ray's Prometheus endpoint.

Serve's own queue metrics are blind to a queue that replicas pull from; these are what to watch and to alert on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.serve.metrics import Counter, Gauge, Histogram

# Pictures take a tenth of a second, long videos an hour.
SECONDS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600]


@dataclass(frozen=True, slots=True)
class _Metric:
    description: str
    tags: Any = ("pool",)  # a tuple of str of any length, which Ray's own annotation leaves no room for


COUNTERS = {
    "jobs_created": _Metric("jobs accepted", ("pool", "kind")),
    "attempts_started": _Metric("claims answered with a job"),
    "attempts_ended": _Metric(
        "attempts by outcome: succeeded, cancelled, released or an error code; worker_lost is a lost worker", ("pool", "outcome")
    ),
    "orphans_removed": _Metric("files that a killed process left, removed by the sweep", ("place",)),
    "orphan_bytes_removed": _Metric("their bytes", ("place",)),
    "retention_removed": _Metric("what was removed by age: jobs, files (results and uploads), bytes", ("what",)),
    "sketches": _Metric("sketches by outcome: received, and of those dropped for a newer one, skipped as unchanged, refused", ("outcome",)),
    "webhook_tries": _Metric("webhook tries by result: delivered, failed (tried again), dead (given up)", ("result",)),
    "heartbeats_refused": _Metric("heartbeats of attempts that no longer held their lease", ()),
}
GAUGES = {
    "jobs_queued": _Metric("jobs that wait and may run now"),
    "jobs_running": _Metric("jobs with a live lease"),
    "oldest_queued_age_s": _Metric("age of the job that waits longest"),
    "webhooks_waiting": _Metric("webhook deliveries that have not ended", ()),
    "webhook_lag_s": _Metric("age of the oldest of them", ()),
    "backends_healthy": _Metric("ComfyUI servers that a bridge replica drives and finds healthy", ()),
    "duix_services_healthy": _Metric("Duix services that answer and need no restart", ()),
}
HISTOGRAMS = {
    "job_wait_s": _Metric("from acceptance to the first claim"),
    "stage_s": _Metric("time of a job's stage", ("pool", "stage")),
    "webhook_delay_s": _Metric("from an event to its delivery", ()),
    "stroke_to_preview_s": _Metric("from a sketch's arrival to the first preview of it or of a newer one", ()),
    "stroke_to_result_s": _Metric("the same to the picture", ()),
}


class ServeMetrics:
    """Implements :class:`deployments.jobs.ports.Metrics`; every name is one of the tables above, prefixed ``atelier_``."""

    def __init__(self) -> None:
        self._counters = {name: Counter(f"atelier_{name}", m.description, m.tags) for name, m in COUNTERS.items()}
        self._gauges = {name: Gauge(f"atelier_{name}", m.description, m.tags) for name, m in GAUGES.items()}
        self._histograms = {name: Histogram(f"atelier_{name}", m.description, SECONDS, m.tags) for name, m in HISTOGRAMS.items()}

    def count(self, name: str, value: float = 1.0, **tags: str) -> None:
        """Add to a counter."""
        self._counters[name].inc(value, tags)

    def gauge(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge."""
        self._gauges[name].set(value, tags)

    def observe(self, name: str, value: float, **tags: str) -> None:
        """Record one sample in seconds."""
        self._histograms[name].observe(value, tags)
