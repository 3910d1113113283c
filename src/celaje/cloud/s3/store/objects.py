"""The objects of the store: put, found, read, listed and deleted by key, and by version where there are some."""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from celaje.cloud.s3.store import versions
from celaje.cloud.s3.store.buckets import Buckets
from celaje.cloud.s3.store.contents import Contents, Reaper
from celaje.cloud.s3.store.database import Database
from celaje.cloud.s3.store.encryption import HEAD, MasterKey
from celaje.cloud.s3.store.group_commit import After, GroupCommit, Pending, StoreFailed
from celaje.cloud.s3.store.listing import Page, list_page, range_query, rows_between
from celaje.cloud.s3.store.receive import Block, Received
from celaje.cloud.s3.store.records import (
    Attributes,
    Bucket,
    Segment,
    StoredObject,
    encode,
    packed,
)
from celaje.cloud.s3.store.refusals import no_such_bucket, no_such_key, no_such_version
from celaje.cloud.s3.store.versions import COLUMNS, Standing, stored

Condition = Callable[[StoredObject | None], None]
"""Looks at what a key has at the very moment of a change, and raises if the change must not be."""

_FIND = f"SELECT {COLUMNS} FROM objects WHERE bucket = ? AND key = ?"
_BODY = "SELECT content FROM bodies WHERE number = ?"
_RANGE = range_query(f"{COLUMNS} FROM objects", "bucket = ?", "key")
_TRIES = 16  # a row that is replaced again and again between a look at it and a look at its body


class Opened:
    """An object that is being read. What it has stays as it is, whatever happens to its key, until `close`.

    `encrypted`: its files are; `blocks` and `body` give what clients put. `client_key`: what whoever reads an object
    of SSE-C has to give first.
    """

    def __init__(self, found: StoredObject, body: bytes | None, contents: Contents, master_key: MasterKey) -> None:
        self.object = found
        self.encrypted = body is None and bool(found.attributes.encryption)
        self.client_key: bytes | None = None
        self._body = body
        self._contents = contents
        self._master_key = master_key
        self._pinned = [each.content for each in found.segments]

    @property
    def body(self) -> bytes | None:
        """All of it, where it is small; None where it is in files. KeyUnusable."""
        if self._body is None or not self.object.attributes.encryption or not self._body:
            return self._body
        return self._master_key.plain(self._body, self.client_key)

    def pieces(self, start: int, length: int) -> Iterator[tuple[Path, int, int]]:
        """(file, offset, length) of a range of the body that is in files, in order, as they are: not of an encrypted
        one. It lies within the object."""
        assert not self.encrypted
        for content, offset, count in self._spans(start, length):
            yield self._contents.path(content), offset, count

    def blocks(self, start: int, length: int) -> Iterator[Block]:
        """The bytes of a range within the object, at most a mebibyte at a time. OSError; KeyUnusable."""
        if (body := self.body) is not None:
            yield body[start : start + length]
            return
        for content, offset, count in self._spans(start, length):
            if not self.encrypted:
                yield from self._contents.blocks(content, offset, count)
                continue
            head = b"".join(self._contents.blocks(content, 0, HEAD))
            key = self._master_key.body_key(head, self.client_key)
            key.begin(offset)
            for block in self._contents.blocks(content, HEAD + offset, count):
                yield key.next(block)

    def _spans(self, start: int, length: int) -> Iterator[tuple[bytes, int, int]]:
        for segment in self.object.segments:
            if length <= 0:
                return
            if start < segment.size:
                count = min(length, segment.size - start)
                yield segment.content, start, count
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
    """What a put or delete did: `before` is what the key had, or the version that was deleted; `after` what it has
    got, a delete marker included."""

    before: StoredObject | None
    after: StoredObject | None


class Objects:
    """Objects by bucket and key (1 to 1024 bytes, any)."""

    def __init__(
        self,
        database: Database,
        commit: GroupCommit,
        contents: Contents,
        reaper: Reaper,
        buckets: Buckets,
        master_key: MasterKey,
    ) -> None:
        self._database = database
        self._master_key = master_key
        self._buckets = buckets
        self._commit = commit
        self._contents = contents
        self._reaper = reaper

    # --- reading ---

    def find(self, bucket: Bucket, key: bytes, version: str | None = None) -> StoredObject | None:
        """What the key has; None if nothing. `version`: that one of it ("" for the null version), a marker too."""
        if version is not None:
            return versions.named(self._database.reader, (bucket.number, key), version)
        row = self._database.reader.execute(_FIND, (bucket.number, key)).fetchone()
        return None if row is None else stored(row)

    def marker(self, bucket: Bucket, key: bytes) -> StoredObject | None:
        """The delete marker that is the newest of a key; None if there is none."""
        newest = versions.newest_other(self._database.reader, (bucket.number, key))
        return newest if newest is not None and newest.marker and self.find(bucket, key) is None else None

    def open(self, bucket: Bucket, key: bytes, version: str | None = None) -> Opened:
        """What `find` finds, to read its body. NoSuchKey; NoSuchVersion."""
        for _ in range(_TRIES):
            found = self.find(bucket, key, version)
            if found is None:
                raise no_such_key(key) if version is None else no_such_version(key, version)
            if found.segments:
                # Again, now that no file can go between the look and the pin.
                found = self._pinned(bucket, key, version)
                if found is not None and found.segments:
                    return Opened(found, None, self._contents, self._master_key)
                continue
            if found.body is None:
                return Opened(found, b"", self._contents, self._master_key)
            row = self._database.reader.execute(_BODY, (found.body,)).fetchone()
            if row is not None and len(row[0]) == found.size + (HEAD if found.attributes.encryption else 0):
                return Opened(found, row[0], self._contents, self._master_key)
        raise StoreFailed(errno.EIO, f"the object {key!r} is replaced faster than it can be read, or its body is lost")

    def _pinned(self, bucket: Bucket, key: bytes, version: str | None) -> StoredObject | None:
        found: list[StoredObject | None] = []

        def look() -> Sequence[bytes]:
            found.append(self.find(bucket, key, version))
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

    def versions(
        self, bucket: Bucket, first: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[StoredObject, bool]]:
        """Every version of the keys from `first` on (and below `end`), a key's newest first, and whether it is that."""
        before: bytes | None = None
        number, query = bucket.number, versions.ALL[end is None]
        asked = (number, first, number, first) if end is None else (number, first, end, number, first, end)
        for row in self._database.reader.execute(query, asked):
            found = versions.version_of(row)
            yield found, found.key != before
            before = found.key

    def standings(self, bucket: Bucket, prefix: bytes = b"") -> Iterator[Standing]:
        """Every version of the keys with a prefix, a key's newest first, read in pages: others may change them."""
        before: Standing | None = None
        after: bytes = b""
        after_version: str | None = None
        while True:
            page = self.versions_page(bucket, prefix=prefix, after=after, after_version=after_version)
            for found, newest in page.entries:
                if before is not None and before.version.key == found.key and not newest:
                    now = Standing(found, before.newer + 1, before.version.modified, False)
                    yield before if not before.alone else replace(before, alone=False)
                else:
                    if before is not None:
                        yield before
                    now = Standing(found, 0, None, found.marker)
                before = now
            if page.last is None:
                break
            after, after_version = page.entries[-1][0].key, page.entries[-1][0].version
        if before is not None:
            yield before

    def versions_page(
        self,
        bucket: Bucket,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after: bytes = b"",
        after_version: str | None = None,
        limit: int = 1000,
    ) -> Page[tuple[StoredObject, bool]]:
        """A page of versions, and of each whether it is its key's newest. `after_version`: the page begins with those
        of the key `after` that are older than it."""
        rank = None if after_version is None else self._rank(bucket, after, after_version)

        def rows(first: bytes, end: bytes | None) -> Iterator[tuple[StoredObject, bool]]:
            for found, newest in self.versions(bucket, first, end):
                if rank is None or found.key != after or found.rank > rank:
                    yield found, newest

        return list_page(
            rows,
            lambda each: each[0].key,
            prefix=prefix,
            delimiter=delimiter,
            after=after,
            inclusive=rank is not None,
            limit=limit,
        )

    def _rank(self, bucket: Bucket, key: bytes, version: str) -> int | None:
        if version:
            return versions.rank_of_id(version)
        null = self.find(bucket, key, "")
        return None if null is None else null.rank

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
        """Let the key have what was received, in place of what it had. The receipt is used up, whatever happens. It
        says whether the object is encrypted.

        NoSuchBucket, if it has been deleted meanwhile, and what `condition` raises.
        """
        attributes = msgspec.structs.replace(attributes, encryption=received.encryption, check=received.check)
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
        at = bucket.number, new.key
        before = _in(connection, bucket, new.key)
        if condition is not None:
            condition(before)
        state = self._buckets.versioning(bucket)
        if state:
            version, rank = versions.new_version(connection, at, state)
            new = replace(new, version=version, rank=rank)
            versions.set_aside(connection, at, state, before, going)
        elif before is not None:
            versions.drop_bodies(connection, before, going)
        number = None
        if body:
            number = connection.execute("INSERT INTO bodies (content) VALUES (?)", (body,)).lastrowid
        try:
            connection.execute(
                f"INSERT OR REPLACE INTO objects (bucket, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *at,
                    new.size,
                    new.etag,
                    new.modified,
                    encode(new.attributes),
                    packed(new.segments),
                    number,
                    new.version,
                    new.rank,
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

    def delete(
        self, bucket: Bucket, key: bytes, condition: Condition | None = None, version: str | None = None
    ) -> Pending[Change]:
        """Take a key away; nothing if it is not there. In a bucket with versions what it had stays, and the key gets a
        delete marker. `version`: that one goes for good, and the next newest is the key's again. What `condition`
        raises of what is to go."""
        going: list[bytes] = []

        def work(connection: sqlite3.Connection) -> Change:
            if version is not None:
                return self._delete_version(connection, bucket, key, version, condition, going)
            return self._delete(connection, bucket, key, condition, going)

        return self._commit.submit(work, self.settled((), going))

    def _delete(
        self,
        connection: sqlite3.Connection,
        bucket: Bucket,
        key: bytes,
        condition: Condition | None,
        going: list[bytes],
    ) -> Change:
        at = bucket.number, key
        before = _in(connection, bucket, key)
        if condition is not None:
            condition(before)
        state = self._buckets.versioning(bucket)
        if state:
            versions.set_aside(connection, at, state, before, going)
            try:
                return Change(before, versions.mark_deleted(connection, at, state))
            except sqlite3.IntegrityError:
                raise no_such_bucket(bucket.name) from None
        if before is not None:
            versions.remove(connection, at, before, going, before)
        return Change(before, None)

    def _delete_version(
        self,
        connection: sqlite3.Connection,
        bucket: Bucket,
        key: bytes,
        version: str,
        condition: Condition | None,
        going: list[bytes],
    ) -> Change:
        at = bucket.number, key
        found = versions.named(connection, at, version)
        if condition is not None:
            condition(found)
        if found is None:
            return Change(None, None)
        current = _in(connection, bucket, key)
        versions.remove(connection, at, found, going, current)
        if current is None or current.rank == found.rank:
            versions.promote(connection, at)
        return Change(found, None)

    def expire(self, bucket: Bucket, version: StoredObject, due: Callable[[Standing], bool]) -> Pending[bool]:
        """Take a version away if it is still due: what its key has is deleted as by a client, what is not current for
        good. `due` is asked at the very moment of the change. Whether it went."""
        going: list[bytes] = []

        def work(connection: sqlite3.Connection) -> bool:
            at = bucket.number, version.key
            found = versions.named(connection, at, version.version)
            if found is None or found.rank != version.rank or found.modified != version.modified:
                return False
            if not due(versions.standing(connection, at, found)):
                return False
            current = _in(connection, bucket, version.key)
            if current is not None and current.rank == found.rank:
                self._delete(connection, bucket, version.key, None, going)
            else:
                versions.remove(connection, at, found, going, current)
                if current is None:
                    versions.promote(connection, at)
            return True

        return self._commit.submit(work, self.settled((), going))

    def change(
        self, bucket: Bucket, looked: StoredObject, change: Callable[[Attributes], Attributes]
    ) -> Pending[bool]:
        """Give an object that was looked at other attributes: what `change` makes of those that it has. Whether it was
        there still; what has replaced it stays as it is."""

        def work(connection: sqlite3.Connection) -> bool:
            at = bucket.number, looked.key
            found = versions.named(connection, at, looked.version)
            if found is None or not _is_same(found, looked):
                return False
            attributes = encode(change(found.attributes))
            for table in ("objects", "versions"):
                connection.execute(
                    f"UPDATE {table} SET attributes = ? WHERE bucket = ? AND key = ? AND rank = ?",
                    (attributes, *at, found.rank),
                )
            return True

        return self._commit.submit(work)


def _is_same(one: StoredObject, other: StoredObject) -> bool:
    """Whether a key (or a version of it) has what it had, whatever was said of that since."""

    def identity(found: StoredObject) -> tuple[object, ...]:
        return found.rank, found.modified, found.etag, found.segments, found.body, found.attributes.owner, found.marker

    return identity(one) == identity(other)


def _in(connection: sqlite3.Connection, bucket: Bucket, key: bytes) -> StoredObject | None:
    row = connection.execute(_FIND, (bucket.number, key)).fetchone()
    return None if row is None else stored(row)


def remember_content(connection: sqlite3.Connection, content: bytes, size: int) -> None:
    """A row is about to name this file."""
    connection.execute("INSERT INTO contents (id, size) VALUES (?, ?)", (content, size))
