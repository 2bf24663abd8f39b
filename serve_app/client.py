"""A client of the HTTP API, for the command line and the demo: upload, submit, follow, download.

Jobs, events and workflows are the API's own JSON objects (``JobView`` and ``EventView`` of ``serve_app.api.schemas``, ``WorkflowView``
of ``serve_app.api.workflow_schemas``).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote

import httpx

JsonObject = dict[str, Any]  # JSON has no static shape; the API's schema says what is in it

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
CONNECT_TIMEOUT_S = 5.0
TIMEOUT_S = 60.0  # the longest silence within a request; event streams send a comment every 15 s

Advance = Callable[[int], None]  # called with the bytes that went over the wire since the last call


class ApiError(Exception):
    """A request that failed, in one sentence for people.

    Attributes:
        code: stable code of the problem document; ``unreachable`` without an answer, ``unexpected_answer`` without a problem document.
        status: HTTP status, 0 without an answer.
        nodes: what is wrong with which nodes of a workflow (``NodeProblemView`` of ``serve_app.api.errors``); else empty.
    """

    def __init__(self, message: str, code: str, status: int = 0, nodes: Sequence[JsonObject] = ()) -> None:
        super().__init__(message, code, status, tuple(nodes))
        self.code = code
        self.status = status
        self.nodes = tuple(nodes)

    def __str__(self) -> str:
        return str(self.args[0])


class Client:
    """Talks to one server. Not for several threads at once."""

    def __init__(
        self,
        server_url: str,
        *,
        transport: httpx.BaseTransport | None = None,
        reconnect_s: float = 1.0,
        patience_s: float = 60.0,
    ) -> None:
        """Connect lazily: nothing is sent yet.

        Args:
            server_url: such as ``http://127.0.0.1:8000``.
            transport: what carries the requests; None for the network.
            reconnect_s: pause before a broken event stream is opened again.
            patience_s: how long an event stream may be away before that is an error.
        """
        self.server_url = server_url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.server_url,
            timeout=httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            transport=transport,
            headers={"User-Agent": "atelier"},
        )
        self._reconnect_s = reconnect_s
        self._patience_s = patience_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def is_atelier(self) -> bool:
        """Whether an Atelier service answers there."""
        try:
            answer = self._http.get("/v1/capabilities", timeout=CONNECT_TIMEOUT_S)
            return answer.is_success and "engines" in answer.json()
        except (httpx.TransportError, ValueError):
            return False

    def ready(self) -> bool:
        """Whether the service accepts work now."""
        try:
            return self._http.get("/ready", timeout=CONNECT_TIMEOUT_S).is_success
        except httpx.TransportError:
            return False

    def capabilities(self) -> JsonObject:
        """Read what the service can do."""
        return self._json("GET", "/v1/capabilities")

    def workflows(self) -> JsonObject:
        """List the workflows, and which files of the installation's folder could not be read."""
        return self._json("GET", "/v1/workflows")

    def workflow(self, name: str) -> JsonObject:
        """Read a workflow; ``name@3`` is version 3.

        Raises:
            ApiError: there is none of that name.
        """
        return self._json("GET", f"/v1/workflows/{quote(name, safe='@')}")

    def to_reference(self, media: str, advance: Advance | None = None) -> str:
        """Return what a request may carry for ``media``: a local file is uploaded, a URL or a file id stays as it is.

        Raises:
            ApiError: there is no such file, or the upload failed.
        """
        if path := local_file(media):
            return str(self.upload(path, advance)["file_id"])
        if "://" in media or _is_uuid(media):
            return media
        raise ApiError(f"{media} is no file here, no URL and no file id", "no_such_file")

    def upload(self, path: Path, advance: Advance | None = None) -> JsonObject:
        """Stream a local file to the server and return its FileView."""
        with _CountedFile(path, advance) as file:
            # The type that says nothing: the server goes by content, and the one that httpx takes from the name may be wrong.
            return self._json("POST", "/v1/files", files={"file": (path.name, file, "application/octet-stream")})

    def submit(self, request: Mapping[str, Any]) -> JsonObject:
        """Submit a job, given the body of ``POST /v1/jobs``; a lost answer is asked for once more and makes no second job."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        try:
            return self._json("POST", "/v1/jobs", json=dict(request), headers=headers)
        except ApiError as error:
            if not _may_pass(error):
                raise
        time.sleep(self._reconnect_s)
        return self._json("POST", "/v1/jobs", json=dict(request), headers=headers)

    def get(self, job_id: str) -> JsonObject:
        """Read a job."""
        return self._json("GET", f"/v1/jobs/{job_id}")

    def list_jobs(self, **filters: str | int | None) -> JsonObject:
        """List jobs, newest first; filters as in ``GET /v1/jobs``, those that are None left out."""
        return self._json("GET", "/v1/jobs", params={name: value for name, value in filters.items() if value is not None})

    def cancel(self, job_id: str) -> JsonObject:
        """Cancel a job and return it."""
        return self._json("POST", f"/v1/jobs/{job_id}/cancel")

    def events(self, job_id: str) -> Iterator[JsonObject]:
        """Follow a job: yield all its state changes so far, then what happens, until it has ended.

        A stream that breaks is opened again after the last event seen, for as long as ``patience_s`` allows.

        Raises:
            ApiError: there is no such job, or the server stayed away.
        """
        last_id: str | None = None
        give_up_at: float | None = 0.0  # None while connected; the first connection has to succeed at once
        while True:
            try:
                with self._event_stream(job_id, last_id) as stream:
                    if stream is None:
                        return
                    give_up_at = None
                    for event in stream:
                        last_id = event["id"]
                        yield event
                        if event["type"] == "state" and event["status"] in TERMINAL:
                            return
            except ApiError as error:
                give_up_at = time.monotonic() + self._patience_s if give_up_at is None else give_up_at
                if not _may_pass(error) or time.monotonic() > give_up_at:
                    raise
            time.sleep(self._reconnect_s)

    def download(self, output: Mapping[str, Any], path: Path, advance: Advance | None = None) -> Path:
        """Fetch one output of a job to ``path``: whole and with the right SHA-256, or not at all.

        Raises:
            ApiError: the download failed, or brought other bytes than the job promised.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            sha256 = self._fetch(self._path_of(output), part, advance)
            if sha256 != output["sha256"]:
                raise ApiError(f"{path.name} arrived with other bytes than the job promised: try again", "wrong_bytes")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def _path_of(self, output: Mapping[str, Any]) -> str:
        """Return the path of an output at the server we talk to, by whatever name it calls itself; of a file elsewhere the URL."""
        url = httpx.URL(str(output["url"]))
        own = f"/v1/files/{output['file_id']}"
        if not url.path.endswith(own):
            return str(url)
        return f"{own}?{url.query.decode()}" if url.query else own

    def _fetch(self, url: str, path: Path, advance: Advance | None) -> str:
        digest = hashlib.sha256()
        with self._reachable(), self._http.stream("GET", url, follow_redirects=True) as answer, path.open("xb") as file:
            _check(answer)
            for chunk in answer.iter_bytes():
                file.write(chunk)
                digest.update(chunk)
                if advance:
                    advance(len(chunk))
        return digest.hexdigest()

    @contextlib.contextmanager
    def _event_stream(self, job_id: str, last_id: str | None) -> Iterator[Iterator[JsonObject] | None]:
        """Open a job's events after ``last_id``; None when nothing came after it and nothing will."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        with self._reachable(), self._http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
            _check(answer)
            ended = answer.status_code == httpx.codes.NO_CONTENT
            yield None if ended else map(json.loads, read_events(answer.iter_bytes()))

    def _json(self, method: str, url: str, **options: Any) -> JsonObject:  # noqa: ANN401 -- httpx' own options
        with self._reachable():
            answer = self._http.request(method, url, **options)
        _check(answer)
        return cast("JsonObject", answer.json())

    @contextlib.contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ApiError(f"no answer from {self.server_url} ({reason}): is the service running?", "unreachable") from error


def local_file(text: str) -> Path | None:
    """Return the file here that a text names; None when it names none, as a URL or an id does."""
    try:
        path = Path(text).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError):  # too long for a name; in the home of nobody
        return None


def read_events(chunks: Iterator[bytes]) -> Iterator[str]:
    """Yield the data of each server-sent event (WHATWG HTML, section 9.2); comments and events without data are skipped."""
    data: list[str] = []
    for line in _lines(chunks):
        name, _, value = line.partition(":")
        if line and name == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data.clear()


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    # Not httpx' iter_lines: it also splits at U+2028 and the like, which JSON leaves as they are.
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.removesuffix(b"\r").decode() for line in whole)


def _check(answer: httpx.Response) -> None:
    """Turn a problem document into an error.

    Raises:
        ApiError: the status is none of success.
    """
    if answer.is_success:
        return
    answer.read()
    try:
        problem = answer.json()
        message, code = str(problem["detail"]), str(problem["code"])
    except (ValueError, KeyError, TypeError):
        raise ApiError(
            f"the server answered {answer.status_code} {answer.reason_phrase}", "unexpected_answer", answer.status_code
        ) from None
    nodes = problem.get("nodes", ())
    # What is wrong with a workflow's inputs stands in both lists; the nodes' says more.
    where = "" if nodes else "; ".join(f"{error['pointer']}: {error['detail']}" for error in problem.get("errors", ()))
    raise ApiError(f"{message} ({where})" if where else message, code, answer.status_code, nodes)


def _may_pass(error: ApiError) -> bool:
    return error.status == 0 or error.status >= httpx.codes.INTERNAL_SERVER_ERROR


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


class _CountedFile(io.FileIO):
    """A file that tells how much of it has been read."""

    def __init__(self, path: Path, advance: Advance | None) -> None:
        super().__init__(path, "rb")
        self._advance = advance

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size) or b""
        if self._advance:
            self._advance(len(data))
        return data
