"""Snapshots that are being written block by block.

    CELAJE_HOME/volumes/vol-…       a volume of the snapshot's digits, over its parent: what the blocks are written to
    CELAJE_HOME/cloud/blocks/snap-… a record a block, in the order in which they came: index (8), SHA-256 (32)

A block is acknowledged when it is durable in the volume, and then its record. A record that was cut off by a kill was
never acknowledged, and the next one takes its place. When the snapshot is sealed, the controller of snapshots takes it
of the volume, as of any other, and both files go.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from celaje.disk.chunk_store import CHUNK
from celaje.disk.volume import Volume
from celaje.disk.volumes import SnapshotSource, VolumeStore
from celaje.errors import NotFound
from celaje.paths import made

GIB = 1 << 30
OPEN = 32  # volumes kept open between two blocks
_RECORD = struct.Struct("<Q32s")


def hidden_volume(snapshot: str) -> str:
    """The volume that a snapshot becomes one through, where no volume of anybody's has its contents."""
    return f"vol-{snapshot.removeprefix('snap-')}"


class _Writing:
    """One snapshot: its volume, open, and what was written."""

    def __init__(self, volume: Volume, records: int) -> None:
        self.volume = volume
        self.records = records
        self.sums: dict[int, bytes] = {}
        self._count = 0
        content = b""
        while piece := os.pread(records, 1 << 20, len(content)):
            content += piece
        for at in range(0, len(content) - _RECORD.size + 1, _RECORD.size):
            index, digest = _RECORD.unpack_from(content, at)
            self.sums[index] = digest
            self._count += 1

    def write(self, index: int, content: bytes, digest: bytes) -> None:
        """Have a block, durably."""
        self.volume.write([memoryview(content)], index * CHUNK)
        self.volume.flush()
        record = _RECORD.pack(index, digest)
        if os.pwrite(self.records, record, self._count * _RECORD.size) != len(record):
            raise OSError("the record of a block was not written whole; make room for CELAJE_HOME/cloud/blocks")
        os.fdatasync(self.records)
        self._count += 1
        self.sums[index] = digest

    def close(self) -> None:
        self.volume.close()
        os.close(self.records)


class WrittenBlocks:
    """The snapshots of one home that are being written, by their ids."""

    def __init__(self, home: Path) -> None:
        self._directory = home / "cloud" / "blocks"
        self._store = VolumeStore(home)
        self._open: OrderedDict[str, _Writing] = OrderedDict()
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def held(self, snapshot: str) -> Iterator[None]:
        """Nobody else writes to the snapshot, or seals it, inside."""
        with self._lock:
            lock = self._locks.setdefault(snapshot, threading.Lock())
        with lock:
            yield

    def write(self, snapshot: str, gib: int, parent: str, index: int, content: bytes) -> None:
        """Keep one block, durably. Only while `held`. NotFound where the parent is gone; OSError."""
        self._opened(snapshot, gib, parent).write(index, content, hashlib.sha256(content).digest())

    def sums(self, snapshot: str, gib: int, parent: str) -> dict[int, bytes]:
        """The SHA-256 of each block that was written, by its index. Only while `held`."""
        return dict(self._opened(snapshot, gib, parent).sums)

    def _opened(self, snapshot: str, gib: int, parent: str) -> _Writing:
        with self._lock:
            known = self._open.pop(snapshot, None)
            if known is not None:
                self._open[snapshot] = known
                return known
        name = hidden_volume(snapshot)
        try:
            volume = self._store.open(name)
        except NotFound:
            source = SnapshotSource(parent) if parent else None
            self._store.create(size=gib * GIB, source=source, identifier=name)
            volume = self._store.open(name)
        with contextlib.ExitStack() as undo:
            undo.callback(volume.close)
            path = made(self._directory) / snapshot
            records = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, records)
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
            fresh = _Writing(volume, records)
            undo.pop_all()
        with self._lock:
            self._open[snapshot] = fresh
            oldest = next(iter(self._open)) if len(self._open) > OPEN else ""
        if oldest:
            self._let_go(oldest)
        return fresh

    def _let_go(self, snapshot: str) -> None:
        """Close one that nobody writes to just now."""
        with self._lock:
            lock = self._locks.get(snapshot)
        if lock is not None and lock.acquire(blocking=False):
            try:
                self.close(snapshot)
            finally:
                lock.release()

    def close(self, snapshot: str) -> None:
        """Let go of its volume, so that others can open it. Only while `held`."""
        with self._lock:
            known = self._open.pop(snapshot, None)
        if known is not None:
            known.close()

    def last(self, snapshot: str) -> float:
        """When its last block came, in seconds since 1970; 0 before the first."""
        try:
            return (self._directory / snapshot).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def forget(self, snapshot: str) -> None:
        """It is a snapshot now, or never will be: what it was written to goes."""
        with self.held(snapshot):
            self.close(snapshot)
            with contextlib.suppress(NotFound):
                self._store.remove(hidden_volume(snapshot))
            (self._directory / snapshot).unlink(missing_ok=True)
        with self._lock:
            self._locks.pop(snapshot, None)


_BY_HOME: dict[Path, WrittenBlocks] = {}
_MAKING = threading.Lock()


def written_blocks(home: Path) -> WrittenBlocks:
    """Those of a home: one for all threads of this process."""
    with _MAKING:
        return _BY_HOME.setdefault(home, WrittenBlocks(home))
