"""The database, SQLite or PostgreSQL: its migrations, and transactions that end in time."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import StaticPool

from tasks.contract.errors import Code, TolkError
from telemetry import tracing

MIGRATIONS = Path(__file__).with_name("migrations")
CONNECTIONS = 8  # of one process, at most
DATABASE_TIMEOUT = 3.0  # seconds after which a database that does not answer counts as unavailable
SETTLE = 0.5  # seconds that an answer may wait for a write that `settle` makes
BACKOFF = (0.02, 0.5)  # seconds between attempts, at first and at most

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Database:
    """Runs transactions in threads of its own, so that a database that hangs delays no caller beyond the timeout.

    It connects at first use. An SQLite database is then upgraded by itself; PostgreSQL needs `upgrade`. Thread-safe.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._free = threading.BoundedSemaphore(1 if _in_memory(url) else CONNECTIONS)
        self._current = False  # whether the tables are known to be up to date

    def run(self, work: Callable[[Connection], T], *, until: float | None = None) -> T:
        """Runs `work` in a transaction and returns its result. Runs it again if the connection was lost or the database
        busy.

        Raises TolkError: UNAVAILABLE if there is no result within DATABASE_TIMEOUT seconds, TIMEOUT if there is none by
        `until` (Unix seconds). Work that was given up is not committed. Also raises what `work` raises.
        """
        patience = DATABASE_TIMEOUT if until is None else max(0.0, min(DATABASE_TIMEOUT, until - time.time()))
        given_up = threading.Event()
        try:
            with tracing.span("database"):
                return self._start(work, patience, given_up).result(patience)
        except TimeoutError:
            given_up.set()
            logger.warning("the database gave no answer within %.1f s", patience)
            if patience < DATABASE_TIMEOUT:
                raise TolkError(Code.TIMEOUT, "The deadline passed before the translation began.") from None
            raise _unavailable() from None

    def settle(self, work: Callable[[Connection], object]) -> None:
        """Runs `work` for which the caller need not wait. Returns after SETTLE seconds at most, while `work` goes on; a
        failure is logged."""
        with tracing.span("database"):
            future = self._start(work, DATABASE_TIMEOUT, threading.Event())
            future.add_done_callback(_log_failure)
            wait([future], SETTLE)

    def upgrade(self, revision: str = "head") -> None:
        """Brings the tables up to a revision of migrations/. If two processes do so at once, the second waits."""
        self._migrate(command.upgrade, revision)

    def downgrade(self, revision: str) -> None:
        """Takes the tables back to an earlier revision, or to `base`, which drops them."""
        self._migrate(command.downgrade, revision)

    def revision(self) -> str | None:
        """The revision of the tables, or None if there are none."""
        with self.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    @property
    def engine(self) -> Engine:
        """The connections to the database, made at first use."""
        with self._lock:
            if self._engine is None:
                self._engine = _connect(self.url)
            return self._engine

    def close(self) -> None:
        """Closes the connections that are not in use."""
        with self._lock:
            if self._engine is not None:
                self._engine.dispose()
            self._engine = None

    def _start(self, work: Callable[[Connection], T], patience: float, given_up: threading.Event) -> Future[T]:
        future: Future[T] = Future()
        until = time.monotonic() + patience

        def resolve() -> None:
            try:
                if not self._free.acquire(timeout=patience):
                    raise _unavailable()
                try:
                    future.set_result(self._transact(work, until, given_up))
                finally:
                    self._free.release()
            except BaseException as error:  # noqa: BLE001 - the caller that waits raises it
                future.set_exception(error)

        # The thread is a daemon, so that the process can end while the database hangs.
        threading.Thread(target=copy_context().run, args=(resolve,), name="database", daemon=True).start()
        return future

    def _transact(self, work: Callable[[Connection], T], until: float, given_up: threading.Event) -> T:
        pause = BACKOFF[0]
        while True:
            try:
                self._bring_up_to_date()
                with self.engine.connect() as connection, connection.begin() as transaction:
                    result = work(connection)
                    if given_up.is_set():
                        transaction.rollback()
                    return result
            except (OperationalError, InterfaceError, PoolTimeout) as error:
                if until - time.monotonic() <= pause or given_up.is_set():
                    logger.warning("the database failed: %s", _reason(error))
                    raise _unavailable() from error
                given_up.wait(random.uniform(0, pause))  # noqa: S311 - spreads attempts, guards nothing
                pause = min(2 * pause, BACKOFF[1])

    def _bring_up_to_date(self) -> None:
        if self._current:
            return
        if self.url.get_backend_name() == "sqlite":
            self.upgrade()
        elif self._lacks_tables():
            logger.error("The database is not up to date: run `flask --app app database upgrade`.")
            raise TolkError(
                Code.UNAVAILABLE, "The service's database is not up to date. Its operator has to upgrade it."
            )
        self._current = True

    def _lacks_tables(self) -> bool:
        """Whether the tables are missing or older than this release. Tables of a later release are accepted."""
        script = ScriptDirectory.from_config(_configuration())
        revision, head = self.revision(), script.get_current_head()
        if revision is None:
            return True
        try:
            return revision != head and script.get_revision(revision) is not None
        except CommandError:
            return False

    def _migrate(self, step: Callable[[Config, str], None], revision: str) -> None:
        with self.engine.begin() as connection:
            if connection.dialect.name == "postgresql":  # SQLite takes its lock with BEGIN IMMEDIATE
                connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(0x746F6C6B)))
            configuration = _configuration()
            configuration.attributes["connection"] = connection
            step(configuration, revision)
        self._current = False


def is_first(connection: Connection, lock: int) -> bool:
    """Whether no other transaction holds a lock, which this one then holds to its end. SQLite has one writer anyway."""
    if connection.dialect.name == "sqlite":
        return True
    return bool(connection.scalar(sqlalchemy.select(sqlalchemy.func.pg_try_advisory_xact_lock(lock))))


def _configuration() -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return configuration


def _connect(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        # Seconds to connect in, and milliseconds for a statement: callers wait no longer than that.
        limits = {"connect_timeout": 2, "options": f"-c statement_timeout={DATABASE_TIMEOUT * 1000:.0f}"}
        return sqlalchemy.create_engine(
            url, connect_args=limits, pool_pre_ping=True, pool_size=CONNECTIONS, hide_parameters=True
        )
    options: dict[str, Any] = {}
    if _in_memory(url):
        options = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    elif url.database:
        Path(url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds people's texts
    engine = sqlalchemy.create_engine(url, hide_parameters=True, **options)

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins no transactions of its own
        connection.execute("PRAGMA journal_mode = WAL")  # readers and writers do not wait for each other
        connection.execute("PRAGMA synchronous = NORMAL")  # a process that crashes loses nothing
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA busy_timeout = {DATABASE_TIMEOUT * 1000:.0f}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # a lock that is taken later may fail if others want it

    return engine


def _in_memory(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and not url.database


def _log_failure(future: Future[object]) -> None:
    if (error := future.exception()) is not None:
        logger.error("could not write to the database: %s", _reason(error))


def _unavailable() -> TolkError:
    return TolkError(Code.UNAVAILABLE, "The service's database does not answer. Try again in a moment.", 1.0)


def _reason(error: BaseException) -> str:
    """The text of an error, without the statement and its parameters, which may hold people's texts."""
    return str(error.orig).strip() if isinstance(error, DBAPIError) else str(error) or type(error).__name__
