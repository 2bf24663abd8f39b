"""ComfyUI backends in the job store: who drives which, on SQLite and on PostgreSQL. The lease is 15 s."""

from __future__ import annotations

import pytest

from deployments.jobs.config import StoreConfig
from deployments.jobs.database import Database
from deployments.jobs.errors import BackendNotFound, NameTaken, StoreSuperseded
from deployments.jobs.model import BackendHealth, BackendSpec, BackendState
from deployments.jobs.ports import BackendRegistry
from deployments.jobs.store import SqlJobStore


def spec(name: str, **changes) -> BackendSpec:
    return BackendSpec(**({"name": name, "url": f"http://{name}:8188", "tags": ("gpu", "flux")} | changes))


@pytest.fixture
def registry(store: SqlJobStore) -> BackendRegistry:
    return store


@pytest.fixture
def restarted(store_config, clock):
    """Make a store on the same database, as after a crash of the one before."""

    async def start() -> SqlJobStore:
        store = SqlJobStore(store_config, clock)
        await store.start()
        return store

    return start


@pytest.fixture
def transactions(monkeypatch):
    """Count the commits."""
    made = []
    commit = Database._commit

    def counted(self, operations):
        made.append(operations)
        return commit(self, operations)

    monkeypatch.setattr(Database, "_commit", counted)
    return made


async def held(registry, owner, *released, health=None):
    """Call as a replica: names of what it holds, in capitals what it is to surrender."""
    holds = await registry.hold_backends(owner, health or {}, released)
    return [hold.spec.name.upper() if hold.surrender else hold.spec.name for hold in holds]


async def configured(registry, names):
    await registry.configure_backends([spec(name) for name in names])


async def states(registry):
    return {state.spec.name: state for state in await registry.backends()}


async def owners(registry):
    return {name: state.owner for name, state in (await states(registry)).items()}


async def test_configure_makes_the_backends_those_of_the_settings(registry):
    await configured(registry, "ab")
    await registry.add_backend(spec("r", in_flight=3, weight=0.1))
    await registry.configure_backends([spec("b", weight=2.5, tags=()), spec("c")])
    assert await registry.backends() == (
        BackendState(spec("b", weight=2.5, tags=()), draining=False, owner=None, health=None),
        BackendState(spec("c"), draining=False, owner=None, health=None),
        BackendState(spec("r", in_flight=3, weight=0.1, configured=False), draining=False, owner=None, health=None),
    )


async def test_configure_keeps_owners_and_drains_also_of_renamed_and_adopted_servers(registry):
    await configured(registry, "ab")
    await registry.add_backend(spec("r"))
    await held(registry, "one")
    await registry.drain_backend("r", draining=True)
    await registry.drain_backend("a", draining=True)
    renamed, adopted = spec("z", url="http://a:8188"), spec("y", url="http://r:8188")
    await registry.configure_backends([spec("b"), renamed, adopted])
    assert await registry.backends() == (
        BackendState(spec("b"), draining=False, owner="one", health=None),
        BackendState(adopted, draining=True, owner="one", health=None),
        BackendState(renamed, draining=True, owner="one", health=None),
    )


async def test_configured_backends_may_exchange_their_urls(registry):
    await configured(registry, "ab")
    await registry.configure_backends([spec("a", url="http://b:8188"), spec("b", url="http://a:8188")])
    assert {name: state.spec.url for name, state in (await states(registry)).items()} == {"a": "http://b:8188", "b": "http://a:8188"}


async def test_configure_refuses_settings_that_clash(registry):
    for clash in ([spec("a"), spec("a", url="http://x")], [spec("a"), spec("b", url="http://a:8188")]):
        with pytest.raises(NameTaken):
            await registry.configure_backends(clash)
    assert await registry.backends() == ()


async def test_add_changes_what_was_added_and_refuses_names_and_urls_of_others(registry):
    await configured(registry, "a")
    await registry.add_backend(spec("r"))
    await held(registry, "one")
    changed = await registry.add_backend(spec("r", url="http://new", in_flight=9))
    assert changed == BackendState(spec("r", url="http://new", in_flight=9, configured=False), draining=False, owner="one", health=None)
    for taken in (spec("a", url="http://other"), spec("s", url="http://new"), spec("s", url="http://a:8188")):
        with pytest.raises(NameTaken):
            await registry.add_backend(taken)
    assert sorted(await states(registry)) == ["a", "r"]


async def test_remove_takes_only_what_was_added(registry):
    await configured(registry, "a")
    await registry.add_backend(spec("r"))
    await held(registry, "one")
    await registry.remove_backend("r")
    with pytest.raises(NameTaken):
        await registry.remove_backend("a")
    with pytest.raises(BackendNotFound):
        await registry.remove_backend("r")
    assert await held(registry, "one") == ["a"]


async def test_drain_tells_the_owner_and_goes_back(registry):
    await configured(registry, "a")
    drained = await registry.drain_backend("a", draining=True)
    holds = await registry.hold_backends("one", {}, ())
    again = await registry.drain_backend("a", draining=False)
    assert (drained.draining, [hold.draining for hold in holds], again.draining) == (True, [True], False)
    with pytest.raises(BackendNotFound):
        await registry.drain_backend("none", draining=True)


async def test_one_replica_holds_all_and_a_second_gets_its_share_only_when_it_is_released(registry):
    await configured(registry, "abc")
    assert await held(registry, "one") == ["a", "b", "c"]
    assert await held(registry, "two") == []
    assert await held(registry, "one") == ["a", "b", "C"]
    assert await held(registry, "two") == []
    assert await held(registry, "one", "c") == ["a", "b"]
    assert await held(registry, "one") == ["a", "b"]  # free, but not of its share
    assert await held(registry, "two") == ["c"]
    assert await owners(registry) == {"a": "one", "b": "one", "c": "two"}


async def test_no_replica_goes_empty_while_another_has_two(registry):
    await configured(registry, "abcd")
    await held(registry, "one")
    await held(registry, "two")
    await held(registry, "one", "c", "d")
    assert await held(registry, "two") == ["c", "d"]
    assert await held(registry, "three") == []
    assert (await held(registry, "one"), await held(registry, "two")) == (["a", "b"], ["c", "D"])
    assert await held(registry, "two", "d") == ["c"]
    assert await held(registry, "one") == ["a", "b"]
    assert await held(registry, "three") == ["d"]


async def test_more_replicas_than_backends_leave_some_without(registry):
    await configured(registry, "a")
    assert await held(registry, "one") == ["a"]
    assert await held(registry, "two") == []
    assert await held(registry, "one") == ["a"]  # no surrender: the share of one of them is one


async def test_a_release_of_what_another_holds_changes_nothing(registry):
    await configured(registry, "ab")
    await held(registry, "one")
    await held(registry, "two")
    await held(registry, "one", "b")
    assert await held(registry, "two") == ["b"]
    assert await held(registry, "one", "b") == ["a"]  # the same release, sent again
    assert await held(registry, "two") == ["b"]


async def test_a_silent_replica_keeps_its_backends_for_the_lease_and_then_loses_them(registry, clock):
    await configured(registry, "ab")
    await held(registry, "dead")
    clock.advance(4.9)
    await held(registry, "dead")  # not written: the row has more than a lease left
    clock.advance(14.9)
    assert await held(registry, "two") == []
    assert await owners(registry) == {"a": "dead", "b": "dead"}
    clock.advance(5.2)
    assert await owners(registry) == {"a": None, "b": None}
    assert await held(registry, "two") == ["a", "b"]
    assert await held(registry, "dead") == []


async def test_a_replica_that_was_cut_off_goes_on_with_what_nobody_took(registry, clock):
    await configured(registry, "a")
    await held(registry, "one")
    clock.advance(60)
    assert await held(registry, "one") == ["a"]
    assert await held(registry, "two") == []


async def test_hold_writes_only_when_a_third_of_the_lease_is_over(registry, clock, transactions):
    await configured(registry, "ab")
    await held(registry, "one")
    transactions.clear()
    for _ in range(15):
        clock.advance(2)
        assert await held(registry, "one") == ["a", "b"]
    assert len(transactions) == 5  # each 6 s, the first call after 5 s


async def test_a_clock_that_is_set_forward_takes_nothing_from_those_who_call(registry, clock, monkeypatch):
    await configured(registry, "ab")
    await held(registry, "one")
    monkeypatch.setattr(clock, "monotonic", lambda now=clock.now: now)
    clock.advance(3600)
    assert await held(registry, "two") == []
    assert await owners(registry) == {"a": "one", "b": "one"}


async def test_a_draining_replica_keeps_what_it_holds_and_surrenders_it(registry, store):
    await configured(registry, "ab")
    await held(registry, "leaving")
    await store.withdraw("leaving")
    assert await held(registry, "leaving") == ["A", "B"]
    assert await held(registry, "two") == []
    assert await held(registry, "leaving", "a") == ["B"]
    assert await held(registry, "two") == ["a"]
    assert await held(registry, "leaving", "b") == []
    assert await held(registry, "leaving") == []
    assert await held(registry, "two") == ["a", "b"]


async def test_health_is_the_owners_newest_report(registry, clock):
    await configured(registry, "ab")
    well, ill = BackendHealth(healthy=True, version="0.3"), BackendHealth(healthy=False, reason="refused")
    await held(registry, "one", health={"a": ill, "b": ill})
    await held(registry, "two", health={"a": ill})  # holds none
    await held(registry, "one", "b", health={"a": well})
    assert await held(registry, "two") == ["b"]
    assert {name: state.health for name, state in (await states(registry)).items()} == {"a": well, "b": None}
    clock.advance(21)
    assert (await states(registry))["a"].health is None


async def test_a_restarted_store_keeps_one_owner_each_and_gives_a_fresh_lease(restarted, clock):
    first = await restarted()
    await configured(first, "ab")
    await first.add_backend(spec("r"))
    await held(first, "one")
    await held(first, "two")
    await held(first, "one", "r")
    await held(first, "two")
    await first.drain_backend("r", draining=True)
    await first.close()
    clock.advance(3600)
    second = await restarted()
    assert await held(second, "three") == []
    assert await owners(second) == {"a": "one", "b": "one", "r": "two"}
    assert (await states(second))["r"].draining
    clock.advance(14)
    assert await held(second, "one") == ["a", "B"]
    clock.advance(7)
    assert await held(second, "three") == ["r"]  # two did not call again
    await second.close()


async def test_an_older_store_promises_nothing_that_a_newer_one_could_break(postgres_database_url, clock):
    config = StoreConfig(database_url=postgres_database_url, lease_s=15, janitor_period_s=3600)
    older, newer = SqlJobStore(config, clock), SqlJobStore(config, clock)
    await older.start()
    await configured(older, "a")
    await held(older, "one")
    await newer.start()
    clock.advance(4)
    assert await held(older, "one") == ["a"]  # promised until 19 s
    clock.advance(14.9)
    assert await held(newer, "two") == []
    with pytest.raises(StoreSuperseded):
        await held(older, "one")
    clock.advance(1.2)
    assert await held(newer, "two") == ["a"]
    await older.close()
    await newer.close()


async def test_a_server_of_a_replicas_own_is_seen_for_a_lease_and_taken_by_nobody(registry, clock):
    await configured(registry, "a")
    await registry.announce_backend("replica-1", spec("own", configured=False), BackendHealth(healthy=True))
    assert await held(registry, "replica-2") == ["a"]
    assert registry._backend_watch.count_healthy(clock.monotonic()) == 1
    seen = (await states(registry))["own"]
    assert (seen.owner, seen.health, seen.draining) == ("replica-1", BackendHealth(healthy=True), False)
    clock.advance(16)
    assert set(await states(registry)) == {"a"}
    assert registry._backend_watch.count_healthy(clock.monotonic()) == 0
    with pytest.raises(BackendNotFound):
        await registry.drain_backend("own", draining=True)


async def test_a_backend_is_unhealthy_since_it_was_last_seen_healthy(registry, clock):
    await configured(registry, "a")
    clock.advance(3)
    assert (await states(registry))["a"].unhealthy_s == 3  # since the store began to look
    await registry.hold_backends("one", {"a": BackendHealth(healthy=True)}, ())
    assert (await states(registry))["a"].unhealthy_s == 0
    clock.advance(2)
    await registry.hold_backends("one", {"a": BackendHealth(healthy=False)}, ())
    clock.advance(4)
    assert (await states(registry))["a"].unhealthy_s == 6


async def test_a_server_that_a_replica_started_is_unhealthy_since_it_was_last_seen_healthy(registry, clock):
    await registry.announce_backend("one", spec("own"), BackendHealth(healthy=True))
    clock.advance(1)
    await registry.announce_backend("one", spec("own"), BackendHealth(healthy=False))
    clock.advance(1)
    assert (await states(registry))["own"].unhealthy_s == 2
