"""How a task's files get to a Duix service and its video back: through a folder that both see, or by URL.

The service has no route for files. It reads what a path or a URL leads to, and leaves its video in ``temp/`` of its data folder.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from aiohttp import web

from deployments.duix_bridge.config import DuixConfig
from deployments.jobs.errors import BackendUnavailable, MediaTooLarge, OutputsLost
from deployments.jobs.logs import fields, get_logger
from deployments.storage.sweep import Swept, remove_old

log = get_logger(__name__)

TEMP = "temp"  # of the data folder: relative names begin there, and results appear there although the service leaves it out of their path
LOOK_S = 0.5  # between two looks for a result that has not appeared yet
BIND_AGAIN_S = 1.0  # until a replica that drains has given the port back

CODE_PREFIX = "atelier-"  # of our tasks at a service, and so of their files in a shared folder: what a sweep knows them by
OURS = re.compile(rf"\.?(?P<code>{CODE_PREFIX}[0-9a-f]{{32}})")

Download = Callable[[str, Path], Awaitable[None]]


def result_name(code: str) -> str:
    """Return the name of a task's video. What the service says of it is not believed: it is a path on another machine."""
    return f"{code}-r.mp4"


class Exchange(Protocol):
    """The way of files to and from one service."""

    async def offer(self, code: str, audio: Path, video: Path) -> tuple[str, str]:
        """Make the inputs of a task reachable, and return what to tell the service of them: (audio, video)."""

    async def take(self, code: str, destination: Path, patience_s: float) -> None:
        """Bring a task's video.

        Args:
            code: of the task.
            destination: written.
            patience_s: how long it may take to be seen: shared folders lag behind.

        Raises:
            OutputsLost: there is none.
            MediaTooLarge: it is longer than is taken.
        """

    async def written_bytes(self, code: str) -> int:
        """Return how much the service has written for a task, as far as that can be seen: it grows while it works."""

    async def remove(self, code: str) -> None:
        """Remove what a task left, once the service has ended it."""


class SharedFolder:
    """A data folder that the service and this machine see."""

    def __init__(self, data_dir: Path, config: DuixConfig) -> None:
        self._folder = data_dir / TEMP
        self._config = config

    async def offer(self, code: str, audio: Path, video: Path) -> tuple[str, str]:
        """See :class:`Exchange`. A file has its name once it is whole."""
        names = f"{code}{audio.suffix}", f"{code}{video.suffix}"
        for source, name in zip((audio, video), names, strict=True):
            try:
                await asyncio.to_thread(self._put, source, name)
            except OSError as error:
                log.warning("shared folder refuses", extra=fields(action="duix_folder_refused", reason=str(error)))
                raise BackendUnavailable("the folder shared with the Duix service cannot be written to: look at DUIX_DATA_DIR") from None
        return names

    async def take(self, code: str, destination: Path, patience_s: float) -> None:
        """See :class:`Exchange`."""
        path = self._folder / result_name(code)
        deadline = asyncio.get_running_loop().time() + patience_s
        while not path.is_file():
            if asyncio.get_running_loop().time() >= deadline:
                raise OutputsLost(
                    "the Duix service says that the video is there, and it is not in the shared folder: is DUIX_DATA_DIR its?"
                )
            await asyncio.sleep(LOOK_S)
        if _size_of(path) > self._config.max_result_bytes:
            raise MediaTooLarge("the video is longer than is taken: ATELIER_DUIX__MAX_RESULT_BYTES")
        try:
            await asyncio.to_thread(shutil.copyfile, path, destination)
        except OSError as error:
            log.warning("shared folder refuses", extra=fields(action="duix_folder_refused", reason=str(error)))
            raise OutputsLost("the video cannot be read from the folder shared with the Duix service") from None

    async def written_bytes(self, code: str) -> int:
        """See :class:`Exchange`."""
        return await asyncio.to_thread(lambda: sum(map(_size_of, self._files(code))))

    async def remove(self, code: str) -> None:
        """See :class:`Exchange`."""
        for path in await asyncio.to_thread(self._files, code):
            await asyncio.to_thread(_remove, path)

    def _put(self, source: Path, name: str) -> None:
        self._folder.mkdir(exist_ok=True)
        partial = self._folder / f".{name}.partial"
        try:
            shutil.copyfile(source, partial)
            partial.chmod(0o644)  # the service's user is another one
            partial.replace(self._folder / name)
        finally:
            partial.unlink(missing_ok=True)

    def _files(self, code: str) -> list[Path]:
        return [path for path in self._folder.glob(f"{code}*") if path.is_file()]

    def remove_orphans(self, max_age_s: float, known: Collection[str]) -> Swept:
        """Remove the files of tasks that nobody knows any more and that nothing has been written for.

        Args:
            max_age_s: since the newest file of the task was written.
            known: codes of the tasks that are still somebody's.
        """
        groups: dict[str, list[Path]] = defaultdict(list)
        for path in self._folder.glob(f"*{CODE_PREFIX}*"):
            found = OURS.match(path.name)
            if found is not None and found["code"] not in known and path.is_file():
                groups[found["code"]].append(path)
        total = Swept()
        for paths in groups.values():
            if time.time() - max(path.stat().st_mtime for path in paths) > max_age_s:
                total += remove_old(paths, 0.0)
        return total


class ByUrl:
    """Inputs are fetched from this machine, and results from a web server that shows the service's folder."""

    def __init__(self, offers: OfferServer, results: str, download: Download) -> None:
        self._offers = offers
        self._results = results
        self._download = download

    async def offer(self, code: str, audio: Path, video: Path) -> tuple[str, str]:
        """See :class:`Exchange`."""
        return self._offers.add(code, audio), self._offers.add(code, video)

    async def take(self, code: str, destination: Path, patience_s: float) -> None:  # noqa: ARG002 -- a web server does not lag
        """See :class:`Exchange`."""
        await self._download(f"{self._results}/{result_name(code)}", destination)

    async def written_bytes(self, code: str) -> int:  # noqa: ARG002 -- nobody tells
        """See :class:`Exchange`."""
        return 0

    async def remove(self, code: str) -> None:
        """See :class:`Exchange`. What lies at the service is its operator's to remove."""
        self._offers.drop(code)


class OfferServer:
    """Serves inputs to the services, each under an address that nobody can guess, until its task has ended."""

    def __init__(self, url: str, bind: str) -> None:
        """Prepare.

        Args:
            url: ``http://host:port`` as the services reach this machine.
            bind: address to listen on, at that port.
        """
        self._url = url.rstrip("/")
        self._bind = bind
        self._files: dict[str, tuple[str, Path]] = {}  # by token: (code, file)
        application = web.Application()
        application.router.add_get("/{name}", self._answer)
        self._runner = web.AppRunner(application, access_log=None)  # the addresses are secrets

    async def start(self) -> None:
        """Listen, as soon as nobody else does: a replica that drains holds the port until its tasks have ended."""
        await self._runner.setup()
        while True:
            try:
                return await web.TCPSite(self._runner, self._bind, urlsplit(self._url).port).start()
            except OSError as error:
                log.warning("offer port is taken", extra=fields(action="duix_offer_port_taken", reason=str(error)))
                await asyncio.sleep(BIND_AGAIN_S)

    async def close(self) -> None:
        """Stop."""
        await self._runner.cleanup()

    def add(self, code: str, path: Path) -> str:
        """Serve a file of a task; returns its address."""
        name = secrets.token_urlsafe(24) + path.suffix
        self._files[name] = code, path
        return f"{self._url}/{name}"

    def drop(self, code: str) -> None:
        """Serve the files of a task no more."""
        self._files = {name: entry for name, entry in self._files.items() if entry[0] != code}

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        entry = self._files.get(request.match_info["name"])
        if entry is None or not entry[1].is_file():
            raise web.HTTPNotFound
        return web.FileResponse(entry[1])


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # the service has just removed it


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # the service writes as root where it runs in a container; what it leaves is found by its own sweep
        log.warning("file left in the shared folder", extra=fields(action="duix_file_left", reason=str(error)))
