"""The Duix services as slots: which of them may be given a task now.

A service takes one task at a time and cannot be told to stop. So one that is given up, because its job was cancelled or stalled, is
watched until it has ended what it has, and gets nothing meanwhile.

::

    unhealthy ──a probe is answered──▶ free ──place──▶ held ──its task has ended──▶ free
                                        ▲               │ given up, or busy with a stranger's
                                        └── at rest ◀───┘
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Coroutine
from dataclasses import dataclass
from typing import Any

from deployments.duix_bridge.client import DuixClient, UpstreamDead
from deployments.duix_bridge.config import DuixConfig, UpstreamSpec
from deployments.duix_bridge.exchange import ByUrl, Exchange, OfferServer, SharedFolder
from deployments.jobs.errors import BackendLost, BackendUnavailable
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.ports import Clock, Metrics, Slot
from deployments.storage.sweep import Swept

log = get_logger(__name__)

CAPABILITIES = frozenset({"duix"})


@dataclass(slots=True, eq=False)
class Upstream:
    """One service and what is known of it."""

    spec: UpstreamSpec
    client: DuixClient
    exchange: Exchange
    healthy: bool = False  # until it has answered once
    held: bool = False  # by a job, or by a task that was given up
    leaving: bool = False  # with a task that was given up
    dead: bool = False  # says that it has to be restarted
    rests_until: float = 0.0  # monotonic


class Upstreams:
    """Implements :class:`deployments.jobs.ports.Slots`: a slot is the promise that a service is free."""

    def __init__(self, config: DuixConfig, metrics: Metrics, clock: Clock) -> None:
        """Prepare; nothing is sent.

        Raises:
            ValueError: a data folder is not there.
        """
        self._config = config
        self._metrics = metrics
        self._clock = clock
        self._offers = OfferServer(config.offer_url, config.offer_bind) if config.offer_url else None
        self._all = [self._open(spec) for spec in config.specs()]
        self._promised = 0  # slots whose job has no service yet
        self._tasks: set[asyncio.Task[None]] = set()
        self._watches: set[asyncio.Task[None]] = set()  # those of them that never end, or only when a service does
        self._known: set[str] = set()  # codes of tasks whose files are still somebody's
        self._closing = asyncio.Event()
        self._changed = asyncio.Event()
        self._fault: BaseException | None = None

    def _open(self, spec: UpstreamSpec) -> Upstream:
        client = DuixClient(spec, self._config)
        if spec.results is not None:
            assert self._offers is not None, "the config asks for an offer_url where there are results"
            return Upstream(spec, client, ByUrl(self._offers, spec.results, client.download))
        assert spec.data_dir is not None, "specs() fills it in"
        if not spec.data_dir.is_dir():
            raise ValueError(
                f"the data folder {spec.data_dir} of the Duix service {spec.name} is not on this machine: mount it there, "
                "set DUIX_DATA_DIR, or say by results= where its videos are fetched"
            )
        return Upstream(spec, client, SharedFolder(spec.data_dir, self._config))

    async def start(self) -> None:
        """Start looking after the services."""
        if self._offers is not None:
            self._watches.add(self._spawn(self._offers.start()))
        for upstream in self._all:
            self._watches.add(self._spawn(self._look_after(upstream)))

    async def close(self) -> None:
        """Stop; tasks that run at a service go on there."""
        self._closing.set()
        for task in self._watches:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for upstream in self._all:
            await upstream.client.close()
        if self._offers is not None:
            await self._offers.close()

    def check(self) -> None:
        """Fail when the services are looked after no more.

        Raises:
            RuntimeError: a task of ours broke.
        """
        if self._fault is not None:
            raise RuntimeError(f"the Duix services are looked after no more: {self._fault!r}")

    async def take(self) -> Slot:
        """See the port. One caller at a time."""
        while len(self._free()) <= self._promised:
            self._changed.clear()
            await self._changed.wait()
        self._promised += 1
        return Slot(CAPABILITIES, self._give_back)

    def _give_back(self) -> None:
        self._promised -= 1
        self._changed.set()

    @contextlib.asynccontextmanager
    async def place(self, avoided: Collection[str]) -> AsyncIterator[Upstream]:
        """Hold a free service, one that is not to be avoided where there is a choice.

        Raises:
            BackendUnavailable: none is free.
        """
        free = sorted(self._free(), key=lambda upstream: (upstream.spec.name in avoided, upstream.rests_until))
        if not free:
            raise BackendUnavailable("no Duix service is free")
        upstream = free[0]
        upstream.held = True
        self._promised -= 1  # the slot's promise is kept: until it is given back, the service itself counts as taken
        try:
            yield upstream
        finally:
            self._promised += 1
            upstream.rests_until = max(upstream.rests_until, self._clock.monotonic())  # the one that rested longest is next
            if not upstream.leaving:
                self._set_free(upstream)

    def rest(self, upstream: Upstream, *, dead: bool = False) -> None:
        """Give a service no task for a while: it has a stranger's, or has to be restarted."""
        upstream.dead = dead
        upstream.rests_until = self._clock.monotonic() + (self._config.dead_s if dead else self._config.busy_s)
        if dead:
            log.error(
                "Duix service has to be restarted: restart its container",
                extra=fields(action="duix_restart_needed", backend=upstream.spec.name),
            )

    def give_up(self, upstream: Upstream, code: str) -> None:
        """Leave a service that has a task of ours which nobody waits for: it is free once that has ended."""
        upstream.leaving = True
        self._watches.add(self._spawn(self._see_off(upstream, code)))

    def know(self, code: str) -> None:
        """Take a task for ours until it is forgotten: the sweep leaves its files alone."""
        self._known.add(code)

    def forget(self, upstream: Upstream, code: str) -> None:
        """Have the files of a task that has ended removed, in a while: somebody may want to look at what went wrong."""
        self._spawn(self._remove_later(upstream, code))

    async def _remove_later(self, upstream: Upstream, code: str) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.cleanup_delay_s):
                await self._closing.wait()
        await self.forget_now(upstream, code)

    async def forget_now(self, upstream: Upstream, code: str) -> None:
        """Remove the files of a task that has ended, or that no service took."""
        await upstream.exchange.remove(code)
        self._known.discard(code)

    def remove_orphans(self, max_age_s: float) -> Swept:
        """Remove what killed replicas left in shared folders; blocking."""
        total = Swept()
        for upstream in self._all:
            if isinstance(upstream.exchange, SharedFolder):
                total += upstream.exchange.remove_orphans(max_age_s, frozenset(self._known))
        return total

    async def _see_off(self, upstream: Upstream, code: str) -> None:
        began, warned = self._clock.monotonic(), False
        while True:
            try:
                state = await upstream.client.query(code)
                if state is None or state.done or state.failed:
                    break
            except UpstreamDead:
                self.rest(upstream, dead=True)
                break
            except BackendLost:
                upstream.healthy = False  # a service that was restarted knows nothing of the task
            if not warned and self._clock.monotonic() - began > self._config.silence_s:
                warned = True
                log.warning(
                    "Duix service does not end a task: restart its container", extra=fields(action="duix_stuck", backend=upstream.spec.name)
                )
            await asyncio.sleep(self._config.poll_s)
        self.forget(upstream, code)
        upstream.leaving = False
        self._set_free(upstream)

    def _set_free(self, upstream: Upstream) -> None:
        upstream.held = False
        self._changed.set()

    def _free(self) -> list[Upstream]:
        now = self._clock.monotonic()
        return [up for up in self._all if up.healthy and not up.held and up.rests_until <= now]

    async def _look_after(self, upstream: Upstream) -> None:
        while True:
            if not upstream.held:  # a task that runs is looked at anyway
                await self._probe(upstream)
            self._metrics.gauge("duix_services_healthy", sum(up.healthy and not up.dead for up in self._all))
            self._changed.set()  # a rest may be over
            await asyncio.sleep(min(self._config.probe_s, self._config.busy_s))

    async def _probe(self, upstream: Upstream) -> None:
        was = upstream.healthy
        try:
            await upstream.client.probe()
            upstream.healthy = True
            if upstream.dead and upstream.rests_until <= self._clock.monotonic():
                upstream.dead = False
        except BackendLost as error:
            upstream.healthy = False
            if upstream.dead and not isinstance(error, UpstreamDead):  # it is being restarted
                upstream.dead, upstream.rests_until = False, 0.0
            if was:
                log.warning("Duix service lost", extra=fields(action="duix_lost", backend=upstream.spec.name, reason=str(error)))
        if upstream.healthy and not was:
            log.info("Duix service found", extra=fields(action="duix_found", backend=upstream.spec.name))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._watches.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fault = self._fault or error
            log.error("looking after Duix services broke", exc_info=error, extra=fields(action="duix_watch_broke"))
