"""The buckets of the store. There are few, so all are in memory; what is read here is what is committed."""

from __future__ import annotations

import dataclasses
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from celaje.cloud.s3.store.contents import Reaper
from celaje.cloud.s3.store.database import Database
from celaje.cloud.s3.store.group_commit import GroupCommit, Pending
from celaje.cloud.s3.store.records import Bucket, BucketSettings, decode_settings, encode
from celaje.cloud.s3.store.refusals import (
    bucket_already_exists,
    bucket_already_owned,
    bucket_not_empty,
    no_such_bucket,
)
from celaje.typed_data import msgpack_decoder

Tags = tuple[tuple[str, str], ...]
_decode_tags = msgpack_decoder(Tags).decode


class Buckets:
    """Buckets by name. Names are one space for all accounts."""

    def __init__(self, database: Database, commit: GroupCommit, reaper: Reaper) -> None:
        self._commit = commit
        self._reaper = reaper
        rows = database.reader.execute("SELECT number, name, account, region, created, tags, settings FROM buckets")
        self._by_name = {
            name: Bucket(number, name, account, region, created, _decode_tags(tags), decode_settings(settings))
            for number, name, account, region, created, tags, settings in rows
        }

    def get(self, name: str) -> Bucket | None:
        """The bucket; None if there is none."""
        return self._by_name.get(name)

    def of(self, account: str) -> list[Bucket]:
        """An account's, by name."""
        return sorted((each for each in list(self._by_name.values()) if each.account == account), key=lambda b: b.name)

    def __iter__(self) -> Iterator[Bucket]:
        return iter(list(self._by_name.values()))

    def versioning(self, bucket: Bucket) -> str:
        """What the bucket's versioning is by now."""
        now = self._by_name.get(bucket.name)
        return (now if now is not None and now.number == bucket.number else bucket).settings.versioning

    def create(
        self,
        name: str,
        account: str,
        region: str,
        tags: Tags = (),
        settings: BucketSettings = BucketSettings(),  # noqa: B008  it is frozen
    ) -> Pending[Bucket]:
        """Make a bucket. The name is valid. BucketAlreadyExists; BucketAlreadyOwnedByYou."""
        created = time.time_ns() // 1_000_000
        made: list[Bucket] = []

        def work(connection: sqlite3.Connection) -> Bucket:
            row = connection.execute("SELECT account FROM buckets WHERE name = ?", (name,)).fetchone()
            if row is not None:
                raise bucket_already_owned(name) if row[0] == account else bucket_already_exists(name)
            number = connection.execute(
                "INSERT INTO buckets (name, account, region, created, tags, settings) VALUES (?, ?, ?, ?, ?, ?)",
                (name, account, region, created, encode(tags), encode(settings)),
            ).lastrowid
            assert number is not None
            made.append(Bucket(number, name, account, region, created, tags, settings))
            return made[0]

        def after(error: BaseException | None) -> None:
            if error is None:
                self._by_name[name] = made[0]

        return self._commit.submit(work, after)

    def delete(self, bucket: Bucket) -> Pending[None]:
        """Take an empty bucket away, with the uploads that are not complete. BucketNotEmpty; NoSuchBucket."""
        going: list[bytes] = []

        def work(connection: sqlite3.Connection) -> None:
            for table in ("objects", "versions"):
                if connection.execute(f"SELECT 1 FROM {table} WHERE bucket = ? LIMIT 1", (bucket.number,)).fetchone():
                    raise bucket_not_empty(bucket.name, versions=bool(self.versioning(bucket)))
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

        return self._change(bucket, tags, {})

    def set(self, bucket: Bucket, **settings: object) -> Pending[None]:
        """Give a bucket other settings, by the names of BucketSettings; the others stay. NoSuchBucket."""
        return self._change(bucket, None, settings)

    def _change(self, bucket: Bucket, tags: Tags | None, settings: Mapping[str, object]) -> Pending[None]:
        made: list[Bucket] = []

        def work(connection: sqlite3.Connection) -> None:
            row = connection.execute("SELECT tags, settings FROM buckets WHERE number = ?", (bucket.number,)).fetchone()
            if row is None:
                raise no_such_bucket(bucket.name)
            # What another change has set meanwhile stays as well.
            new = dataclasses.replace(
                bucket,
                tags=_decode_tags(row[0]) if tags is None else tags,
                settings=msgspec.structs.replace(decode_settings(row[1]), **settings),
            )
            connection.execute(
                "UPDATE buckets SET tags = ?, settings = ? WHERE number = ?",
                (encode(new.tags), encode(new.settings), bucket.number),
            )
            made.append(new)

        def after(error: BaseException | None) -> None:
            if error is None:
                self._by_name[bucket.name] = made[-1]

        return self._commit.submit(work, after)


def forget_contents(connection: sqlite3.Connection, contents: Sequence[bytes]) -> None:
    """No row names these files any more."""
    if contents:
        connection.executemany("DELETE FROM contents WHERE id = ?", [(content,) for content in contents])
