"""The HTTP side of one ComfyUI server: each route that the bridge needs as a method, each answer as a value.

Facts observed on ComfyUI 0.3.64 and 0.33.0. Nothing of a browser is forwarded: a foreign Origin is answered 403. What a server says
about itself (argv, tracebacks) stays here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from deployments.comfyui_client.config import ClientConfig
from deployments.jobs.errors import BackendLost, MediaTooLarge, OutputsLost
from deployments.jobs.model import JsonObject

FAKE = "atelier-fake"  # what the fake server calls its environment
CHUNK_BYTES = 256 * 1024
# AttributeError is what anyio says of a connection that is reset in the moment it is made: it asks a socket that is gone for its peer.
BROKEN = (httpx.HTTPError, httpx.InvalidURL, TimeoutError, AttributeError)
LONG_BYTES = 2**20  # of JSON: parsing as much takes ten milliseconds


class PromptRefused(Exception):
    """The server answered 400: the graph is not valid. ``body`` is its answer, not meant for clients as it is."""

    def __init__(self, body: JsonObject) -> None:
        super().__init__(body)
        self.body = body


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to a prompt."""

    number: float
    node_errors: JsonObject  # of outputs that the server leaves out although it takes the rest


@dataclass(frozen=True, slots=True)
class QueuedPrompt:
    """An entry of the server's queue."""

    prompt_id: str
    client_id: str | None  # who sent it, as far as it says


@dataclass(frozen=True, slots=True)
class ServerQueue:
    """The server's queue at one moment."""

    running: tuple[QueuedPrompt, ...]
    pending: tuple[QueuedPrompt, ...]

    def __contains__(self, prompt_id: str) -> bool:
        return any(prompt.prompt_id == prompt_id for prompt in (*self.running, *self.pending))


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """How a prompt ended, as the server remembers it."""

    outputs: JsonObject  # by node id
    completed: bool
    messages: tuple[tuple[str, JsonObject], ...]

    def message(self, kind: str) -> JsonObject | None:
        """Return the data of a message such as ``execution_error``."""
        return next((data for name, data in reversed(self.messages) if name == kind), None)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What may be said about a server."""

    version: str | None
    fake: bool


class ComfyHttp:
    """One server. Every method raises ``BackendLost`` when it does not answer as a ComfyUI server does."""

    def __init__(self, name: str, url: str, config: ClientConfig) -> None:
        """Prepare; nothing is sent.

        Args:
            name: of the backend, for messages: its address is nobody's business.
            url: ``http://host:port``.
            config: time-outs.
        """
        self._name = name
        self._config = config
        timeout = httpx.Timeout(config.request_timeout_s, connect=config.connect_timeout_s)
        self._client = httpx.AsyncClient(
            base_url=url.rstrip("/"), timeout=timeout, trust_env=False, follow_redirects=False, headers={"Accept-Encoding": "identity"}
        )
        self._has_jobs_api: bool | None = None  # since about v0.26; asked once

    async def close(self) -> None:
        """Drop the connections."""
        await self._client.aclose()

    async def submit(self, graph: JsonObject, prompt_id: str, client_id: str, extra_data: JsonObject) -> Accepted:
        """Send a prompt.

        Raises:
            PromptRefused: the graph is not valid.
        """
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": client_id, "extra_data": extra_data}
        sent = await self._send("POST", "/prompt", json=body)
        if sent.status == HTTPStatus.BAD_REQUEST:
            refused = await _parsed(sent.body)
            raise PromptRefused(refused if isinstance(refused, dict) else {})
        answer = await self._checked(sent)
        node_errors = answer.get("node_errors")
        number = answer.get("number")
        return Accepted(number if isinstance(number, int | float) else 0, node_errors if isinstance(node_errors, dict) else {})

    async def queue(self) -> ServerQueue:
        """Read the queue."""
        answer = await self._read("/queue")
        if not ("queue_running" in answer and "queue_pending" in answer):
            raise self._foreign()  # taken for an empty queue, it would make prompts look lost
        return ServerQueue(_prompts(answer["queue_running"]), _prompts(answer["queue_pending"]))

    async def history(self, prompt_id: str) -> HistoryEntry | None:
        """Read how a prompt ended; None while it waits or runs, and when the server knows nothing of it."""
        answer = await self._read(f"/history/{prompt_id}")
        entry = answer.get(prompt_id)
        return _entry(entry) if isinstance(entry, dict) else None

    async def cancel(self, prompt_id: str) -> None:
        """Stop exactly this prompt, waiting or running; no error when it has ended or was never there."""
        if self._has_jobs_api is not False:
            answer = await self._send("POST", f"/api/jobs/{prompt_id}/cancel")
            if answer.status == HTTPStatus.OK:
                self._has_jobs_api = True
                return
            if answer.status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
                self._has_jobs_api = False
        # A prompt may begin between the two, so both are sent, whatever the queue said: each names the one prompt and touches no other.
        await self._send("POST", "/queue", json={"delete": [prompt_id]})
        if any(prompt.prompt_id == prompt_id for prompt in (await self.queue()).running):
            await self._send("POST", "/interrupt", json={"prompt_id": prompt_id})

    async def object_info(self) -> JsonObject:
        """Read what nodes there are: a megabyte or more."""
        return await self._read("/object_info")

    async def system_stats(self) -> JsonObject:
        """Read what the server says of its machine, what is nobody's business included."""
        return await self._read("/system_stats")

    async def model_folders(self) -> tuple[str, ...]:
        """Read which folders of models there are."""
        return await self._names("/models")

    async def models(self, folder: str) -> tuple[str, ...]:
        """Read the models of a folder, which ``model_folders`` has named."""
        return await self._names(f"/models/{quote(folder, safe='')}")

    async def embeddings(self) -> tuple[str, ...]:
        """Read which embeddings there are."""
        return await self._names("/embeddings")

    async def info(self) -> ServerInfo:
        """Read the server's version."""
        answer = await self.system_stats()
        system = answer.get("system")
        system = system if isinstance(system, dict) else {}
        version = system.get("comfyui_version")
        return ServerInfo(version if isinstance(version, str) else None, system.get("deploy_environment") == FAKE)

    async def upload(self, path: Path, name: str, media_type: str) -> str:
        """Put a file into the server's input folder and return the name that nodes load it by.

        Overwriting makes it repeatable: without it, other bytes under the name would become ``name (1)``.

        Raises:
            MediaTooLarge: longer than the server takes.
        """
        with path.open("rb") as file:
            form = {"overwrite": "true", "type": "input"}
            sent = await self._send("POST", "/upload/image", limited=False, files={"image": (name, file, media_type)}, data=form)
        if sent.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise MediaTooLarge(f"backend {self._name} takes no input as long as this one: send less, or raise its --max-upload-size")
        answer = await self._checked(sent)
        stored, subfolder = answer.get("name"), answer.get("subfolder")
        if not isinstance(stored, str):
            raise BackendLost(f"backend {self._name} took an input and did not say under which name")
        return f"{subfolder}/{stored}" if isinstance(subfolder, str) and subfolder else stored

    async def download(self, place: Mapping[str, str], path: Path, max_bytes: int) -> int:
        """Stream an output into a file and return its length.

        Args:
            place: filename, subfolder and type as the history names them.
            path: written; not there when this raises.
            max_bytes: longest file that is taken.

        Raises:
            OutputsLost: the server has no such file any more.
            MediaTooLarge: it is longer than ``max_bytes``.
        """
        size = 0
        try:
            async with self._client.stream("GET", "/view", params=dict(place)) as response:
                if response.status_code == HTTPStatus.NOT_FOUND:
                    raise OutputsLost(f"backend {self._name} no longer has the file of an output")
                self._check_status(response.status_code)
                with path.open("wb") as file:
                    async for chunk in self._raw(response):
                        size += len(chunk)
                        if size > max_bytes:
                            raise MediaTooLarge("the outputs of the job are longer than is taken: ATELIER_COMFYUI__MAX_OUTPUT_BYTES")
                        await asyncio.to_thread(file.write, chunk)
        except BROKEN as error:
            path.unlink(missing_ok=True)
            raise self._lost(error) from None
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return size

    async def forget_results(self) -> None:
        """Have the server drop its cache of node results, so that every node runs again. Models stay loaded."""
        await self._send("POST", "/free", json={"unload_models": False, "free_memory": True})

    async def free(self, *, unload_models: bool, free_memory: bool) -> None:
        """Have the server let go of its models, or of the results that it keeps."""
        answer = await self._send("POST", "/free", json={"unload_models": unload_models, "free_memory": free_memory})
        self._check_status(answer.status)

    async def _read(self, path: str) -> JsonObject:
        return await self._checked(await self._send("GET", path))

    async def _names(self, path: str) -> tuple[str, ...]:
        answer = await self._send("GET", path)
        self._check_status(answer.status)
        found = await _parsed(answer.body)
        if not isinstance(found, list):
            raise self._foreign()
        return tuple(name for name in found if isinstance(name, str))

    async def _send(self, method: str, path: str, *, limited: bool = True, **options: Any) -> _Answer:  # noqa: ANN401 -- httpx's own options
        """Send a request and read the answer, bounded in length and, when ``limited``, in time as a whole: httpx bounds each read only."""
        try:
            async with asyncio.timeout(2 * self._config.request_timeout_s if limited else None):
                async with self._client.stream(method, path, **options) as response:
                    body = bytearray()
                    async for chunk in self._raw(response):
                        body += chunk
                        if len(body) > self._config.max_answer_bytes:
                            raise self._foreign()
                    return _Answer(response.status_code, bytes(body))
        except BROKEN as error:
            raise self._lost(error) from None

    def _raw(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """Return the bytes as sent: decompressing what nobody asked to be compressed could fill the memory."""
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise self._foreign()
        return response.aiter_raw(CHUNK_BYTES)

    def _lost(self, error: Exception) -> BackendLost:
        return BackendLost(f"backend {self._name} does not answer ({type(error).__name__})")

    def _foreign(self) -> BackendLost:
        return BackendLost(f"backend {self._name} does not answer as a ComfyUI server does: look at what stands before it")

    def _check_status(self, status: int) -> None:
        if status != HTTPStatus.OK:  # a redirect too: what a gateway says is neither an answer nor an output
            raise BackendLost(f"backend {self._name} answered {status}")

    async def _checked(self, answer: _Answer) -> JsonObject:
        self._check_status(answer.status)
        found = await _parsed(answer.body)
        if not isinstance(found, dict):
            raise self._foreign()
        return found


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes


async def _parsed(body: bytes) -> object:
    """Return the JSON of an answer; None when it is none. Long ones are read beside the loop."""
    try:
        return json.loads(body) if len(body) < LONG_BYTES else await asyncio.to_thread(json.loads, body)
    except (ValueError, RecursionError):
        return None


def _prompts(items: object) -> tuple[QueuedPrompt, ...]:
    found = []
    for item in items if isinstance(items, list) else []:
        # [number, prompt id, prompt, extra data, ids of the output nodes]
        if isinstance(item, list) and len(item) > 1 and isinstance(item[1], str):
            extra = item[3] if len(item) > 3 and isinstance(item[3], dict) else {}
            client_id = extra.get("client_id")
            found.append(QueuedPrompt(item[1], client_id if isinstance(client_id, str) else None))
    return tuple(found)


def _entry(entry: JsonObject) -> HistoryEntry:
    outputs, status = entry.get("outputs"), entry.get("status")
    status = status if isinstance(status, dict) else {}
    messages = status.get("messages")
    pairs = [
        (str(item[0]), item[1])
        for item in (messages if isinstance(messages, list) else [])
        if isinstance(item, list) and len(item) == 2 and isinstance(item[1], dict)
    ]
    return HistoryEntry(outputs if isinstance(outputs, dict) else {}, status.get("completed") is True, tuple(pairs))
