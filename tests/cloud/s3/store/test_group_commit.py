"""Changes of many callers share commits, fail alone, and are durable when they are told so."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from celaje.cloud.s3.store.group_commit import GroupCommit, StoreFailed


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(tmp_path / "db", isolation_level=None, check_same_thread=False)
    made.execute("PRAGMA journal_mode = WAL")
    made.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")
    yield made
    made.close()


def add(number: int, connection: sqlite3.Connection) -> int:
    connection.execute("INSERT INTO numbers VALUES (?)", (number,))
    return number


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [number for (number,) in connection.execute("SELECT number FROM numbers ORDER BY number")]


def test_what_waits_while_the_disk_is_busy_is_committed_together(connection: sqlite3.Connection) -> None:
    commit = GroupCommit(connection)
    gate = threading.Event()
    first = commit.submit(lambda _: gate.wait())
    rest = [commit.submit(partial(add, number)) for number in range(100)]
    gate.set()
    first.result()
    assert [each.result() for each in rest] == list(range(100))
    assert commit.commits <= 2
    commit.close()
    assert numbers(connection) == list(range(100))


def test_a_piece_that_raises_undoes_itself_and_nobody_else(connection: sqlite3.Connection) -> None:
    commit = GroupCommit(connection)
    gate = threading.Event()
    told: list[BaseException | None] = []

    def half(c: sqlite3.Connection) -> None:
        add(7, c)
        raise KeyError("half")

    pieces = [
        commit.submit(lambda _: gate.wait()),
        commit.submit(lambda c: add(1, c)),
        commit.submit(half, told.append),
        commit.submit(lambda c: add(2, c), told.append),
    ]
    gate.set()
    with pytest.raises(KeyError, match="half"):
        pieces[2].result()
    assert pieces[3].result() == 2
    commit.close()
    assert numbers(connection) == [1, 2]
    assert isinstance(told[0], KeyError)
    assert told[1] is None


def test_a_loop_may_wait_for_many_at_once(connection: sqlite3.Connection) -> None:
    commit = GroupCommit(connection)

    async def one(number: int) -> int:
        return await commit.submit(lambda c: add(number, c))

    async def every() -> list[int]:
        return list(await asyncio.gather(*map(one, range(200))))

    assert asyncio.run(every()) == list(range(200))
    commit.close()


def test_after_a_commit_that_failed_nothing_is_acknowledged(connection: sqlite3.Connection) -> None:
    commit = GroupCommit(connection)

    def breaks(c: sqlite3.Connection) -> None:
        add(1, c)
        c.execute("ROLLBACK")  # what SQLite does by itself when the disk fails

    with pytest.raises(StoreFailed, match="cannot be written"):
        commit.submit(breaks).result()
    with pytest.raises(StoreFailed, match="celaje down; celaje up"):
        commit.submit(lambda c: add(2, c)).result()
    commit.close()
    assert numbers(connection) == []
