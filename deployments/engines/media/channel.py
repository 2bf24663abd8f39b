"""A bounded hand-over between two threads that either end can close, with the error that ended it.

``queue.Queue`` cannot be closed before Python 3.13, so a thread that waits in ``put`` when its reader dies would wait for ever.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class ChannelClosed(Exception):
    """The other end has gone: there is nobody left to work for. Like ``queue.ShutDown``, an end rather than a fault."""


class Channel(Generic[T]):
    """First in, first out, at most ``capacity`` items. One thread puts, one iterates, any may close."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        """Add an item, waiting while the channel is full.

        Raises:
            ChannelClosed: closed by the reader; or the error it was closed with.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            if self._closed:
                raise self._error or ChannelClosed
            self._items.append(item)
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """End the traffic; the first call counts. With an error, waiting items are dropped and both ends raise it."""
        with self._changed:
            if not self._closed:
                self._closed = True
                self._error = error
                if error is not None:
                    self._items.clear()
                self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close with the error that ended the block: a thread that works inside of it can never leave the other end waiting."""
        self.close(error)

    def __iter__(self) -> Iterator[T]:
        """Yield items until the channel is closed and empty; raise the error it was closed with."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._items))
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
