"""How the worker's thread is told to stop: at once when the server is gone, else at its next look."""

from __future__ import annotations

import threading


class Interrupted(Exception):
    """Somebody interrupted the prompt."""


class ServerGone(Exception):
    """The server has crashed or stopped: nobody wants the rest of the work."""


class Interrupt:
    """A flag that is looked at and waited for. Thread-safe."""

    def __init__(self) -> None:
        self._raised = threading.Event()
        self._ended = threading.Event()

    @property
    def server_is_gone(self) -> bool:
        """Whether ``end`` was called."""
        return self._ended.is_set()

    def clear(self) -> None:
        """Forget an interrupt that came before the prompt began."""
        self._raised.clear()
        if self._ended.is_set():
            self._raised.set()

    def interrupt(self) -> None:
        """End the running prompt."""
        self._raised.set()

    def end(self) -> None:
        """End the worker."""
        self._ended.set()
        self._raised.set()

    def check(self) -> None:
        """Return if there is no reason to stop.

        Raises:
            Interrupted: the prompt has to end.
            ServerGone: the worker has to end.
        """
        self.wait(0)

    def wait(self, seconds: float) -> None:
        """Sleep.

        Raises:
            Interrupted: the prompt has to end.
            ServerGone: the worker has to end.
        """
        if not self._raised.wait(seconds):
            return
        if self._ended.is_set():
            raise ServerGone
        raise Interrupted

    def wait_for_end(self, seconds: float) -> None:
        """Sleep through interrupts.

        Raises:
            ServerGone: the worker has to end.
        """
        if self._ended.wait(seconds):
            raise ServerGone
