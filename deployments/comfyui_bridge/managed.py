"""A ComfyUI that a bridge replica starts for itself: it lives inside the replica's share of a GPU, and ends with the replica.

So Serve's autoscaling scales ComfyUI. The server listens on loopback on a port of its own, is started again when it dies, and cannot
outlive its replica: the kernel kills it when the replica is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from deployments.comfyui_bridge.config import ManagedConfig
from deployments.comfyui_client.config import ClientConfig
from deployments.comfyui_client.http import ComfyHttp
from deployments.jobs.errors import BackendLost, EngineFailed, Unavailable
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import BackendHealth, BackendHold, BackendSpec
from deployments.jobs.ports import BackendRegistry

log = get_logger(__name__)

PR_SET_PDEATHSIG = 1  # linux/prctl.h
POLL_S = 0.25
RESTART_PAUSE_S = (1.0, 30.0)  # first and longest; a server that dies at once must not eat the machine
STABLE_S = 60.0  # a server that has lived so long is started again without a longer pause
MAX_FAILURES = 5  # starts in a row that failed: then the replica is unhealthy, and Serve may put it elsewhere
IN_FLIGHT = 2


class ManagedServer:
    """One ComfyUI process, watched."""

    def __init__(self, config: ManagedConfig, owner: str) -> None:
        """Prepare; ``start`` runs it.

        Args:
            config: what is run.
            owner: the replica, for the log.
        """
        self._config = config
        self._owner = owner
        self._port = _free_port()
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._failures = 0

    @property
    def name(self) -> str:
        """What tells it from those of other replicas, as a part of a backend's name."""
        return re.sub(r"[^a-z0-9]", "", self._owner.lower())[-12:] or "own"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it and return when it answers.

        Raises:
            EngineFailed: it does not.
        """
        await self._launch()
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="managed-comfyui")

    def check(self) -> None:
        """Fail when it does not come up any more.

        Raises:
            RuntimeError: too many starts in a row have failed.
        """
        if self._failures >= MAX_FAILURES or (self._keeper is not None and self._keeper.done()):
            raise RuntimeError(f"the managed ComfyUI does not start: {self._failures} times in a row")

    async def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL when it does not go."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        await self._end()

    async def _keep(self) -> None:
        pause_s = RESTART_PAUSE_S[0]
        while True:
            assert self._process is not None, "start() comes first"
            began = time.monotonic()
            status = await self._process.wait()
            pause_s = RESTART_PAUSE_S[0] if time.monotonic() - began > STABLE_S else pause_s
            log.warning("managed ComfyUI ended", extra=fields(action="managed_ended", owner=self._owner, status=status))
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RESTART_PAUSE_S[1])
            try:
                await self._launch()
                self._failures = 0
            except EngineFailed as error:
                self._failures += 1
                log.warning("managed ComfyUI does not start", extra=fields(action="managed_start_failed", reason=str(error)))

    async def _launch(self) -> None:
        directory = self._config.directory
        if directory is None or not (directory / "main.py").is_file():
            raise EngineFailed("the managed ComfyUI has no main.py: set ATELIER_COMFYUI__MANAGED__DIRECTORY to its install folder")
        command = [
            self._python(directory), "main.py", "--listen", "127.0.0.1", "--port", str(self._port), "--disable-auto-launch",
            *self._config.arguments,
        ]  # fmt: skip
        self._process = await asyncio.create_subprocess_exec(
            *command,
            cwd=directory,
            stdin=asyncio.subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
        )
        log.info("managed ComfyUI started", extra=fields(action="managed_started", owner=self._owner, pid=self._process.pid))
        try:
            await self._until_it_answers(self._process)
        except BaseException:
            await self._end()
            raise

    async def _until_it_answers(self, process: asyncio.subprocess.Process) -> None:
        deadline = time.monotonic() + self._config.start_timeout_s
        http = ComfyHttp("managed", self.url, ClientConfig())
        try:
            while True:
                if process.returncode is not None:
                    raise EngineFailed(
                        f"the managed ComfyUI ended with status {process.returncode} while it started: see the replica's log"
                    )
                with contextlib.suppress(BackendLost):
                    await http.queue()
                    if process.returncode is None:  # else somebody else has taken the port
                        return
                    continue
                if time.monotonic() > deadline:
                    raise EngineFailed(f"the managed ComfyUI does not answer after {self._config.start_timeout_s:g} s")
                await asyncio.sleep(POLL_S)
        finally:
            await http.close()

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self._config.stop_timeout_s):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _python(self, directory: Path) -> str:
        if self._config.python:
            return self._config.python
        found = (directory / name / "bin" / "python" for name in (".venv", "venv"))
        return next((str(path) for path in found if path.is_file()), sys.executable)


class OwnServer:
    """Implements :class:`deployments.jobs.ports.BackendHolds` for a replica with a server of its own: nobody else can drive it."""

    def __init__(self, server: ManagedServer, tags: Sequence[str], registry: BackendRegistry) -> None:
        """Take the server; it is announced in the registry, so that people see it and workflows can be checked against it."""
        self._spec = BackendSpec(f"managed-{server.name}", server.url, tuple(tags), in_flight=IN_FLIGHT)
        self._registry = registry

    async def hold_backends(self, owner: str, health: Mapping[str, BackendHealth], released: Sequence[str]) -> tuple[BackendHold, ...]:
        """See the port."""
        with contextlib.suppress(Unavailable):  # being seen is not worth standing still for
            await self._registry.announce_backend(owner, self._spec, health.get(self._spec.name))
        return () if self._spec.name in released else (BackendHold(self._spec, draining=False, surrender=False),)


def _die_with_parent() -> None:
    """Have the kernel kill the child when its parent dies, however that happens. Runs in the child, between fork and exec.

    It is told when the *thread* that forked ends, which here is the replica's event loop. asyncio warns of code in this place because
    of locks that other threads hold; these calls take none.
    """
    with contextlib.suppress(OSError, AttributeError):  # Linux alone has it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:  # it died in between
        os._exit(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
