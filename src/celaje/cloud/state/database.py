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
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from celaje import paths
from celaje.cloud.state.migrations import upgrade

READERS = 32  # connections at once
BUSY_SECONDS = 30.0  # another process with the file, such as a copy being taken, may hold it for so long


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

    def prepare(self) -> None:
        """Bring the tables to what this celaje knows. InputError for a database of a newer one."""
        upgrade(self._engine, str(self._path))

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one moment and changes nothing."""
        with Session(self._engine, autoflush=False, expire_on_commit=False) as session:
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """A session that is committed, durably, at the end of the block, or rolled back where that raises. One at a
        time: keep it short, and ask nobody else in it."""
        with self._writing:
            engine = self._engine.execution_options(writes=True)
            with Session(engine, expire_on_commit=False) as session, session.begin():
                yield session

    def close(self) -> None:
        """Give up its connections."""
        self._engine.dispose()


def _configure(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    assert isinstance(connection, sqlite3.Connection)
    connection.isolation_level = None  # transactions begin where _begin says so, not where the driver guesses
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16384"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # A transaction that will write says so first: one that began by reading could find that another wrote since.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
