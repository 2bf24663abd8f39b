"""The service as a child process: ``atelier serve`` in a session of its own, its output in a file."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from serve_app.client import Client

START_TIMEOUT_S = 240.0  # two busy cores; a quiet machine takes a tenth of it
STOP_TIMEOUT_S = 20.0
POLL_S = 0.25
DASHBOARD = re.compile(r"Ray dashboard\s+(\S+)")
SHOWN_LINES = 15  # of the log, when the start fails


class ServiceFailed(Exception):
    """The service did not start, or did not go away; the text says why."""


class ServiceProcess:
    """One ``atelier serve``. Ray's processes are its children or grandchildren, all in the session that it leads."""

    def __init__(self, host: str, port: int, log: Path, environment: Mapping[str, str] | None = None) -> None:
        """Start it.

        Args:
            host: address to listen on.
            port: port to listen on.
            log: file that its output goes to; overwritten.
            environment: what it finds in its environment besides what this process has.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-u", "-m", "serve_app.cli", "serve", "--host", host, "--port", str(port)]
        self.log = log
        with log.open("wb") as output:
            # A session of its own: Ctrl-C in the terminal reaches the parent alone, which then stops the service in order.
            self._process = subprocess.Popen(  # noqa: S603 -- our own interpreter and module
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environment or {})},  # noqa: TID251 -- handed on as it is, nothing is read from it
            )

    def wait_until_ready(self, client: Client, tick: Callable[[float], None]) -> None:
        """Return when it accepts work and says itself that all of it has started: the ingress answers before the workers do.

        Args:
            client: of its address.
            tick: called a few times a second with the seconds since the start.

        Raises:
            ServiceFailed: it ended, or took too long.
        """
        began = time.monotonic()
        while not (self.dashboard() and client.ready()):
            waited_s = time.monotonic() - began
            if self._process.poll() is not None:
                raise ServiceFailed(f"the service ended while it started; {self.log} ends with:\n{self._tail()}")
            if waited_s > START_TIMEOUT_S:
                raise ServiceFailed(f"the service is not ready after {waited_s:.0f} s; {self.log} ends with:\n{self._tail()}")
            tick(waited_s)
            time.sleep(POLL_S)

    def dashboard(self) -> str | None:
        """Return the address of Ray's dashboard, which the service prints when it is ready."""
        found = DASHBOARD.search(self.log.read_text("utf-8", errors="replace"))
        return found[1] if found else None

    def wait(self) -> int:
        """Return its exit status when it ends by itself."""
        return self._process.wait()

    def stop(self) -> None:
        """End it and everything that it started.

        Raises:
            ServiceFailed: some process is still there.
        """
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        # Itself, if it hangs, and what has outlived it: Ray's workers end when they notice that it is gone, and some take their time.
        while left := self._members():
            if time.monotonic() > deadline:
                raise ServiceFailed(f"processes {', '.join(map(str, left))} of the service do not end: kill -9 them")
            _kill(left)
            self._process.poll()
            time.sleep(POLL_S)

    def _members(self) -> list[int]:
        """Return the living processes of its session; where there is no /proc, only itself."""
        members = [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _session(int(entry.name)) == self._process.pid]
        return members or ([self._process.pid] if self._process.poll() is None else [])

    def _tail(self) -> str:
        return "\n".join(self.log.read_text("utf-8", errors="replace").splitlines()[-SHOWN_LINES:])


def _session(pid: int) -> int | None:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None  # it has ended meanwhile
    return None if state[0] == "Z" else int(state[3])  # a zombie has ended and only waits for its parent


def _kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
