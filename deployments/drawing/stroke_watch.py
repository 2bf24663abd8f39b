"""How long people wait for what they have drawn, as one ingress replica sees it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field, replace

from deployments.jobs.errors import Unavailable
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.sessions import SessionStore, Strokes

log = get_logger(__name__)

REPORT_S = 1.0
MAX_OPEN = 500  # sketches of one client that wait for a picture: more is a backend that is away, and no figure


class StrokeWatch:
    """Collects the figures of a replica's clients and sends them to the store once a second."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._strokes = Strokes()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to report; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._report_forever(), name="stroke-watch")

    async def close(self) -> None:
        """Stop reporting."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def client(self) -> ClientWatch:
        """Return the watch of one client."""
        return ClientWatch(self)

    def add(self, *, received: int = 0, dropped: int = 0, skipped: int = 0, refused: int = 0) -> None:
        """Count."""
        s = self._strokes
        self._strokes = replace(
            s, received=s.received + received, dropped=s.dropped + dropped, skipped=s.skipped + skipped, refused=s.refused + refused
        )

    def waited(self, *, for_preview_s: tuple[float, ...] = (), for_result_s: tuple[float, ...] = ()) -> None:
        """Note times."""
        s = self._strokes
        self._strokes = replace(s, to_preview_s=s.to_preview_s + for_preview_s, to_result_s=s.to_result_s + for_result_s)

    async def report(self) -> None:
        """Send what has been collected."""
        strokes, self._strokes = self._strokes, Strokes()
        if strokes != Strokes():
            await self._store.report_strokes(strokes)

    async def _report_forever(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            try:
                await self.report()
            except Unavailable as error:  # figures are not worth a second try
                log.debug("strokes not reported", extra=fields(action="strokes_lost", reason=str(error)))


@dataclass(slots=True)
class _Stroke:
    arrived: float  # monotonic
    seq: int | None = None  # of the sketch that shows it: its own, or that of a newer one
    previewed: bool = False


@dataclass(slots=True)
class ClientWatch:
    """The strokes of one client that wait for a picture, oldest first."""

    watch: StrokeWatch
    open: deque[_Stroke] = field(default_factory=lambda: deque(maxlen=MAX_OPEN))

    def arrived(self, at: float) -> None:
        """Take note of a sketch."""
        self.watch.add(received=1)
        self.open.append(_Stroke(at))

    def dropped(self) -> None:
        """A newer one took the place of one that had not been accepted."""
        self.watch.add(dropped=1)

    def refused(self, arrived: float) -> None:
        """One was not accepted."""
        self.watch.add(refused=1)
        self.open = deque((stroke for stroke in self.open if stroke.arrived != arrived), MAX_OPEN)

    def skipped(self, arrived: float, seq: int, *, is_shown: bool) -> None:
        """One looks like the one before, whose picture is its own."""
        self.watch.add(skipped=1)
        self._number(arrived, seq)
        if is_shown:
            self.gave_up(seq)

    def gave_up(self, seq: int) -> None:
        """Nobody waits any more for what a sketch shows."""
        for _ in self._shown_by(seq):
            self.open.popleft()

    def accepted(self, arrived: float, seq: int, *, replaced: bool) -> None:
        """One is on disk, and shows all those before it."""
        self.watch.add(dropped=int(replaced))
        self._number(arrived, seq)

    def previewed(self, seq: int) -> None:
        """A preview of a sketch goes out."""
        now = time.monotonic()
        seen = [stroke for stroke in self._shown_by(seq) if not stroke.previewed]
        for stroke in seen:
            stroke.previewed = True
        self.watch.waited(for_preview_s=tuple(now - stroke.arrived for stroke in seen))

    def completed(self, seq: int) -> None:
        """A picture of a sketch goes out."""
        now = time.monotonic()
        seen = self._shown_by(seq)
        self.watch.waited(for_result_s=tuple(now - stroke.arrived for stroke in seen))
        for _ in seen:
            self.open.popleft()

    def _number(self, arrived: float, seq: int) -> None:
        for stroke in self.open:
            if stroke.seq is None and stroke.arrived <= arrived:
                stroke.seq = seq

    def _shown_by(self, seq: int) -> list[_Stroke]:
        return [stroke for stroke in self.open if stroke.seq is not None and stroke.seq <= seq]
