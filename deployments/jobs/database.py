"""One writer over one database: migrations, the epoch that fences older stores, and group commit.

Group commit: operations that arrive while a transaction runs wait together for the next one, so that 64 clients pay for one fsync
instead of 64. An operation is answered only after COMMIT.
"""

from __future__ import annotations

import asyncio
import fcntl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig

from deployments.jobs.errors import ServiceError, StoreSuperseded, StoreUnavailable
from deployments.jobs.events import EventId, EventType, JobEvent
from deployments.jobs.logs import fields, get_logger
from deployments.jobs.model import Job, JobError
from deployments.jobs.ports import Clock
from deployments.jobs.tables import EVENTS, META, row_of_event

log = get_logger(__name__)
T = TypeVar("T")

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_WAIT_S = 20.0  # a killed store's lock is free at once; one that is being stopped needs its last commit


class Transaction:
    """What an operation may do: run SQL, and say what changed."""

    def __init__(self, connection: sa.Connection, now: float) -> None:
        self.connection = connection
        self.now = now
        self.drafts: list[tuple[Job, JobError | None]] = []
        self.effects: list[Callable[[], None]] = []

    def emit(self, job: Job, error: JobError | None = None) -> None:
        """Announce a job's new state; it gets its event id at COMMIT."""
        self.drafts.append((job, error))

    def after_commit(self, effect: Callable[[], None]) -> None:
        """Have something done on the event loop once this is on disk.

        What the memory holds follows the disk from here, not from the caller's coroutine: a client that goes away cancels that.
        """
        self.effects.append(effect)


@dataclass(slots=True)
class _Done:
    """What became of a batch."""

    outcomes: list[Any]
    effects: list[Callable[[], None]] = field(default_factory=list)
    events: list[JobEvent] = field(default_factory=list)
    in_doubt: bool = False


class Database:
    """The job store's connection to SQLite or PostgreSQL. Not shared: one per store, used from one event loop."""

    def __init__(self, url: str, clock: Clock, publish: Callable[[list[JobEvent]], None], doubt: Callable[[], None]) -> None:
        """Prepare; ``open`` connects.

        Args:
            url: SQLAlchemy URL, ``sqlite:///…`` or ``postgresql+psycopg://…``.
            clock: store's clock.
            publish: called on the event loop after each commit with its state events, in order; at that moment
                ``next_event_id`` may be called.
            doubt: called on the event loop when a transaction broke: nobody knows whether it is on disk.
        """
        self._url = sa.make_url(url)
        self._clock = clock
        self._publish = publish
        self._doubt = doubt
        self._engine = _build_engine(self._url)
        self._writer = ThreadPoolExecutor(1, "job-store-write")
        self._reader = ThreadPoolExecutor(2, "job-store-read")
        self._pending: list[tuple[Callable[[Transaction], Any], asyncio.Future[Any]]] = []
        self._flush: asyncio.Task[None] | None = None
        self._lock: IO[bytes] | None = None
        self.epoch = 0
        self._n = 0

    async def open(self) -> None:
        """Lock, migrate and take the next epoch.

        Raises:
            StoreUnavailable: another store holds the database, or it cannot be opened.
        """
        await asyncio.get_running_loop().run_in_executor(self._writer, self._open)

    async def close(self) -> None:
        """Write what is pending and let the database go."""
        if self._flush is not None:
            await self._flush
        self._writer.shutdown()
        self._reader.shutdown()
        self._engine.dispose()
        if self._lock is not None:
            self._lock.close()

    @property
    def committing(self) -> bool:
        """Whether a transaction is under way: until it ends, its events' numbers are taken but not published."""
        return self._flush is not None

    def next_event_id(self) -> EventId:
        """Take the number of an event that is not stored. Not while ``committing``: readers must see ids in order."""
        self._n += 1
        return EventId(self.epoch, self._n)

    @property
    def last_event_id(self) -> EventId:
        """The newest number given."""
        return EventId(self.epoch, self._n)

    async def write(self, operation: Callable[[Transaction], T]) -> T:
        """Run an operation in the next transaction and return its result after COMMIT.

        An operation that raises is rolled back alone.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append((operation, future))
        if self._flush is None:
            self._flush = asyncio.get_running_loop().create_task(self._flush_pending())
        return await future

    async def read(self, query: Callable[[sa.Connection], T]) -> T:
        """Run a read-only query beside the writer."""

        def run() -> T:
            try:
                with self._engine.connect() as connection:
                    return query(connection)
            except sa.exc.SQLAlchemyError as error:
                log.exception("read failed", extra=fields(action="read_failed"))
                raise StoreUnavailable(f"the job database cannot be read ({type(error).__name__}): see the store's log") from None

        return await asyncio.get_running_loop().run_in_executor(self._reader, run)

    async def _flush_pending(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._pending:
                batch, self._pending = self._pending, []
                done = await loop.run_in_executor(self._writer, self._commit_or_explain, [operation for operation, _ in batch])
                for effect in done.effects:
                    effect()
                self._publish(done.events)
                if done.in_doubt:
                    self._doubt()
                for (_, future), outcome in zip(batch, done.outcomes, strict=True):
                    _resolve(future, outcome)
        finally:
            self._flush = None

    def _commit_or_explain(self, operations: list[Callable[[Transaction], Any]]) -> _Done:
        try:
            return self._commit(operations)
        except StoreSuperseded as error:
            log.error("a newer job store took over", extra=fields(action="store_superseded"))  # noqa: TRY400 -- no bug of ours
            return _Done([error] * len(operations))
        except Exception as error:  # whatever broke, nobody may wait for an answer for ever
            log.exception("commit failed", extra=fields(action="commit_failed", operations=len(operations)))
            failure = StoreUnavailable(f"the job database refused a write ({type(error).__name__}): see the store's log")
            return _Done([failure] * len(operations), in_doubt=True)

    def _commit(self, operations: list[Callable[[Transaction], Any]]) -> _Done:
        done = _Done([])
        drafts: list[tuple[Job, JobError | None]] = []
        now = self._clock.time()
        with self._engine.begin() as connection:
            self._check_epoch(connection)
            for operation in operations:
                transaction = Transaction(connection, now)
                try:
                    with connection.begin_nested():
                        done.outcomes.append(operation(transaction))
                except sa.exc.OperationalError:
                    raise  # the disk or the connection: nothing in this batch is safe
                except ServiceError as error:
                    done.outcomes.append(error)
                except Exception as error:  # handed to the one caller whose operation it was
                    log.exception("operation failed", extra=fields(action="operation_failed"))
                    done.outcomes.append(StoreUnavailable(f"the job database refused an operation ({type(error).__name__})"))
                else:
                    drafts.extend(transaction.drafts)
                    done.effects.extend(transaction.effects)
            done.events.extend(self._event(job, error, now) for job, error in drafts)
            if done.events:
                connection.execute(EVENTS.insert(), [row_of_event(event) for event in done.events])
        return done

    def _event(self, job: Job, error: JobError | None, now: float) -> JobEvent:
        self._n += 1
        return JobEvent(
            id=EventId(self.epoch, self._n),
            type=EventType.STATE,
            job_id=job.id,
            tenant=job.tenant,
            at=now,
            status=job.status,
            attempt=job.attempt,
            error=error,
            coalesce_key=job.coalesce_key,
            coalesce_seq=job.coalesce_seq,
            outputs=job.outputs if job.coalesce_key is not None else (),
        )

    def _check_epoch(self, connection: sa.Connection) -> None:
        newest = connection.execute(sa.select(META.c.epoch).with_for_update()).scalar_one()
        if newest != self.epoch:
            raise StoreSuperseded(f"store epoch {self.epoch} was superseded by {newest}")

    def _open(self) -> None:
        if self._url.get_backend_name() == "sqlite":
            self._lock = _take_file_lock(Path(str(self._url.database) + ".lock"))
        try:
            with self._engine.begin() as connection:
                _migrate(connection)
                connection.execute(META.update().values(epoch=META.c.epoch + 1))
                self.epoch = connection.execute(sa.select(META.c.epoch)).scalar_one()
        except sa.exc.SQLAlchemyError as error:
            shown = self._url.render_as_string(hide_password=True)
            raise StoreUnavailable(f"cannot open the job database {shown}: {type(error).__name__}") from error


def _resolve(future: asyncio.Future[Any], outcome: object) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _build_engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True)
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url)

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:  # noqa: ANN401 -- the driver's own connection type
        connection.isolation_level = None  # SQLAlchemy sends BEGIN itself, or savepoints would not nest in a transaction
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # NORMAL may lose the last commits when the power goes
        connection.execute("PRAGMA busy_timeout=5000")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _migrate(connection: sa.Connection) -> None:
    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _take_file_lock(path: Path) -> IO[bytes]:
    """Lock out a second store on the same file: the kernel frees the lock of a killed process at once."""
    file = path.open("ab")
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise StoreUnavailable(
                    "another job store has the database open: stop it, or give this one its own ATELIER_DATA_DIR"
                ) from None
            time.sleep(0.1)  # flock has no timed form
        else:
            return file
