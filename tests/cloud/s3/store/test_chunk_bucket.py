"""Snapshots' chunks are objects of the store, counted with the others, and no account can name them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from celaje.cloud.s3.names import is_bucket_name
from celaje.cloud.s3.store.chunk_bucket import CHUNK_BUCKET, key_of_chunk
from celaje.cloud.s3.store.object_store import home_store
from celaje.cloud.s3.store.records import Attributes
from celaje.disk.chunk_store import CHUNK, FolderChunkStore, fetch, keep
from celaje.disk.files import HOST
from celaje.disk.layout import Layout


def test_chunks_that_snapshots_put_are_listed_counted_and_read(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.make(HOST)
    folder = FolderChunkStore(layout.chunks, HOST)
    contents = [os.urandom(CHUNK) for _ in range(3)]
    names = [keep(folder, content) for content in contents]
    store = home_store(tmp_path)
    bucket = store.buckets.create("a-bucket", "123456789012", "us-east-1").result()
    receiver = store.receiver()
    receiver.take(b"an object")
    received = receiver.finish()
    store.objects.put(bucket, b"key", received, Attributes()).result()
    usage = store.usage()
    assert (usage.objects, usage.size, usage.chunks) == (1, 9, 3)
    assert usage.chunk_size >= 3 * CHUNK  # random bytes do not become smaller
    assert usage.free > 0
    chunks = store.chunks
    assert chunks is not None
    first = chunks.page(limit=2)
    rest = chunks.page(after=first.last or b"")
    assert [each.key for each in first.entries + rest.entries] == sorted(map(key_of_chunk, names))
    assert chunks.get(key_of_chunk(names[0])) == folder.get(names[0])
    assert fetch(folder, names[0]) == contents[0]
    with pytest.raises(ValueError, match="not the key of a chunk"):
        chunks.get(b"../" + names[0].hex().encode())
    store.close()


def test_no_account_can_name_the_bucket_of_chunks(tmp_path: Path) -> None:
    store = home_store(tmp_path)
    assert not is_bucket_name(CHUNK_BUCKET)
    assert store.buckets.get(CHUNK_BUCKET) is None
    assert store.buckets.of("") == []
    store.close()
