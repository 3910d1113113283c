"""The buckets of the store. There are few, so all are in memory; what is read here is what is committed."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

import msgspec

from celaje.cloud.s3.store.contents import Reaper
from celaje.cloud.s3.store.database import Database
from celaje.cloud.s3.store.group_commit import GroupCommit, Pending
from celaje.cloud.s3.store.records import Bucket, encode
from celaje.cloud.s3.store.refusals import (
    bucket_already_exists,
    bucket_already_owned,
    bucket_not_empty,
    no_such_bucket,
)

Tags = tuple[tuple[str, str], ...]
_decode_tags = msgspec.msgpack.Decoder(Tags).decode


class Buckets:
    """Buckets by name. Names are one space for all accounts."""

    def __init__(self, database: Database, commit: GroupCommit, reaper: Reaper) -> None:
        self._commit = commit
        self._reaper = reaper
        rows = database.reader.execute("SELECT number, name, account, region, created, tags FROM buckets")
        self._by_name = {
            name: Bucket(number, name, account, region, created, _decode_tags(tags))
            for number, name, account, region, created, tags in rows
        }

    def get(self, name: str) -> Bucket | None:
        """The bucket; None if there is none."""
        return self._by_name.get(name)

    def of(self, account: str) -> list[Bucket]:
        """An account's, by name."""
        return sorted((each for each in list(self._by_name.values()) if each.account == account), key=lambda b: b.name)

    def create(self, name: str, account: str, region: str, tags: Tags = ()) -> Pending[Bucket]:
        """Make a bucket. The name is valid. BucketAlreadyExists; BucketAlreadyOwnedByYou."""
        created = time.time_ns() // 1_000_000
        made: list[Bucket] = []

        def work(connection: sqlite3.Connection) -> Bucket:
            row = connection.execute("SELECT account FROM buckets WHERE name = ?", (name,)).fetchone()
            if row is not None:
                raise bucket_already_owned(name) if row[0] == account else bucket_already_exists(name)
            number = connection.execute(
                "INSERT INTO buckets (name, account, region, created, tags) VALUES (?, ?, ?, ?, ?)",
                (name, account, region, created, encode(tags)),
            ).lastrowid
            assert number is not None
            made.append(Bucket(number, name, account, region, created, tags))
            return made[0]

        def after(error: BaseException | None) -> None:
            if error is None:
                self._by_name[name] = made[0]

        return self._commit.submit(work, after)

    def delete(self, bucket: Bucket) -> Pending[None]:
        """Take an empty bucket away, with the uploads that are not complete. BucketNotEmpty; NoSuchBucket."""
        going: list[bytes] = []

        def work(connection: sqlite3.Connection) -> None:
            if connection.execute("SELECT 1 FROM objects WHERE bucket = ? LIMIT 1", (bucket.number,)).fetchone():
                raise bucket_not_empty(bucket.name)
            of_bucket = "upload IN (SELECT id FROM uploads WHERE bucket = ?)"
            rows = connection.execute(f"SELECT content FROM parts WHERE {of_bucket}", (bucket.number,))
            going.extend(content for (content,) in rows)
            connection.execute(f"DELETE FROM parts WHERE {of_bucket}", (bucket.number,))
            connection.execute("DELETE FROM uploads WHERE bucket = ?", (bucket.number,))
            forget_contents(connection, going)
            if not connection.execute("DELETE FROM buckets WHERE number = ?", (bucket.number,)).rowcount:
                raise no_such_bucket(bucket.name)

        def after(error: BaseException | None) -> None:
            if error is None:
                self._by_name.pop(bucket.name, None)
                self._reaper.remove(going)

        return self._commit.submit(work, after)

    def tag(self, bucket: Bucket, tags: Tags) -> Pending[None]:
        """Give a bucket these tags and no others. NoSuchBucket."""

        def work(connection: sqlite3.Connection) -> None:
            changed = connection.execute(
                "UPDATE buckets SET tags = ? WHERE number = ?", (encode(tags), bucket.number)
            ).rowcount
            if not changed:
                raise no_such_bucket(bucket.name)

        def after(error: BaseException | None) -> None:
            if error is None:
                self._by_name[bucket.name] = Bucket(
                    bucket.number, bucket.name, bucket.account, bucket.region, bucket.created, tags
                )

        return self._commit.submit(work, after)


def forget_contents(connection: sqlite3.Connection, contents: Sequence[bytes]) -> None:
    """No row names these files any more."""
    if contents:
        connection.executemany("DELETE FROM contents WHERE id = ?", [(content,) for content in contents])
