"""How many sessions draw at once. Each more makes all of them slower; whoever finds no seat is told which place in line it has."""

from __future__ import annotations

from collections.abc import Hashable

SEAT_S = 30.0  # without a request a session gives its seat away: a person who draws pauses for seconds
LINE_S = 10.0  # and its place in line: whoever waits asks again every second or two


class Admission:
    """Seats and the line for them, in memory: after a restart whoever comes first sits first."""

    def __init__(self, seats: int) -> None:
        self._seats = seats
        self._seated: dict[Hashable, float] = {}  # last seen, monotonic
        self._line: dict[Hashable, float] = {}  # in the order of arrival

    def enter(self, key: Hashable, now: float) -> int:
        """Take or keep a seat; return 0 with one, else the place in line, from 1."""
        self._seated = {one: seen for one, seen in self._seated.items() if now - seen < SEAT_S}
        self._line = {one: seen for one, seen in self._line.items() if now - seen < LINE_S}
        if key not in self._seated:
            self._line[key] = now
            place = list(self._line).index(key) + 1 - (self._seats - len(self._seated))
            if place > 0:
                return place
            del self._line[key]
        self._seated[key] = now
        return 0

    def leave(self, key: Hashable) -> None:
        """Give a seat or a place in line away."""
        self._seated.pop(key, None)
        self._line.pop(key, None)
