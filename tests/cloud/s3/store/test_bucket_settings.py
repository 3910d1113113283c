"""What is set of a bucket lasts, stays apart, and an older store learns to keep it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.records import ENABLED, Attributes, BucketSettings


def test_settings_are_kept_and_changes_at_once_keep_each_other(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    bucket = store.buckets.create("first", "111111111111", "us-east-1").result()
    assert bucket.settings == BucketSettings()
    pending = [
        store.buckets.set(bucket, policy="{}"),
        store.buckets.set(bucket, ownership="ObjectWriter"),
        store.buckets.tag(bucket, (("a", "b"),)),
    ]
    for each in pending:
        each.result()
    store.close()
    store = ObjectStore(tmp_path)
    found = store.buckets.get("first")
    assert found is not None
    assert (found.settings.policy, found.settings.ownership, found.tags) == ("{}", "ObjectWriter", (("a", "b"),))
    store.close()


def test_a_store_of_version_1_is_brought_to_this_one(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    bucket = store.buckets.create("first", "111111111111", "us-east-1").result()
    receiver = store.receiver()
    receiver.take(b"kept")
    store.objects.put(bucket, b"key", receiver.finish(), Attributes()).result()
    store.close()
    connection = sqlite3.connect(tmp_path / "objects.sqlite3")
    connection.executescript(
        "ALTER TABLE buckets DROP COLUMN settings; ALTER TABLE objects DROP COLUMN version; DROP TABLE versions;"
        "ALTER TABLE objects DROP COLUMN rank; DROP TABLE master_keys; PRAGMA user_version = 1;"
    )
    connection.close()
    store = ObjectStore(tmp_path)
    found = store.buckets.get("first")
    assert found is not None
    assert found.settings == BucketSettings()
    store.buckets.set(found, policy="{}", versioning=ENABLED).result()
    # What was there is the null version.
    assert store.objects.open(found, b"key", "").body == b"kept"
    marker = store.objects.delete(found, b"key").result().after
    assert marker is not None
    assert marker.version
    assert [each.version for each, _ in store.objects.versions(found)] == [marker.version, ""]
    store.close()
