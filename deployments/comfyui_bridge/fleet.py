"""The backends that one bridge replica drives, and the room that they have for jobs.

::

    job store ──hold_backends──▶ Fleet ──▶ Backend (one a server)
                                  │ size, take, give_back: as many claims are open as prompts can be sent
    engine ──place(tags, …)───────┘ chooses a server: least loaded, and the one that has the checkpoint loaded
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from functools import partial

from deployments.comfyui_bridge.backend import Backend
from deployments.comfyui_bridge.config import ComfyConfig, offers_of
from deployments.jobs.errors import BackendUnavailable, Unavailable
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import BackendHold
from deployments.jobs.ports import BackendHolds, Slot

log = get_logger(__name__)

Place = AsyncIterator[Backend]
Refused = Collection[str]


class Fleet:
    """Implements :class:`deployments.jobs.ports.Slots`, a slot for each prompt that may be sent."""

    def __init__(self, registry: BackendHolds, owner: str, config: ComfyConfig, lease_s: float) -> None:
        """Prepare; ``start`` begins to drive.

        Args:
            registry: who drives which backend.
            owner: this replica.
            config: patience.
            lease_s: how long the registry keeps a hold that is not renewed.
        """
        self._registry = registry
        self._owner = owner
        self._config = config
        self._lease_s = lease_s
        self._backends: dict[str, Backend] = {}
        self._taken: Counter[str] = Counter()  # slots by backend
        self._live: set[str] = set()  # prompts that this replica follows, on whatever backend
        self._renewed = time.monotonic()
        self._held = True  # whether the hold is believed to stand
        self._changed = asyncio.Event()
        self._look_now = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to take hold of backends."""
        self._task = asyncio.get_running_loop().create_task(self._drive(), name="comfyui-fleet")

    def check(self) -> None:
        """Fail when nobody looks after the backends any more.

        Raises:
            RuntimeError: the loop has ended.
        """
        if self._task is not None and self._task.done():
            raise RuntimeError("the fleet's loop is dead")

    async def close(self) -> None:
        """Let go of every backend; after the worker has drained."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        names, backends = list(self._backends), list(self._backends.values())
        self._backends.clear()
        with contextlib.suppress(Unavailable):  # then the leases run out
            await self._registry.hold_backends(self._owner, {}, names)
        for backend in backends:
            await backend.close()

    # Slots.

    @property
    def size(self) -> int:
        """How many prompts may be sent at once, now."""
        return sum(backend.spec.in_flight for backend in self._usable())

    async def take(self) -> Slot:
        """See :class:`deployments.jobs.ports.Slots`.

        A slot is room at one backend and offers what that one has: if each offered the tags of all, jobs for a backend that is full
        would be taken by slots of the others, over and over.
        """
        while True:
            free = [backend for backend in self._usable() if self._taken[backend.spec.name] < backend.spec.in_flight]
            if free:
                name = min(free, key=lambda backend: self._taken[backend.spec.name] / backend.spec.weight).spec.name
                self._taken[name] += 1
                return Slot(offers_of(self._backends[name].spec.tags), partial(self._give_back, name))
            await self._wait_for_change(None)

    def _give_back(self, name: str) -> None:
        self._taken[name] -= 1
        self._tell()

    # Places.

    @contextlib.asynccontextmanager
    async def place(self, tags: frozenset[str], model: str | None = None, avoid: str | None = None, refused: Refused = ()) -> Place:
        """Have room for one prompt on a backend that fits, which need not be the one whose slot the job was claimed with.

        Args:
            tags: all of which the backend must have.
            model: checkpoint of the graph: a backend that has it loaded counts as less busy by one prompt.
            avoid: name of the backend that an earlier attempt was lost on; taken only when there is no other.
            refused: names of backends that cannot run this graph.

        Raises:
            BackendUnavailable: none within ``ComfyConfig.choose_s``.
        """
        backend = await self._choose(tags, model, avoid, refused)
        backend.used += 1
        backend.chosen_at = time.monotonic()
        try:
            yield backend
        finally:
            backend.used -= 1
            self._tell()

    def others(self, tags: frozenset[str], refused: Refused) -> bool:
        """Whether there is a backend with these tags that has not refused, be it free or not."""
        return any(tags <= set(backend.spec.tags) and name not in refused for name, backend in self._backends.items())

    async def _choose(self, tags: frozenset[str], model: str | None, avoid: str | None, refused: Refused) -> Backend:
        deadline = time.monotonic() + self._config.choose_s
        while True:
            fitting = [b for b in self._usable() if tags <= set(b.spec.tags) and b.spec.name not in refused]
            free = [backend for backend in fitting if backend.has_room]
            others = [backend for backend in free if backend.spec.name != avoid]
            remaining = deadline - time.monotonic()
            # The avoided one is taken at once when it is the only one there is, and after a while when the others stay busy.
            if others or (free and (len(fitting) == len(free) or remaining <= 0)):
                return min(others or free, key=lambda backend: _load(backend, model, tags))
            if remaining <= 0:
                raise BackendUnavailable("no ComfyUI backend that fits takes a job now")
            await self._wait_for_change(remaining)

    def _usable(self) -> list[Backend]:
        if not self._holds():
            return []
        return [backend for backend in self._backends.values() if backend.usable]

    def _holds(self) -> bool:
        # By our own clock, and before the store would give the backends to another replica.
        return time.monotonic() - self._renewed < self._lease_s * 2 / 3

    # Driving.

    async def _drive(self) -> None:
        while True:
            await self._renew()
            for backend in self._backends.values():
                backend.look_soon()  # one that hangs must not cost the hold on the others
            self._tell()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.hold_s):
                    await self._look_now.wait()
            self._look_now.clear()

    async def _renew(self) -> None:
        health = {name: backend.health() for name, backend in self._backends.items()}
        released = [name for name, backend in self._backends.items() if backend.surrendering and backend.used == 0]
        began = time.monotonic()
        try:
            holds = await self._registry.hold_backends(self._owner, health, released)
        except Unavailable as error:
            log.warning("hold not renewed", extra=fields(action="hold_unanswered", reason=str(error)))
            return
        except Exception:  # the loop must outlive any fault of the store
            log.exception("hold broke", extra=fields(action="hold_broke"))
            return
        self._renewed = began
        self._keep({hold.spec.name: hold for hold in holds})

    def _keep(self, holds: dict[str, BackendHold]) -> None:
        for name, backend in list(self._backends.items()):
            hold = holds.get(name)
            if hold is None or hold.spec.url != backend.spec.url:
                self._let_go(name)
        for name, hold in holds.items():
            held = self._backends.get(name) or self._take_over(hold)
            if held is not None:
                held.spec = hold.spec
                held.draining, held.surrendering = hold.draining, hold.surrender

    def _take_over(self, hold: BackendHold) -> Backend | None:
        try:
            backend = Backend(hold.spec, self._config, self._on_change, self._live)
        except Exception:  # one that cannot even be tried must not cost the others
            log.exception("backend cannot be driven", extra=fields(action="backend_broken", backend=hold.spec.name))
            return None
        self._backends[hold.spec.name] = backend
        backend.start()
        log.info("backend taken", extra=fields(action="backend_taken", backend=hold.spec.name))
        return backend

    def _let_go(self, name: str) -> None:
        backend = self._backends.pop(name)
        log.info("backend let go", extra=fields(action="backend_let_go", backend=name))
        task = asyncio.get_running_loop().create_task(_close_when_idle(backend))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _on_change(self, *, worth_a_look: bool) -> None:
        if worth_a_look:
            self._look_now.set()
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _wait_for_change(self, timeout_s: float | None) -> None:
        # The hold may run out without anything happening, so that nobody waits for ever.
        longest = min(timeout_s or self._config.hold_s, self._config.hold_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await self._changed.wait()


def _load(backend: Backend, model: str | None, tags: frozenset[str]) -> tuple[float, int, float]:
    """Order backends: the least busy, then the one whose tags are missed least by others, then the one that waits longest."""
    loaded = model is not None and backend.model == model
    return ((backend.used - loaded) / backend.spec.weight, len(set(backend.spec.tags) - tags), backend.chosen_at)


async def _close_when_idle(backend: Backend) -> None:
    """Disconnect a backend that is no longer ours once our last prompt there has ended, or was given up."""
    while backend.used:  # noqa: ASYNC110 -- nobody waits for this but the backend's own connections
        await asyncio.sleep(1.0)
    await backend.close()
