"""The job store's register of ComfyUI servers: the rules of ``backend_leases`` over the database."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from deployments.jobs import backend_leases
from deployments.jobs.backend_leases import BackendWatch, Callers, Rows
from deployments.jobs.backend_table import select_backends, update_backends
from deployments.jobs.config import StoreConfig
from deployments.jobs.database import Database, Transaction
from deployments.jobs.model import BackendHealth, BackendHold, BackendSpec, BackendState
from deployments.jobs.ports import Clock


class BackendDesk:
    """The part of the job store that implements :class:`deployments.jobs.ports.BackendRegistry`."""

    _config: StoreConfig
    _clock: Clock
    _db: Database
    _withdrawn: deque[str]
    _backend_watch: BackendWatch

    async def configure_backends(self, specs: Sequence[BackendSpec]) -> None:
        """See :meth:`deployments.jobs.ports.BackendRegistry.configure_backends`."""
        await self._change(lambda rows, _now: backend_leases.configure(rows, specs))

    async def add_backend(self, spec: BackendSpec) -> BackendState:
        """See :meth:`deployments.jobs.ports.BackendRegistry.add_backend`."""
        return self._state(await self._change(lambda rows, _now: backend_leases.add(rows, spec)), spec.name)

    async def remove_backend(self, name: str) -> None:
        """See :meth:`deployments.jobs.ports.BackendRegistry.remove_backend`."""
        await self._change(lambda rows, _now: backend_leases.remove(rows, name))

    async def drain_backend(self, name: str, *, draining: bool) -> BackendState:
        """See :meth:`deployments.jobs.ports.BackendRegistry.drain_backend`."""
        return self._state(await self._change(lambda rows, _now: backend_leases.drain(rows, name, draining=draining)), name)

    async def announce_backend(self, owner: str, spec: BackendSpec, health: BackendHealth | None) -> None:
        """See :meth:`deployments.jobs.ports.BackendRegistry.announce_backend`."""
        self._backend_watch.announced(owner, spec, health, self._clock.monotonic())

    async def backends(self) -> tuple[BackendState, ...]:
        """See :meth:`deployments.jobs.ports.BackendRegistry.backends`."""
        rows = await self._db.read(select_backends)
        states = {name: self._state(rows, name) for name in rows}
        shown = {state.spec.name: state for state in self._backend_watch.own_servers(self._clock.monotonic())} | states
        return tuple(shown[name] for name in sorted(shown))

    async def hold_backends(self, owner: str, health: Mapping[str, BackendHealth], released: Sequence[str]) -> tuple[BackendHold, ...]:
        """See :meth:`deployments.jobs.ports.BackendRegistry.hold_backends`."""
        self._backend_watch.heard(owner, health, self._clock.monotonic())
        callers = self._callers()

        def hold(rows: Rows, now: float) -> Rows:
            return backend_leases.hold(rows, owner, released, callers, now, self._config.lease_s)

        rows = await self._db.read(select_backends)
        if hold(rows, self._clock.time()) != rows:  # bridges call every few seconds, and mostly nothing has changed
            rows = await self._change(hold)
        return backend_leases.holds(rows, owner, callers)

    async def _restore_backends(self) -> None:
        """Give the owners a fresh lease at the store's start."""
        await self._change(lambda rows, now: backend_leases.restore(rows, now, self._config.lease_s))

    async def _change(self, rule: Callable[[Rows, float], Rows]) -> Rows:
        """Apply a rule in a transaction and return the rows after it."""

        def operation(tx: Transaction) -> Rows:
            before = select_backends(tx.connection)
            after = rule(before, tx.now)
            update_backends(tx.connection, before, after)
            return after

        return await self._db.write(operation)

    def _callers(self) -> Callers:
        return self._backend_watch.callers(self._withdrawn, self._clock.monotonic())

    def _state(self, rows: Rows, name: str) -> BackendState:
        return self._backend_watch.state(rows[name], self._callers(), self._clock.time(), self._clock.monotonic())
