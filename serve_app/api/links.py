"""Addresses of things in this API, absolute, as the client can reach them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from deployments.jobs.keys import ROUTE
from serve_app.api.signing import LinkSigner


class Stored(Protocol):
    """A file that lies in the object store: an upload or an output."""

    @property
    def key(self) -> str:
        """Where it lies."""


@dataclass(frozen=True, slots=True)
class Links:
    """Builds URLs below one base."""

    base: str  # without a slash at its end
    files_url: str | None = None  # of the public bucket, without a slash at its end
    signer: LinkSigner | None = None

    def job(self, job_id: str) -> str:
        """Return the URL of a job."""
        return f"{self.base}/v1/jobs/{job_id}"

    def events(self, job_id: str) -> str:
        """Return the URL of a job's event stream."""
        return f"{self.base}/v1/jobs/{job_id}/events"

    def file(self, file_id: str, stored: Stored) -> str:
        """Return the URL of a file's bytes: in the bucket where that is public, else here, with a signature where links are signed."""
        if self.files_url is not None and not stored.key.startswith(ROUTE):  # those lie in another store
            return f"{self.files_url}/{quote(stored.key)}"
        query = f"?{self.signer.sign(file_id)}" if self.signer is not None else ""
        return f"{self.base}/v1/files/{file_id}{query}"

    def direct_upload(self, upload_id: str) -> str:
        """Return the URL that completes an upload to the bucket."""
        return f"{self.base}/v1/files/direct/{upload_id}/complete"

    def workflow(self, name: str) -> str:
        """Return the URL of a workflow."""
        return f"{self.base}/v1/workflows/{name}"
