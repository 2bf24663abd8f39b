"""A fake backend as a child process, for whoever wants one beside: the demo, benchmarks, tests that kill it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

LISTENS = re.compile(r"To see the GUI go to: \S+:(\d+)")
STOP_TIMEOUT_S = 10.0


class FakeChild:
    """One process; its port stays the same when it is started again."""

    def __init__(self, arguments: Sequence[str] = (), host: str = "127.0.0.1") -> None:
        """Nothing runs yet; the first ``start`` takes a free port.

        Args:
            arguments: as ``python -m deployments.fake_comfyui`` takes them, without where it listens.
            host: address to listen on.
        """
        self._host = host
        self._port = 0
        self._arguments = list(arguments)
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where it listens once it has been started."""
        return f"http://{self._host}:{self._port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Run it and return when it listens.

        Raises:
            OSError: it ended at once.
        """
        command = [sys.executable, "-m", "deployments.fake_comfyui", "--listen", self._host, "--port", str(self._port), *self._arguments]
        self._process = subprocess.Popen(  # noqa: S603 -- our own interpreter and module
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None, "it was asked for"
        listens = next(filter(None, map(LISTENS.search, iter(self._process.stdout.readline, ""))), None)
        if listens is None:
            status = self._process.wait()
            self.stop()
            raise OSError(f"the fake backend ended with status {status} while it started")
        self._port = int(listens[1])

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(gently=False)

    def stop(self) -> None:
        """End it in order."""
        self._end(gently=True)

    def _end(self, *, gently: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with process:  # closes the pipe
            if gently:
                process.terminate()
                try:
                    process.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
            else:
                process.kill()
