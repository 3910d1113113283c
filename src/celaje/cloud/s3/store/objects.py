"""The objects of the store: put, found, read, listed and deleted by key."""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from celaje.cloud.s3.store.buckets import forget_contents
from celaje.cloud.s3.store.contents import Contents, Reaper
from celaje.cloud.s3.store.database import Database
from celaje.cloud.s3.store.group_commit import After, GroupCommit, Pending, StoreFailed
from celaje.cloud.s3.store.listing import Page, Row, list_page, range_query, rows_between
from celaje.cloud.s3.store.receive import Received
from celaje.cloud.s3.store.records import (
    Attributes,
    Bucket,
    Segment,
    StoredObject,
    decode_attributes,
    encode,
    packed,
    unpacked,
)
from celaje.cloud.s3.store.refusals import no_such_bucket, no_such_key

Condition = Callable[[StoredObject | None], None]
"""Looks at what a key has at the very moment of a change, and raises if the change must not be."""

_COLUMNS = "key, size, etag, modified, attributes, segments, body"
_FIND = f"SELECT {_COLUMNS} FROM objects WHERE bucket = ? AND key = ?"
_BODY = "SELECT content FROM bodies WHERE number = ?"
_RANGE = range_query(f"{_COLUMNS} FROM objects", "bucket = ?", "key")
_TRIES = 16  # a row that is replaced again and again between a look at it and a look at its body


def stored(row: Row) -> StoredObject:
    """The object of a row of `_COLUMNS`."""
    key, size, etag, modified, attributes, segments, body = row
    return StoredObject(key, size, etag, modified, decode_attributes(attributes), unpacked(segments), body)  # type: ignore[arg-type]  # the schema says what the columns are


class Opened:
    """An object that is being read. What it has stays as it is, whatever happens to its key, until `close`."""

    def __init__(self, found: StoredObject, body: bytes | None, contents: Contents) -> None:
        self.object = found
        self.body = body
        self._contents = contents
        self._pinned = [each.content for each in found.segments]

    def pieces(self, start: int, length: int) -> Iterator[tuple[Path, int, int]]:
        """(file, offset, length) of a range of the body that is in files, in order. It lies within the object."""
        for segment in self.object.segments:
            if length <= 0:
                return
            if start < segment.size:
                count = min(length, segment.size - start)
                yield self._contents.path(segment.content), start, count
                length -= count
                start = 0
            else:
                start -= segment.size

    def close(self) -> None:
        """Let go of it. Once is enough."""
        pinned, self._pinned = self._pinned, []
        if pinned:
            self._contents.unpin(pinned)


@dataclass(frozen=True, slots=True)
class Change:
    """What a put or delete found: the object that the key had before."""

    before: StoredObject | None
    after: StoredObject | None


class Objects:
    """Objects by bucket and key (1 to 1024 bytes, any)."""

    def __init__(self, database: Database, commit: GroupCommit, contents: Contents, reaper: Reaper) -> None:
        self._database = database
        self._commit = commit
        self._contents = contents
        self._reaper = reaper

    # --- reading ---

    def find(self, bucket: Bucket, key: bytes) -> StoredObject | None:
        """What the key has; None if nothing."""
        row = self._database.reader.execute(_FIND, (bucket.number, key)).fetchone()
        return None if row is None else stored(row)

    def open(self, bucket: Bucket, key: bytes) -> Opened:
        """The same, to read its body. NoSuchKey."""
        for _ in range(_TRIES):
            found = self.find(bucket, key)
            if found is None:
                raise no_such_key(key)
            if found.segments:
                # Again, now that no file can go between the look and the pin.
                found = self._pinned(bucket, key)
                if found is not None and found.segments:
                    return Opened(found, None, self._contents)
                continue
            if found.body is None:
                return Opened(found, b"", self._contents)
            row = self._database.reader.execute(_BODY, (found.body,)).fetchone()
            if row is not None and len(row[0]) == found.size:
                return Opened(found, row[0], self._contents)
        raise StoreFailed(errno.EIO, f"the object {key!r} is replaced faster than it can be read, or its body is lost")

    def _pinned(self, bucket: Bucket, key: bytes) -> StoredObject | None:
        found: list[StoredObject | None] = []

        def look() -> Sequence[bytes]:
            found.append(self.find(bucket, key))
            return [segment.content for segment in found[0].segments] if found[0] is not None else []

        self._contents.pin(look)
        return found[0]

    def page(
        self,
        bucket: Bucket,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after: bytes = b"",
        limit: int = 1000,
    ) -> Page[StoredObject]:
        """A page of keys in order."""
        reader = self._database.reader

        def rows(first: bytes, end: bytes | None) -> Iterator[StoredObject]:
            return map(stored, rows_between(reader, _RANGE, bucket.number, first, end))

        return list_page(rows, lambda each: each.key, prefix=prefix, delimiter=delimiter, after=after, limit=limit)

    # --- changing ---

    def put(
        self,
        bucket: Bucket,
        key: bytes,
        received: Received,
        attributes: Attributes,
        condition: Condition | None = None,
        etag: str = "",
    ) -> Pending[Change]:
        """Let the key have what was received, in place of what it had. The receipt is used up, whatever happens.

        NoSuchBucket, if it has been deleted meanwhile, and what `condition` raises.
        """
        segments = () if received.content is None else (Segment(received.content, received.size),)
        new = StoredObject(
            key, received.size, etag or received.md5.hex(), time.time_ns() // 1_000_000, attributes, segments
        )
        going: list[bytes] = []

        def work(connection: sqlite3.Connection) -> Change:
            if received.content is not None:
                remember_content(connection, received.content, received.size)
            return self.replace(connection, bucket, new, received.body, condition, going)

        fresh = [] if received.content is None else [received.content]
        return self._commit.submit(work, self.settled(fresh, going))

    def replace(
        self,
        connection: sqlite3.Connection,
        bucket: Bucket,
        new: StoredObject,
        body: bytes | None,
        condition: Condition | None,
        going: list[bytes],
    ) -> Change:
        """Inside a piece of work: let a key have `new`. Files that no row names any more are added to `going`."""
        before = _in(connection, bucket, new.key)
        if condition is not None:
            condition(before)
        if before is not None:
            _drop_bodies(connection, before, going)
        number = None
        if body:
            number = connection.execute("INSERT INTO bodies (content) VALUES (?)", (body,)).lastrowid
        try:
            connection.execute(
                f"INSERT OR REPLACE INTO objects (bucket, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    bucket.number,
                    new.key,
                    new.size,
                    new.etag,
                    new.modified,
                    encode(new.attributes),
                    packed(new.segments),
                    number,
                ),
            )
        except sqlite3.IntegrityError:
            raise no_such_bucket(bucket.name) from None
        return Change(before, new)

    def settled(self, fresh: Sequence[bytes], going: Sequence[bytes]) -> After:
        """What is to be done with files when rows are committed, or when they are not: `fresh` ones that rows name
        now, `going` ones that none names any more."""

        def after(error: BaseException | None) -> None:
            if error is None:
                self._contents.kept(fresh)
                self._reaper.remove(going)
            elif not isinstance(error, StoreFailed):
                # After a commit that failed nobody knows whether the rows will be found again: the next start decides.
                self._contents.kept(fresh)
                self._reaper.remove(fresh)

        return after

    def delete(self, bucket: Bucket, key: bytes, condition: Condition | None = None) -> Pending[Change]:
        """Take a key away; nothing if it is not there. What `condition` raises."""
        going: list[bytes] = []
        return self._commit.submit(
            lambda connection: self._delete(connection, bucket, key, condition, going), self.settled((), going)
        )

    def _delete(
        self,
        connection: sqlite3.Connection,
        bucket: Bucket,
        key: bytes,
        condition: Condition | None,
        going: list[bytes],
    ) -> Change:
        before = _in(connection, bucket, key)
        if condition is not None:
            condition(before)
        if before is not None:
            _drop_bodies(connection, before, going)
            connection.execute("DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket.number, key))
        return Change(before, None)

    def tag(self, bucket: Bucket, key: bytes, tags: tuple[tuple[str, str], ...]) -> Pending[None]:
        """Give an object these tags and no others. NoSuchKey."""

        def work(connection: sqlite3.Connection) -> None:
            found = _in(connection, bucket, key)
            if found is None:
                raise no_such_key(key)
            old = found.attributes
            new = Attributes(old.headers, old.metadata, old.checksum, old.parts, old.upload, tags, old.storage_class)
            connection.execute(
                "UPDATE objects SET attributes = ? WHERE bucket = ? AND key = ?", (encode(new), bucket.number, key)
            )

        return self._commit.submit(work)


def _in(connection: sqlite3.Connection, bucket: Bucket, key: bytes) -> StoredObject | None:
    row = connection.execute(_FIND, (bucket.number, key)).fetchone()
    return None if row is None else stored(row)


def _drop_bodies(connection: sqlite3.Connection, before: StoredObject, going: list[bytes]) -> None:
    if before.body is not None:
        connection.execute("DELETE FROM bodies WHERE number = ?", (before.body,))
    contents = [segment.content for segment in before.segments]
    forget_contents(connection, contents)
    going.extend(contents)


def remember_content(connection: sqlite3.Connection, content: bytes, size: int) -> None:
    """A row is about to name this file."""
    connection.execute("INSERT INTO contents (id, size) VALUES (?, ?)", (content, size))
