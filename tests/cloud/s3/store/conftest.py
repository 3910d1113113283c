"""A store with one bucket, and what tests of it say often."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.store.records import Bucket


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    opened = ObjectStore(tmp_path / "s3")
    yield opened
    opened.close()


@pytest.fixture
def bucket(store: ObjectStore) -> Bucket:
    return store.buckets.create("a-bucket", "123456789012", "us-east-1").result()
