"""Listing keys in order, with a prefix, a delimiter and a place to begin after (S3's ListObjects and ListObjectsV2).

Keys that have the delimiter after the prefix are rolled up into one common prefix each. A common prefix may stand for a
million keys, so none of them is read: the listing seeks past it. What a page costs depends on the page alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Row = tuple[object, ...]
RowType = TypeVar("RowType")


@dataclass(frozen=True, slots=True)
class Page(Generic[RowType]):
    """What a listing answers: entries and common prefixes, together at most as many as were asked for. `last`: the
    key, or common prefix, that the next page begins after; None if there is none."""

    entries: list[RowType]
    prefixes: list[bytes]
    last: bytes | None


def successor(prefix: bytes) -> bytes | None:
    """The smallest key greater than all that begin with `prefix`; None if there is none."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes((head[-1] + 1,)) if head else None


def list_page(
    rows: Callable[[bytes, bytes | None], Iterator[RowType]],
    key_of: Callable[[RowType], bytes],
    *,
    prefix: bytes = b"",
    delimiter: bytes = b"",
    after: bytes = b"",
    inclusive: bool = False,
    limit: int = 1000,
) -> Page[RowType]:
    """A page of the keys from `rows(first, end)`: those from `first` on and below `end`, in order.

    It begins after the key `after`; if that is a common prefix, after all that it stands for. `inclusive`: `after`
    itself may be the first (several entries of one key are told apart by who calls).
    """
    entries: list[RowType] = []
    prefixes: list[bytes] = []
    last: bytes | None = None
    end = successor(prefix)
    position: bytes | None = max(prefix, after if inclusive or not after else after + b"\0")
    told = _common_prefix(after, prefix, delimiter)
    if told is not None:
        # Its common prefix was told on an earlier page, or the client asks to begin behind where it would be.
        position = successor(told)
    while position is not None and (end is None or position < end):
        found = rows(position, end)
        position = None
        for row in found:
            key = key_of(row)
            common = _common_prefix(key, prefix, delimiter)
            if len(entries) + len(prefixes) >= limit:
                return Page(entries, prefixes, last)
            if common is None:
                entries.append(row)
                last = key
                continue
            prefixes.append(common)
            last = common
            position = successor(common)
            break
    return Page(entries, prefixes, None)


def _common_prefix(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    if not delimiter or not key.startswith(prefix):
        return None
    at = key.find(delimiter, len(prefix))
    return None if at < 0 else key[: at + len(delimiter)]


def range_query(columns: str, where: str, order: str) -> tuple[str, str]:
    """Two queries of one table, with and without an upper end of the keys."""
    base = f"SELECT {columns} WHERE {where} AND key >= ?"
    return f"{base} AND key < ? ORDER BY {order}", f"{base} ORDER BY {order}"


def rows_between(
    connection: sqlite3.Connection, queries: tuple[str, str], scope: object, first: bytes, end: bytes | None
) -> Iterator[Row]:
    """The rows of `range_query` in `scope`, read as they are asked for."""
    if end is not None:
        return iter(connection.execute(queries[0], (scope, first, end)))
    return iter(connection.execute(queries[1], (scope, first)))
