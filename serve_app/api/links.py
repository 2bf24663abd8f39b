"""Addresses of things in this API, absolute, as the client can reach them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Links:
    """Builds URLs below one base."""

    base: str  # without a slash at its end

    def job(self, job_id: str) -> str:
        """Return the URL of a job."""
        return f"{self.base}/v1/jobs/{job_id}"

    def events(self, job_id: str) -> str:
        """Return the URL of a job's event stream."""
        return f"{self.base}/v1/jobs/{job_id}/events"

    def file(self, file_id: str) -> str:
        """Return the URL of a file's bytes."""
        return f"{self.base}/v1/files/{file_id}"

    def workflow(self, name: str) -> str:
        """Return the URL of a workflow."""
        return f"{self.base}/v1/workflows/{name}"
