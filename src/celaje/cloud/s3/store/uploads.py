"""Multipart uploads: parts are files; an object put together from them is those files one after the other."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from celaje.cloud.s3.store.buckets import forget_contents
from celaje.cloud.s3.store.checksums import ALGORITHMS, composite, full_object
from celaje.cloud.s3.store.contents import Contents
from celaje.cloud.s3.store.database import Database
from celaje.cloud.s3.store.group_commit import GroupCommit, Pending
from celaje.cloud.s3.store.listing import Page, Row, list_page, range_query, rows_between
from celaje.cloud.s3.store.objects import Condition, Objects, remember_content
from celaje.cloud.s3.store.receive import Received
from celaje.cloud.s3.store.records import (
    Bucket,
    Checksum,
    Part,
    PartOfObject,
    Segment,
    StoredObject,
    Upload,
    UploadPlan,
    decode_checksum,
    decode_plan,
    encode,
)
from celaje.cloud.s3.store.refusals import (
    invalid_part,
    invalid_part_order,
    no_such_bucket,
    no_such_upload,
    part_too_small,
    too_many_uploads,
)

SMALLEST_PART = 5 << 20
MOST_PARTS = 10_000

_UPLOAD = "id, bucket, key, initiated, plan"
_PART = "number, size, etag, modified, content, checksum"
_COUNT = (
    "SELECT count(*) FROM (SELECT 1 FROM buckets JOIN uploads ON uploads.bucket = buckets.number"
    " WHERE buckets.account = ? LIMIT ?)"
)
_RANGE = range_query(f"{_UPLOAD} FROM uploads", "bucket = ?", "key, id")


@dataclass(frozen=True, slots=True)
class WantedPart:
    """A part as a client lists it to complete an upload: `etag` without quotation marks, and the checksum if it says
    one."""

    number: int
    etag: str
    checksums: tuple[Checksum, ...] = ()


class Uploads:
    """Uploads by their ids, each of a bucket and a key."""

    def __init__(self, database: Database, commit: GroupCommit, contents: Contents, objects: Objects) -> None:
        self._database = database
        self._commit = commit
        self._contents = contents
        self._objects = objects

    # --- reading ---

    def get(self, bucket: Bucket, key: bytes, identifier: str) -> Upload:
        """The upload. NoSuchUpload, also if it is of another key."""
        return _upload(self._database.reader, bucket, key, identifier)

    def parts(self, upload: Upload, after: int = 0, limit: int = MOST_PARTS) -> list[Part]:
        """Parts with numbers above `after`, in order."""
        return _parts(self._database.reader, upload.identifier, after, limit)

    def page(
        self,
        bucket: Bucket,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after: bytes = b"",
        after_upload: str = "",
        limit: int = 1000,
    ) -> Page[Upload]:
        """A page of uploads by key, then by the time they began. `after_upload`: the page begins with those of the key
        `after` that began later than it."""
        reader = self._database.reader

        def rows(first: bytes, end: bytes | None) -> Iterator[Upload]:
            for row in rows_between(reader, _RANGE, bucket.number, first, end):
                found = _made(row)
                if found.key != after or found.identifier > after_upload:
                    yield found

        return list_page(
            rows,
            lambda each: each.key,
            prefix=prefix,
            delimiter=delimiter,
            after=after,
            inclusive=bool(after_upload),
            limit=limit,
        )

    # --- changing ---

    def begin(self, bucket: Bucket, key: bytes, plan: UploadPlan, most: int | None = None) -> Pending[Upload]:
        """A new upload; with `most`, of that many that the bucket's account may have. NoSuchBucket;
        TooManyMultipartUploads."""
        now = time.time_ns()
        new = Upload(f"{now:016x}{os.urandom(24).hex()}", bucket.number, key, now // 1_000_000, plan)

        def work(connection: sqlite3.Connection) -> Upload:
            if most is not None:
                (there,) = connection.execute(_COUNT, (bucket.account, most)).fetchone()
                if there >= most:
                    raise too_many_uploads(most)
            try:
                connection.execute(
                    f"INSERT INTO uploads ({_UPLOAD}) VALUES (?, ?, ?, ?, ?)",
                    (new.identifier, new.bucket, new.key, new.initiated, encode(new.plan)),
                )
            except sqlite3.IntegrityError:
                raise no_such_bucket(bucket.name) from None
            return new

        return self._commit.submit(work)

    def put_part(self, upload: Upload, number: int, received: Received) -> Pending[Part]:
        """Keep a part, in place of what had its number. It was received into a file, and encrypted as the upload's
        object is to be. NoSuchUpload."""
        assert received.content is not None
        assert received.encryption == upload.plan.attributes.encryption
        part = Part(
            number,
            received.size,
            received.md5.hex(),
            time.time_ns() // 1_000_000,
            received.content,
            received.checksum,
        )
        going: list[bytes] = []

        def work(connection: sqlite3.Connection) -> Part:
            at = (upload.identifier, number)
            before = connection.execute("SELECT content FROM parts WHERE upload = ? AND number = ?", at).fetchone()
            if before is not None:
                going.append(before[0])
                forget_contents(connection, going)
            remember_content(connection, part.content, part.size)
            try:
                connection.execute(
                    f"INSERT OR REPLACE INTO parts (upload, {_PART}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (*at, part.size, part.etag, part.modified, part.content, encode(part.checksum)),
                )
            except sqlite3.IntegrityError:
                raise no_such_upload(upload.identifier) from None
            return part

        return self._commit.submit(work, self._objects.settled([part.content], going))

    def abort(self, bucket: Bucket, upload: Upload) -> Pending[None]:
        """Forget an upload and its parts. NoSuchUpload."""
        going: list[bytes] = []

        def work(connection: sqlite3.Connection) -> None:
            _upload(connection, bucket, upload.key, upload.identifier)
            going.extend(part.content for part in _parts(connection, upload.identifier))
            forget_contents(connection, going)
            _forget(connection, upload)

        return self._commit.submit(work, self._objects.settled((), going))

    def complete(
        self,
        bucket: Bucket,
        upload: Upload,
        wanted: Sequence[WantedPart],
        condition: Condition | None = None,
        verify: Callable[[StoredObject], None] | None = None,
    ) -> Pending[StoredObject]:
        """Let the key have the wanted parts, one after the other; the others are forgotten with the upload.

        InvalidPart, InvalidPartOrder, EntityTooSmall, NoSuchUpload, and what `condition` raises of what the key has, or
        `verify` of what it is to have.
        """
        going: list[bytes] = []

        def work(connection: sqlite3.Connection) -> StoredObject:
            current = _upload(connection, bucket, upload.key, upload.identifier)
            there = {part.number: part for part in _parts(connection, upload.identifier)}
            chosen = _chosen(there, wanted)
            new = put_together(current, chosen)
            if verify is not None:
                verify(new)
            made = self._objects.replace(connection, bucket, new, None, condition, going).after
            assert made is not None
            named = {part.content for part in chosen}
            others = [part.content for part in there.values() if part.content not in named]
            forget_contents(connection, others)
            going.extend(others)
            _forget(connection, upload)
            return made

        return self._commit.submit(work, self._objects.settled((), going))


def put_together(upload: Upload, parts: Sequence[Part]) -> StoredObject:
    """The object that an upload becomes. Its ETag is the MD5 of the parts' MD5s, and `-N`."""
    etag = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in parts), usedforsecurity=False).hexdigest()
    plan = upload.plan
    algorithm = ALGORITHMS[plan.algorithm]
    values = [part.checksum.value for part in parts if part.checksum is not None]
    if plan.composite:
        checksum = composite(algorithm, values)
    else:
        checksum = full_object(algorithm, [(value, part.size) for value, part in zip(values, parts, strict=True)])
    given = plan.attributes
    # Parts' checksums are told only of composites.
    told = tuple(PartOfObject(part.number, part.size, part.checksum) for part in parts)
    attributes = msgspec.structs.replace(given, checksum=checksum, parts=told, upload=upload.identifier)
    return StoredObject(
        upload.key,
        sum(part.size for part in parts),
        f"{etag}-{len(parts)}",
        time.time_ns() // 1_000_000,
        attributes,
        tuple(Segment(part.content, part.size) for part in parts),
    )


def _chosen(there: dict[int, Part], wanted: Sequence[WantedPart]) -> list[Part]:
    """The wanted parts, if they are what they must be."""
    chosen = []
    for before, each in zip((None, *wanted), wanted, strict=False):
        if before is not None and before.number >= each.number:
            raise invalid_part_order()
        part = there.get(each.number)
        if part is None or part.etag != each.etag:
            raise invalid_part()
        kept = part.checksum
        if kept and any(given.algorithm == kept.algorithm and given.value != kept.value for given in each.checksums):
            raise invalid_part()
        chosen.append(part)
    for part in chosen[:-1]:
        if part.size < SMALLEST_PART:
            raise part_too_small(part.number, part.size, part.etag)
    return chosen


def _made(row: Row) -> Upload:
    identifier, bucket, key, initiated, plan = row
    return Upload(identifier, bucket, key, initiated, decode_plan(plan))  # type: ignore[arg-type]  # the schema says what the columns are


def _upload(connection: sqlite3.Connection, bucket: Bucket, key: bytes, identifier: str) -> Upload:
    row = connection.execute(f"SELECT {_UPLOAD} FROM uploads WHERE id = ?", (identifier,)).fetchone()
    if row is None or row[1] != bucket.number or row[2] != key:
        raise no_such_upload(identifier)
    return _made(row)


def _parts(connection: sqlite3.Connection, upload: str, after: int = 0, limit: int = MOST_PARTS) -> list[Part]:
    rows = connection.execute(
        f"SELECT {_PART} FROM parts WHERE upload = ? AND number > ? ORDER BY number LIMIT ?", (upload, after, limit)
    )
    return [
        Part(number, size, etag, modified, content, decode_checksum(checksum))
        for number, size, etag, modified, content, checksum in rows
    ]


def _forget(connection: sqlite3.Connection, upload: Upload) -> None:
    connection.execute("DELETE FROM parts WHERE upload = ?", (upload.identifier,))
    connection.execute("DELETE FROM uploads WHERE id = ?", (upload.identifier,))
