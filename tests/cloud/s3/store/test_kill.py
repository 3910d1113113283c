"""A process that puts, replaces and deletes objects is killed at random moments: what it acknowledged is there, whole.

CELAJE_KILLS=n kills it that many times (12).
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.records import ENABLED, Bucket, StoredObject
from tests.cloud.s3.store import writer

KILLS = int(os.environ.get("CELAJE_KILLS", "12"))


FIRST = 5  # acknowledgements that every kill comes after


def run_and_kill(directory: Path, start: int, seconds: float, versioning: str = "") -> list[int]:
    """The objects that a writer acknowledged before it was killed, so many seconds after the first of them."""
    command = [sys.executable, writer.__file__, str(directory), str(start), versioning]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = "".join(process.stdout.readline() for _ in range(FIRST))
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        said = first + process.stdout.read()
    return [int(line) for line in said.split("\n")[:-1]]  # the last may be half a line


def found(store: ObjectStore) -> dict[bytes, bytes]:
    """Every key's body, each held against its own ETag."""
    bucket = store.buckets.get("a-bucket")
    assert bucket is not None
    result = {}
    for each in store.objects.page(bucket).entries:
        result[each.key] = read(store, bucket, each, None)
    return result


def read(store: ObjectStore, bucket: Bucket, each: StoredObject, version: str | None) -> bytes:
    opened = store.objects.open(bucket, each.key, version)
    content = b"".join(opened.blocks(0, each.size))
    opened.close()
    assert len(content) == each.size
    if "-" not in each.etag:
        assert hashlib.md5(content).hexdigest() == each.etag
    return content


def content_of(number: int) -> bytes | None:
    return None if writer.is_deletion(number) else writer.body(number)


def test_every_object_that_was_acknowledged_is_there_after_each_kill(tmp_path: Path) -> None:
    chance = random.Random(1)
    known: dict[bytes, bytes | None] = {writer.key(number): None for number in range(writer.KEYS)}
    start = acknowledged = 0
    for _ in range(KILLS):
        said = sorted(run_and_kill(tmp_path / "s3", start, chance.uniform(0, 0.4)))
        last = {writer.key(number): number for number in said}
        acknowledged += len(said)
        store = ObjectStore(tmp_path / "s3")
        store.sweep()
        there = found(store)
        for number in range(start, start + writer.KEYS):
            key = writer.key(number)
            # What a thread had in hand when it was killed may be there or not: the next object of the key.
            if key in last:
                possible = [content_of(last[key]), content_of(last[key] + writer.KEYS)]
            else:
                possible = [known[key], content_of(number)]
            assert there.get(key) in possible
            known[key] = there.get(key)
        # Nothing is left over: every file is some object's, or a part's of an upload that was not completed.
        files = [path for path in (tmp_path / "s3" / "contents").rglob("*") if path.is_file()]
        bucket = store.buckets.get("a-bucket")
        assert bucket is not None
        uploads = store.uploads.page(bucket).entries
        parts = [part for upload in uploads for part in store.uploads.parts(upload)]
        objects = [each for each in store.objects.page(bucket).entries if each.segments]
        assert len(files) == len(objects) + len(parts)
        for upload in uploads:
            store.uploads.abort(bucket, upload).result()
        store.close()
        start = ((said[-1] if said else start) // writer.KEYS + 2) * writer.KEYS
    assert acknowledged >= FIRST * KILLS


def test_every_version_that_was_acknowledged_is_there_after_each_kill(tmp_path: Path) -> None:
    chance = random.Random(2)
    known: dict[bytes, list[bytes | None]] = {writer.key(number): [] for number in range(writer.KEYS)}
    start = acknowledged = 0
    for _ in range(max(1, KILLS // 2)):
        said = sorted(run_and_kill(tmp_path / "s3", start, chance.uniform(0, 0.4), ENABLED))
        acknowledged += len(said)
        store = ObjectStore(tmp_path / "s3")
        store.sweep()
        bucket = store.buckets.get("a-bucket")
        assert bucket is not None
        there: dict[bytes, list[bytes | None]] = {key: [] for key in known}
        files = 0
        for each, _ in store.objects.versions(bucket):  # a key's newest first
            content = None if each.marker else read(store, bucket, each, each.version)
            there[each.key].insert(0, content)
            files += len(each.segments)
        for index in range(writer.KEYS):
            key = writer.key(index)
            numbers = [number for number in said if writer.key(number) == key]
            expected = known[key] + [content_of(number) for number in numbers]
            # What a thread had in hand when it was killed may be there or not.
            next_one = numbers[-1] + writer.KEYS if numbers else start + index
            assert there[key] in (expected, [*expected, content_of(next_one)])
        uploads = store.uploads.page(bucket).entries
        files += sum(len(store.uploads.parts(upload)) for upload in uploads)
        assert len([path for path in (tmp_path / "s3" / "contents").rglob("*") if path.is_file()]) == files
        for upload in uploads:
            store.uploads.abort(bucket, upload).result()
        store.close()
        known = there
        start = ((said[-1] if said else start) // writer.KEYS + 2) * writer.KEYS
    assert acknowledged >= FIRST * max(1, KILLS // 2)
