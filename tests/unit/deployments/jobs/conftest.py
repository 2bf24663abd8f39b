"""A store on a fresh database, a clock that tests own, and factories."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from deployments.jobs.config import StoreConfig
from deployments.jobs.model import Claim, NewJob
from deployments.jobs.store import SqlJobStore


class ManualClock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def new_job() -> Callable[..., NewJob]:
    def make(**changes: Any) -> NewJob:
        values: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "kind": "faceswap",
            "pool": "faceswap",
            "spec": {"kind": "faceswap"},
            "fingerprint": "f",
        }
        return NewJob(**(values | changes))

    return make


@pytest.fixture
def claim() -> Callable[..., Claim]:
    def make(**changes: Any) -> Claim:
        values: dict[str, Any] = {"claim_id": str(uuid.uuid4()), "pool": "faceswap", "owner": "replica-1", "wait_s": 0.0}
        return Claim(**(values | changes))

    return make


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of our own on a Unix socket; it refuses to run as root, so it runs as ``postgres`` there."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not binaries or shutil.which("runuser") is None:
        pytest.skip("no PostgreSQL server binaries in /usr/lib/postgresql (Debian: apt-get install postgresql)")
    bin_dir = binaries[-1].parent
    home = tmp_path_factory.mktemp("postgres")
    for folder in (home, *takewhile(lambda parent: parent.name.startswith(("pytest-", "popen-")), home.parents)):
        folder.chmod(0o755)
    shutil.chown(home, "postgres")
    as_postgres = ["runuser", "-u", "postgres", "--"]
    options = f"-c listen_addresses='' -c unix_socket_directories={home} -c fsync=off"
    subprocess.run([*as_postgres, bin_dir / "initdb", "-D", home / "data", "-A", "trust", "-U", "atelier"], check=True, capture_output=True)
    start = [*as_postgres, bin_dir / "pg_ctl", "-D", home / "data", "-o", options, "-w", "-l", home / "log", "start"]
    subprocess.run(start, check=True, capture_output=True)
    yield f"postgresql+psycopg://atelier@/postgres?host={home}"
    stop = [*as_postgres, bin_dir / "pg_ctl", "-D", home / "data", "-m", "immediate", "stop"]
    ended = subprocess.run(stop, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr + ended.stdout


@pytest.fixture
def postgres_database_url(postgres_url: str) -> str:
    """An empty database of its own."""
    name = f"t{uuid.uuid4().hex}"
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    return postgres_url.replace("/postgres?", f"/{name}?")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])  # check has a minute for everything
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same tests on both databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.db'}"
    url: str = request.getfixturevalue("postgres_database_url")
    return url


@pytest.fixture
def store_config(database_url: str) -> StoreConfig:
    # The janitor is called by hand, so that a test knows when.
    return StoreConfig(database_url=database_url, lease_s=15, stall_s=60, retry_backoff_s=2, janitor_period_s=3600)


@pytest.fixture
async def store(store_config: StoreConfig, clock: ManualClock) -> AsyncIterator[SqlJobStore]:
    store = SqlJobStore(store_config, clock)
    await store.start()
    yield store
    await store.close()
