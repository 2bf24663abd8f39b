"""The fake ComfyUI: a real HTTP and WebSocket server that can be stopped, crashed and started again."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Self

from aiohttp import web

from deployments.fake_comfyui.backend import Backend
from deployments.fake_comfyui.comfy_node import Site
from deployments.fake_comfyui.config import FakeConfig
from deployments.fake_comfyui.dice import Dice
from deployments.fake_comfyui.executor import Tally
from deployments.fake_comfyui.files import FileStore
from deployments.fake_comfyui.origin import refuse_foreign_origins
from deployments.fake_comfyui.routes_files import FileRoutes
from deployments.fake_comfyui.routes_info import InfoRoutes
from deployments.fake_comfyui.routes_jobs import JobRoutes
from deployments.fake_comfyui.routes_queue import QueueRoutes
from deployments.jobs.logs import fields, get_logger

SHUTDOWN_TIMEOUT_S = 0.1  # for requests under way: they get no answer from a server that is killed

log = get_logger(__name__)


class FakeComfyUI:
    """A server that does as ComfyUI does, without models. Used as ``async with FakeComfyUI(config) as fake``, or by hand."""

    def __init__(self, config: FakeConfig | None = None) -> None:
        self.config = config or FakeConfig()
        self._dice = Dice(self.config.seed)
        self._tally = Tally()
        self._port = self.config.port
        self._own_folder: Path | None = None
        self._files: FileStore | None = None
        self._backend: Backend | None = None
        self._runner: web.AppRunner | None = None
        self._crash: asyncio.Task[None] | None = None
        self._listener: socket.socket | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """The port, once started."""
        return self._port

    @property
    def url(self) -> str:
        """The base address, without a slash at its end."""
        return f"http://{self.config.host}:{self._port}"

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._runner is not None

    @property
    def files(self) -> FileStore:
        """Its folders; they outlive crashes.

        Raises:
            RuntimeError: it was never started, or has been stopped.
        """
        if self._files is None:
            raise RuntimeError("start the fake backend first")
        return self._files

    @property
    def executed(self) -> list[str]:
        """Ids of the prompts whose execution began, in order, over all restarts."""
        return self._tally.prompt_ids

    @property
    def executions_by_node(self) -> Counter[str]:
        """How often nodes of each class ran, over all restarts; cached ones do not count."""
        return self._tally.by_class

    async def start(self) -> None:
        """Listen, with an empty queue, history, cache and folder of temporary files.

        Raises:
            OSError: the port is taken.
            RuntimeError: it runs already.
        """
        if self.running:
            raise RuntimeError("the fake backend runs already")
        if self._files is None:
            self._own_folder = None if self.config.base_dir else Path(tempfile.mkdtemp(prefix="fake-comfyui-"))
            self._files = FileStore(self.config.base_dir or self._own_folder or Path())
        self._files.wipe_temp()
        site = Site(self.config, self._files, self._dice, self._dice.letters("temp_suffix", 5))
        loop = asyncio.get_running_loop()
        backend = Backend(site, self._dice, self._tally, partial(loop.call_soon_threadsafe, self._begin_crash))
        self._runner = await self._listen(backend)
        self._port = self._runner.addresses[0][1]
        self._backend = backend
        backend.worker.start()
        log.info("fake backend listens", extra=fields(action="fake_comfyui_started", url=self.url))

    async def stop(self) -> None:
        """Close the sockets, stop listening and forget all but the output files; without ``base_dir``, delete those too."""
        await self._give_up_comeback()
        await self._end(abruptly=False)
        if self._own_folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._own_folder, ignore_errors=True)
            self._own_folder = self._files = None

    async def crash(self) -> None:
        """End as a killed process does: sockets drop without a close frame, queue, history, cache and temporary files are gone."""
        await self._end(abruptly=True)
        log.info("fake backend crashed", extra=fields(action="fake_comfyui_crashed", url=self.url))

    async def restart(self) -> None:
        """Start again on the same port, after a crash or instead of one."""
        await self._give_up_comeback()
        if self.running:
            await self.crash()
        await self.start()

    def delete_outputs(self, prompt_id: str) -> list[Path]:
        """Delete the files of a prompt that has ended; return those that were there."""
        assert self._backend is not None, "start the fake backend first"
        entry = self._backend.queue.find_history(prompt_id) or {"outputs": {}}
        return [path for ui in entry["outputs"].values() for path in self.files.delete_shown(ui)]

    async def _listen(self, backend: Backend) -> web.AppRunner:
        runner = web.AppRunner(_application(backend), access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
        await runner.setup()
        try:
            family = socket.AF_INET6 if ":" in self.config.host else socket.AF_INET
            self._listener = socket.create_server((self.config.host, self._port), family=family)
            await web.SockSite(runner, self._listener).start()
        except OSError:
            await runner.cleanup()
            raise
        return runner

    async def _end(self, *, abruptly: bool) -> None:
        backend, runner = self._backend, self._runner
        self._backend = self._runner = None
        if backend is None or runner is None:
            return
        server = runner.server
        await self._accept_no_more()
        await backend.end(abruptly=abruptly)
        if abruptly:
            _drop(server)
        await runner.cleanup()
        _drop(server)  # who was accepted in the last moment has a connection only now
        await asyncio.to_thread(backend.worker.join)
        self.files.wipe_temp()

    async def _accept_no_more(self) -> None:
        """Stop listening in two turns of the loop: asyncio leaks a connection that it accepts in the very turn that closes its server."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            await asyncio.sleep(0)

    async def _give_up_comeback(self) -> None:
        """Let a crash of the hazard's making end, without its coming back."""
        if self._crash is not None:
            self._crash.cancel()
            await asyncio.wait({self._crash})
            self._crash = None

    def _begin_crash(self) -> None:
        self._crash = asyncio.create_task(self._crash_for_a_while())

    async def _crash_for_a_while(self) -> None:
        await self.crash()
        if self.config.hazards.crash_down_s is not None:
            await asyncio.sleep(self.config.hazards.crash_down_s)
            await self.start()


def _drop(server: web.Server | None) -> None:
    """Cut every connection without a word."""
    for connection in server.connections if server is not None else ():
        if connection.transport is not None:
            connection.transport.abort()


def _application(backend: Backend) -> web.Application:
    app = web.Application(client_max_size=backend.site.config.max_upload_bytes, middlewares=[refuse_foreign_origins])
    info = InfoRoutes(backend)
    routes = [*QueueRoutes(backend).routes(), *FileRoutes(backend).routes(), *info.routes()]
    if not backend.site.config.hazards.no_jobs_api:
        app.add_routes(JobRoutes(backend).routes())
    app.add_routes(routes)
    app.add_routes([web.route(route.method, f"/api{route.path}", route.handler) for route in routes])
    app.add_routes([web.get("/", info.get_page), web.get("/{path:.*}", _find_no_file)])
    return app


async def _find_no_file(_request: web.Request) -> web.Response:
    """Answer for the static files that a real server has: they make an unknown path 404 to GET and 405 to POST."""
    return web.Response(status=404, text="404: Not Found")
