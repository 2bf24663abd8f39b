"""Who drives which ComfyUI server, as pure functions from the rows to the rows after them, and what only memory knows of it.

A lease is written a third longer than it is promised, so that a replica that calls every few seconds costs a write only now and then
and still has on disk whatever it was told: nobody takes a backend before ``lease_s`` after its owner's last call, not even a newer
store that knows nothing of that call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from deployments.jobs.errors import BackendNotFound, NameTaken
from deployments.jobs.model import BackendHealth, BackendHold, BackendSpec, BackendState

HEALTH_KEPT_S = 3600.0  # when a backend was healthy: names of servers that replicas start for themselves never come again
WRITTEN_AHEAD = 4 / 3  # of what is promised: a write each third of a lease


@dataclass(frozen=True, slots=True)
class BackendRow:
    """A backend as it is on disk."""

    spec: BackendSpec
    draining: bool = False
    owner: str | None = None
    lease_until: float = 0.0  # on the store's clock; means nothing without an owner


Rows = Mapping[str, BackendRow]  # by name


@dataclass(frozen=True, slots=True)
class Callers:
    """Which bridge replicas there are."""

    recent: frozenset[str] = frozenset()  # called within a lease, by a clock that never jumps
    leaving: frozenset[str] = frozenset()  # drain: get nothing more, and give back what they have

    def hold(self, row: BackendRow, now: float) -> bool:
        """Whether somebody holds a backend: its lease runs, or its owner is known to be there although the clock was set forward."""
        return row.owner is not None and (row.lease_until > now or row.owner in self.recent)


class BackendWatch:
    """What the replicas say of themselves and of their backends. In memory; used from the event loop only."""

    def __init__(self, lease_s: float, now: float) -> None:
        self._lease_s = lease_s
        self._began = now
        self._seen_healthy: dict[str, float] = {}  # name -> when last
        self._called: dict[str, float] = {}  # owner -> monotonic
        self._health: dict[tuple[str, str], BackendHealth] = {}  # (owner, name)
        self._own: dict[str, tuple[float, BackendSpec, BackendHealth | None]] = {}  # owner -> when, which server it started for itself

    def heard(self, owner: str, health: Mapping[str, BackendHealth], now: float) -> None:
        """Note a call and what it reports; what the replica does not report any more is forgotten."""
        self._called[owner] = now
        self._called = {who: at for who, at in self._called.items() if now - at <= self._lease_s}
        others = {key: known for key, known in self._health.items() if key[0] != owner and key[0] in self._called}
        self._health = others | {(owner, name): report for name, report in health.items()}
        lately = {name: at for name, at in self._seen_healthy.items() if now - at <= HEALTH_KEPT_S}
        self._seen_healthy = lately | {name: now for name, report in health.items() if report.healthy}

    def announced(self, owner: str, spec: BackendSpec, health: BackendHealth | None, now: float) -> None:
        """Note the server that a replica has started for itself."""
        self._own = {who: known for who, known in self._own.items() if now - known[0] <= self._lease_s} | {owner: (now, spec, health)}
        if health is not None and health.healthy:
            self._seen_healthy[spec.name] = now

    def own_servers(self, now: float) -> tuple[BackendState, ...]:
        """Return the servers that replicas have started for themselves and that were announced within a lease."""
        recent = ((who, spec, health) for who, (at, spec, health) in self._own.items() if now - at <= self._lease_s)
        return tuple(BackendState(spec, False, who, health, self._unhealthy_s(spec.name, health, now)) for who, spec, health in recent)

    def count_healthy(self, now: float) -> int:
        """Count the servers that somebody drives and finds healthy."""
        driven = (health for (who, _), health in self._health.items() if now - self._called.get(who, -self._lease_s) <= self._lease_s)
        return sum(health.healthy for health in driven) + sum(bool(own.health and own.health.healthy) for own in self.own_servers(now))

    def callers(self, leaving: Collection[str], now: float) -> Callers:
        """Return who is there: a value, because the rules run in the database's threads."""
        recent = frozenset(who for who, at in self._called.items() if now - at <= self._lease_s)
        return Callers(recent, frozenset(leaving))

    def state(self, row: BackendRow, callers: Callers, wall: float, now: float) -> BackendState:
        """Return a backend as people see it; ``wall`` is the time on the store's clock, by which leases are written."""
        name, owner = row.spec.name, row.owner if callers.hold(row, wall) else None
        health = self._health.get((owner, name)) if owner is not None else None
        return BackendState(row.spec, row.draining, owner, health, self._unhealthy_s(name, health, now))

    def _unhealthy_s(self, name: str, health: BackendHealth | None, now: float) -> float:
        return 0.0 if health is not None and health.healthy else now - self._seen_healthy.get(name, self._began)


def configure(rows: Rows, specs: Sequence[BackendSpec]) -> Rows:
    """Make the configured backends those of the settings.

    A server that was known under another name, by its URL, keeps its owner and its drain under the new one.

    Raises:
        NameTaken: two of the settings share a name or a URL.
    """
    by_name, urls = {spec.name: spec for spec in specs}, {spec.url for spec in specs}
    if min(len(by_name), len(urls)) < len(specs):
        raise NameTaken("two configured ComfyUI backends have the same name or URL")
    by_url = {row.spec.url: row for row in rows.values() if row.spec.name not in by_name}
    added = {name: row for name, row in rows.items() if not row.spec.configured and name not in by_name and row.spec.url not in urls}
    known = {name: rows.get(name) or by_url.get(spec.url) or BackendRow(spec) for name, spec in by_name.items()}
    return added | {name: replace(known[name], spec=replace(spec, configured=True)) for name, spec in by_name.items()}


def add(rows: Rows, spec: BackendSpec) -> Rows:
    """Add a backend at run time, or change one that was added so.

    Raises:
        NameTaken: the name or the URL is that of another backend.
    """
    known = rows.get(spec.name)
    if known is not None and known.spec.configured:
        raise NameTaken(f"backend {spec.name} is configured in the settings: choose another name")
    for name, row in rows.items():
        if row.spec.url == spec.url and name != spec.name:
            raise NameTaken(f"the URL is that of backend {name}: a server is driven under one name")
    return {**rows, spec.name: replace(known or BackendRow(spec), spec=replace(spec, configured=False))}


def remove(rows: Rows, name: str) -> Rows:
    """Remove a backend that was added at run time.

    Raises:
        BackendNotFound: no such backend.
        NameTaken: it is configured in the settings.
    """
    if _existing(rows, name).spec.configured:
        raise NameTaken(f"backend {name} is configured in the settings: drain it, or take it out of them")
    return {other: row for other, row in rows.items() if other != name}


def drain(rows: Rows, name: str, *, draining: bool) -> Rows:
    """Stop sending jobs to a backend, or go on.

    Raises:
        BackendNotFound: no such backend.
    """
    return {**rows, name: replace(_existing(rows, name), draining=draining)}


def restore(rows: Rows, now: float, lease_s: float) -> Rows:
    """Give the owners a fresh lease: it was the store that was away, not they."""
    until = now + lease_s * WRITTEN_AHEAD
    return {name: replace(row, lease_until=until) if row.owner is not None else row for name, row in rows.items()}


def hold(rows: Rows, owner: str, released: Collection[str], callers: Callers, now: float, lease_s: float) -> Rows:
    """Renew a replica's leases, give back some and take free backends up to its share; equal rows when nothing needs writing."""
    given_back = {name for name in released if name in rows and rows[name].owner == owner}
    after = {
        name: replace(row, owner=None, lease_until=0.0)
        if name in given_back or (row.owner is not None and not callers.hold(row, now))
        else row
        for name, row in rows.items()
    }
    mine = [name for name, row in after.items() if row.owner == owner]
    # What was given back by this very call is for others first.
    free = sorted(name for name, row in after.items() if row.owner is None and name not in released)
    taken = free[: max(0, shares(after, callers).get(owner, 0) - len(mine))]
    if taken or any(after[name].lease_until < now + lease_s for name in mine):
        until = now + lease_s * WRITTEN_AHEAD
        after |= {name: replace(after[name], owner=owner, lease_until=until) for name in (*mine, *taken)}
    return after


def holds(rows: Rows, owner: str, callers: Callers) -> tuple[BackendHold, ...]:
    """Return what a replica holds, by name; what is over its share is to be surrendered, the last names first."""
    mine = sorted((row for row in rows.values() if row.owner == owner), key=lambda row: row.spec.name)
    share = shares(rows, callers).get(owner, 0)
    return tuple(BackendHold(row.spec, row.draining, surrender=n >= share) for n, row in enumerate(mine))


def shares(rows: Rows, callers: Callers) -> dict[str, int]:
    """Return how many backends each replica should hold: as even as can be, and the odd ones with those who have most, to move least."""
    held = Counter(row.owner for row in rows.values() if row.owner is not None)
    replicas = sorted((callers.recent | held.keys()) - callers.leaving, key=lambda who: (-held[who], who))
    if not replicas:
        return {}
    each, odd = divmod(len(rows), len(replicas))
    return {who: each + (n < odd) for n, who in enumerate(replicas)}


def _existing(rows: Rows, name: str) -> BackendRow:
    if name not in rows:
        raise BackendNotFound(name)
    return rows[name]
