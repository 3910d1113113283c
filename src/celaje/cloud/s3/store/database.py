"""The database of the object store: SQLite with a write-ahead log, its schema, and connections.

Keys are blobs: SQLite compares them byte by byte, which is S3's order ("list results are always returned in UTF-8
binary order"), and takes any byte, NUL included. Objects lie in the tree of their primary key, so a listing reads
neighbours and a page of a million keys costs as much as one of a thousand. Bodies of small objects are in a table of
their own: in the objects' tree they would push the keys apart.

`objects` has what a plain GET answers; what else its keys have had is in `versions` (versions.py).

`contents` has every file that a row counts on; what is not in it may be swept away. A commit is durable when it
returns (synchronous=FULL: the log is synced).
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from celaje.errors import InputError

VERSION = 4

_SCHEMA = """
CREATE TABLE buckets (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  account TEXT NOT NULL,
  region TEXT NOT NULL,
  created INTEGER NOT NULL,
  tags BLOB NOT NULL,
  settings BLOB NOT NULL DEFAULT x'80'  -- a map in MessagePack, empty: all has its default
);
CREATE INDEX buckets_of_account ON buckets (account, name);
CREATE TABLE objects (
  bucket INTEGER NOT NULL REFERENCES buckets (number),
  key BLOB NOT NULL,
  size INTEGER NOT NULL,
  etag TEXT NOT NULL,
  modified INTEGER NOT NULL,
  attributes BLOB NOT NULL,
  segments BLOB,
  body INTEGER,
  version TEXT NOT NULL DEFAULT '',
  rank INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE TABLE bodies (
  number INTEGER PRIMARY KEY,
  content BLOB NOT NULL
);
CREATE TABLE contents (
  id BLOB PRIMARY KEY,
  size INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE uploads (
  id TEXT PRIMARY KEY,
  bucket INTEGER NOT NULL REFERENCES buckets (number),
  key BLOB NOT NULL,
  initiated INTEGER NOT NULL,
  plan BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX uploads_of_bucket ON uploads (bucket, key, id);
CREATE TABLE parts (
  upload TEXT NOT NULL REFERENCES uploads (id),
  number INTEGER NOT NULL,
  size INTEGER NOT NULL,
  etag TEXT NOT NULL,
  modified INTEGER NOT NULL,
  content BLOB NOT NULL,
  checksum BLOB NOT NULL,
  PRIMARY KEY (upload, number)
) WITHOUT ROWID;
"""

_VERSIONS = """
CREATE TABLE versions (
  bucket INTEGER NOT NULL REFERENCES buckets (number),
  key BLOB NOT NULL,
  size INTEGER NOT NULL,
  etag TEXT NOT NULL,
  modified INTEGER NOT NULL,
  attributes BLOB NOT NULL,
  segments BLOB,
  body INTEGER,
  version TEXT NOT NULL,
  rank INTEGER NOT NULL,
  marker INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (bucket, key, rank)
) WITHOUT ROWID;
CREATE UNIQUE INDEX versions_by_id ON versions (bucket, key, version);
"""

# The id of the key that bodies' keys are wrapped with (encryption.py), from before the first is encrypted on.
_MASTER_KEYS = "CREATE TABLE master_keys (id BLOB PRIMARY KEY) WITHOUT ROWID;"

# What makes each version of the one before it.
_UPGRADES = {
    1: "ALTER TABLE buckets ADD COLUMN settings BLOB NOT NULL DEFAULT x'80';",
    2: "ALTER TABLE objects ADD COLUMN version TEXT NOT NULL DEFAULT '';"
    f"ALTER TABLE objects ADD COLUMN rank INTEGER NOT NULL DEFAULT 0; {_VERSIONS}",
    3: _MASTER_KEYS,
}


class Database:
    """The database at `path`, made if it is not there. InputError if it is not one that this version knows.

    Each thread reads through a connection of its own. There is one that writes, for `group_commit`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch(mode=0o600)  # small bodies are in it
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self.writer = self._connect()
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self.writer.close()
            raise InputError(
                f"{path} cannot be used as the object store's database: {error}; put it back from a copy, or move the"
                " directory away to begin with an empty store"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        # Closed by whichever thread closes the store, when no other uses it any more.
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, cached_statements=256, timeout=60
        )
        with self._lock:
            self._opened.append(connection)
        return connection

    def _prepare(self) -> None:
        writer = self.writer
        writer.execute("PRAGMA journal_mode = WAL").fetchone()
        writer.execute("PRAGMA synchronous = FULL")
        writer.execute("PRAGMA foreign_keys = ON")
        writer.execute("PRAGMA wal_autocheckpoint = 4000")
        (version,) = writer.execute("PRAGMA user_version").fetchone()
        if version == 0:
            made = f"{_SCHEMA} {_VERSIONS} {_MASTER_KEYS}"
            writer.executescript(f"BEGIN IMMEDIATE; {made} PRAGMA user_version = {VERSION}; COMMIT;")
            return
        while version in _UPGRADES:
            writer.executescript(f"BEGIN IMMEDIATE; {_UPGRADES[version]} PRAGMA user_version = {version + 1}; COMMIT;")
            version += 1
        if version != VERSION:
            raise InputError(
                f"{self._path} is of version {version} of the object store, and this celaje knows {VERSION}; use the"
                " celaje that wrote it"
            )

    @property
    def reader(self) -> sqlite3.Connection:
        """This thread's connection for reading. It sees what is committed when a statement begins."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect()
            connection.execute("PRAGMA query_only = ON")
            self._local.connection = connection
        return connection

    def close(self) -> None:
        """Close all connections; no other thread may be using one."""
        with self._lock:
            while self._opened:
                self._opened.pop().close()
