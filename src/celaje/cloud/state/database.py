"""The database: transactions that read, and transactions that write, one at a time.

SQLite in WAL: who reads sees one moment and waits for nobody; a commit is on the disk when it returns
(synchronous=FULL), so what a client was told is there after a loss of power.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from celaje import paths
from celaje.cloud.state.migrations import upgrade

READERS = 40  # connections at once
DIALECT = sqlite.dialect()  # in which prepared statements are written
BUSY_SECONDS = 30.0  # another process with the file, such as a copy being taken, may hold it for so long


class ReadSession(Session):
    """A session of Database.read. It is used again and again, with its connection: to make both for each request
    takes longer than most of what is asked. Statements that are prepared go past it (prepared.py)."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, autoflush=False, expire_on_commit=False)
        self.opened = connection
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        self._driver = driver

    def driver(self) -> sqlite3.Connection:
        """The driver's connection, in the transaction that all of this session's statements see."""
        if not self._driver.in_transaction:
            self.opened.begin()
        return self._driver

    def finish(self) -> None:
        """Let go of all that was loaded, and of the moment that was seen."""
        self.close()
        if self.opened.in_transaction():
            self.opened.rollback()


class Database:
    """The database in `path`, made where there is none. Threads may share it."""

    def __init__(self, path: Path) -> None:
        paths.made(path.parent)
        self._path = path
        path.touch(mode=0o600)
        self._engine: Engine = create_engine(
            f"sqlite:///{path}", connect_args={"timeout": BUSY_SECONDS}, poolclass=QueuePool, pool_size=READERS
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        self._writing = threading.Lock()
        self._idle: list[ReadSession] = []  # the last one first: its caches are warm
        self._writer: Connection | None = None
        self._closed = False

    def prepare(self) -> None:
        """Bring the tables to what this celaje knows. InputError for a database of a newer one."""
        upgrade(self._engine, str(self._path))

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one moment and changes nothing."""
        try:
            session = self._idle.pop()
        except IndexError:
            session = ReadSession(self._engine.connect())
        try:
            yield session
        except BaseException:
            self._let_go(session)
            raise
        self._let_go(session)

    def _let_go(self, session: ReadSession) -> None:
        try:
            session.finish()
        except BaseException:
            session.opened.close()
            raise
        if self._closed:
            session.opened.close()
        else:
            self._idle.append(session)

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """A session that is committed, durably, at the end of the block, or rolled back where that raises. One at a
        time: keep it short, and ask nobody else in it."""
        with self._writing:
            if self._writer is None:
                self._writer = self._engine.connect().execution_options(writes=True)
            try:
                with Session(self._writer, expire_on_commit=False) as session, session.begin():
                    yield session
            finally:
                if self._writer.in_transaction():  # what could not even be rolled back
                    self._writer.close()
                    self._writer = None

    def close(self) -> None:
        """Give up its connections."""
        self._closed = True
        while self._idle:
            self._idle.pop().opened.close()
        with self._writing:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
        self._engine.dispose()


def _configure(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    assert isinstance(connection, sqlite3.Connection)
    connection.isolation_level = None  # transactions begin where _begin says so, not where the driver guesses
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16384"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # A transaction that will write says so first: one that began by reading could find that another wrote since.
    writes = connection.get_execution_options().get("writes", False)
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
