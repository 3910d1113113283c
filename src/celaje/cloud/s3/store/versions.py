"""Versions of a key: what it has, what it had, and delete markers.

    objects     of each key the version that a plain GET answers
    versions    all others: what was replaced, and delete markers, the newest included

A bucket that never had versions has no rows in `versions`, and pays nothing for them. In one that has, a change moves
rows between the two within its own piece of work: what is replaced goes to `versions`, and if the newest of a key is
deleted, the next one comes back from there, unless it is a delete marker. Bodies stay where they are.

The newest version of a key has the least rank: minus the nanoseconds of its making, and in any case less than what the
key had before, whatever clocks do. An id begins with its rank, so that a listing goes on where it was although the
version that it had come to is gone.
"""

from __future__ import annotations

import base64
import binascii
import os
import sqlite3
import time
from dataclasses import dataclass

from celaje.cloud.s3.store.buckets import forget_contents
from celaje.cloud.s3.store.records import (
    ENABLED,
    Attributes,
    StoredObject,
    decode_attributes,
    encode,
    unpacked,
)

COLUMNS = "key, size, etag, modified, attributes, segments, body, version, rank"
NULL = "null"
"""How clients call the version of an object that was put while its bucket had no versions, or no more."""

_RANDOM = 16
_ID = 32  # characters
_AT = "bucket = ? AND key = ?"
_CURRENT = f"SELECT {COLUMNS}, 0 FROM objects WHERE {_AT}"
_NAMED = f"{_CURRENT} AND version = ? UNION ALL SELECT {COLUMNS}, marker FROM versions WHERE {_AT} AND version = ?"
_NEWEST = f"SELECT {COLUMNS}, marker FROM versions WHERE {_AT} ORDER BY rank LIMIT 1"
_NO_ATTRIBUTES = encode(Attributes())
_OF_KEYS = "WHERE bucket = ? AND key >= ?"
_EACH = (f"SELECT {COLUMNS}, 0 AS marker FROM objects {_OF_KEYS}", f"SELECT {COLUMNS}, marker FROM versions {_OF_KEYS}")
ALL = (
    " UNION ALL ".join(f"{each} AND key < ?" for each in _EACH) + " ORDER BY key, rank",
    " UNION ALL ".join(_EACH) + " ORDER BY key, rank",
)
"""Every version in a bucket of the keys from one on, with and without an end; the newest of each key first."""

_REPLACED_BY = f"SELECT modified FROM versions WHERE {_AT} AND rank < ? ORDER BY rank DESC LIMIT 1"
_COUNT_NEWER = f"SELECT count(*) FROM (SELECT 1 FROM versions WHERE {_AT} AND rank < ? LIMIT ?)"
_OTHERS = f"SELECT 1 FROM versions WHERE {_AT} AND rank != ? LIMIT 1"

Row = tuple[object, ...]
At = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Standing:
    """A version among those of its key: how many are newer (at most MOST_NEWER are counted), when it was replaced
    (milliseconds since 1970; None for the newest), whether it is a delete marker behind which nothing is."""

    version: StoredObject
    newer: int
    replaced: int | None
    alone: bool


MOST_NEWER = 101


def stored(row: Row) -> StoredObject:
    """The object of a row of COLUMNS."""
    key, size, etag, modified, attributes, segments, *others = row
    return StoredObject(key, size, etag, modified, decode_attributes(attributes), unpacked(segments), *others)  # type: ignore[arg-type]  # the schema says what the columns are


def version_of(row: Row) -> StoredObject:
    """The version of a row of COLUMNS and marker."""
    *plain, marker = row
    return stored((*plain, bool(marker)))


def is_version_id(text: str) -> bool:
    """Whether a version might have that id."""
    if text == NULL:
        return True
    try:
        return len(text) == _ID and len(base64.b64decode(text, b"-_", validate=True)) == 8 + _RANDOM
    except (ValueError, binascii.Error):
        return False


def rank_of_id(identifier: str) -> int:
    """The rank of the version that has, or had, that id."""
    return -int.from_bytes(base64.urlsafe_b64decode(identifier)[:8], "big")


def new_version(connection: sqlite3.Connection, at: At, state: str) -> tuple[str, int]:
    """The id and rank of what a key is to have next, in a bucket whose versioning is `state`."""
    (least,) = connection.execute(
        f"SELECT min(rank) FROM (SELECT rank FROM objects WHERE {_AT} UNION ALL SELECT rank FROM versions WHERE {_AT})",
        (*at, *at),
    ).fetchone()
    rank = min(-time.time_ns(), (least or 0) - 1)
    if state != ENABLED:
        return "", rank
    return base64.urlsafe_b64encode((-rank).to_bytes(8, "big") + os.urandom(_RANDOM)).decode(), rank


def named(connection: sqlite3.Connection, at: At, version: str) -> StoredObject | None:
    """The version of that id ("" for the null one); None if there is none."""
    row = connection.execute(_NAMED, (*at, version, *at, version)).fetchone()
    return None if row is None else version_of(row)


def newest_other(connection: sqlite3.Connection, at: At) -> StoredObject | None:
    """The newest of what is not in `objects`: a delete marker, where a key has nothing."""
    row = connection.execute(_NEWEST, at).fetchone()
    return None if row is None else version_of(row)


def standing(connection: sqlite3.Connection, at: At, found: StoredObject) -> Standing:
    """Where a version stands by now."""
    here = (*at, found.rank)
    current = connection.execute(_CURRENT, at).fetchone()
    above = None if current is None else version_of(current)
    if above is not None and above.rank == found.rank:
        above = None
    (newer,) = connection.execute(_COUNT_NEWER, (*here, MOST_NEWER)).fetchone()
    row = connection.execute(_REPLACED_BY, here).fetchone()
    replaced = row[0] if row is not None else above.modified if above is not None else None
    alone = current is None and connection.execute(_OTHERS, here).fetchone() is None
    return Standing(found, newer + (above is not None), replaced, alone)


def set_aside(
    connection: sqlite3.Connection, at: At, state: str, before: StoredObject | None, going: list[bytes]
) -> None:
    """Make room for a new version: what the key has (`before`) is kept beside it, unless it is the null version and the
    new one is to be that. Files that no row names any more are added to `going`."""
    if state != ENABLED:
        null = named(connection, at, "")
        if null is not None:
            remove(connection, at, null, going, before)
            if before is not None and not before.version:
                return
    if before is not None:
        connection.execute(
            f"INSERT INTO versions (bucket, {COLUMNS}) SELECT bucket, {COLUMNS} FROM objects WHERE {_AT}", at
        )
        connection.execute(f"DELETE FROM objects WHERE {_AT}", at)


def mark_deleted(connection: sqlite3.Connection, at: At, state: str) -> StoredObject:
    """Give a key, whose object was set aside, a delete marker."""
    version, rank = new_version(connection, at, state)
    marker = StoredObject(
        at[1], 0, "", time.time_ns() // 1_000_000, Attributes(), version=version, rank=rank, marker=True
    )
    connection.execute(
        f"INSERT INTO versions (bucket, {COLUMNS}, marker) VALUES (?, ?, 0, '', ?, ?, NULL, NULL, ?, ?, 1)",
        (*at, marker.modified, _NO_ATTRIBUTES, version, rank),
    )
    return marker


def remove(
    connection: sqlite3.Connection, at: At, found: StoredObject, going: list[bytes], current: StoredObject | None
) -> None:
    """Take a version away for good; `current` is what the key has."""
    drop_bodies(connection, found, going)
    if current is not None and current.rank == found.rank:
        connection.execute(f"DELETE FROM objects WHERE {_AT}", at)
    else:
        connection.execute(f"DELETE FROM versions WHERE {_AT} AND rank = ?", (*at, found.rank))


def promote(connection: sqlite3.Connection, at: At) -> None:
    """Let a key that has nothing have its newest version again, unless that is a delete marker."""
    newest = newest_other(connection, at)
    if newest is None or newest.marker:
        return
    where = (*at, newest.rank)
    connection.execute(
        f"INSERT INTO objects (bucket, {COLUMNS}) SELECT bucket, {COLUMNS} FROM versions WHERE {_AT} AND rank = ?",
        where,
    )
    connection.execute(f"DELETE FROM versions WHERE {_AT} AND rank = ?", where)


def drop_bodies(connection: sqlite3.Connection, before: StoredObject, going: list[bytes]) -> None:
    """A row is about to go, and its body with it."""
    if before.body is not None:
        connection.execute("DELETE FROM bodies WHERE number = ?", (before.body,))
    contents = [segment.content for segment in before.segments]
    forget_contents(connection, contents)
    going.extend(contents)
