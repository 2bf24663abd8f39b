"""Prepared sources, remembered: the same face is often put into many targets."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic

from deployments.engines.face_swap.swapper import Handle


class SourceCache(Generic[Handle]):
    """The newest handles by the SHA-256 of the source's bytes. Threads may share one."""

    def __init__(self, capacity: int) -> None:
        """Start empty.

        Args:
            capacity: handles kept; 0 remembers none.
        """
        self._capacity = capacity
        self._handles: OrderedDict[str, Handle] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, sha256: str, prepare: Callable[[], Handle]) -> Handle:
        """Return the handle of a source, made by ``prepare`` when it is not remembered.

        Two threads that miss at the same time both prepare: that costs less than making one wait for the other.
        """
        with self._lock:
            if sha256 in self._handles:
                self._handles.move_to_end(sha256)
                return self._handles[sha256]
        handle = prepare()
        with self._lock:
            self._handles[sha256] = handle
            while len(self._handles) > self._capacity:
                self._handles.popitem(last=False)
        return handle
