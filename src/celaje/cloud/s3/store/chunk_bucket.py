"""The system bucket `.chunks`: the chunks of snapshots, as objects of the same store.

Machines' processes read and write chunks as files (`celaje.disk.chunk_store`), also while no daemon runs, so the folder
stays what it is; this is the store's view of it. A chunk's key is `ab/abcd…`, as in the folder and as in a bucket of an
object store elsewhere (`celaje.disk.bucket`). Its name begins with a dot, which no bucket's of an account may, and it
is not among `Buckets`: no request can name it, and so no account, not even the owner's, reaches a chunk through S3.
What it is for is one accounting: what the host's disk holds for S3 and for snapshots is told in one place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from celaje.cloud.s3.store.listing import Page, list_page
from celaje.disk.chunk_store import FolderChunkStore
from celaje.disk.files import Files

CHUNK_BUCKET = ".chunks"


@dataclass(frozen=True, slots=True)
class ChunkObject:
    """A chunk as an object: its key, and the bytes that it takes on the disk."""

    key: bytes
    size: int


class ChunkBucket:
    """The chunks in the folder of `chunks`, to be listed, counted and read. Snapshots alone put and delete them."""

    name = CHUNK_BUCKET

    def __init__(self, chunks: FolderChunkStore, files: Files) -> None:
        self._chunks = chunks
        self._files = files

    def __iter__(self) -> Iterator[ChunkObject]:
        for name in self._chunks.list():
            try:
                size = self._files.allocated(Path(self._chunks.where(name)))
            except FileNotFoundError:
                continue  # swept meanwhile
            yield ChunkObject(key_of_chunk(name), size)

    def page(
        self, *, prefix: bytes = b"", delimiter: bytes = b"", after: bytes = b"", limit: int = 1000
    ) -> Page[ChunkObject]:
        """A page of chunks in the order of their keys."""
        ordered = sorted(self, key=lambda each: each.key)
        return list_page(
            lambda first, end: (each for each in ordered if each.key >= first and (end is None or each.key < end)),
            lambda each: each.key,
            prefix=prefix,
            delimiter=delimiter,
            after=after,
            limit=limit,
        )

    def get(self, key: bytes) -> bytes:
        """A chunk's frame. ChunkError if it is not there; ValueError for what is no chunk's key."""
        digits = key.rpartition(b"/")[2].decode("ascii")
        name = bytes.fromhex(digits)
        if key_of_chunk(name) != key:
            raise ValueError(f"{key!r} is not the key of a chunk")
        return self._chunks.get(name)


def key_of_chunk(name: bytes) -> bytes:
    """The key of the chunk of that name."""
    digits = name.hex()
    return f"{digits[:2]}/{digits}".encode()
