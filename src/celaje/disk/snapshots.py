"""Snapshots: a volume's contents at one instant, in chunks that all snapshots share.

Taking one. The cut (`cut.py`) is the instant. Then chunk after chunk is looked at: one that has not changed since the
last snapshot takes its name from there, one that has is read, hashed and put into the chunk store unless it has it. The
first snapshot of a volume compares with its base: with the manifest, for a volume made from a snapshot; for one over an
image's raw file, with a manifest of that file which is made once for each SHA-256 and kept in the cache (it says only
names: each chunk is looked for, and put if it is not there).

When all chunks are durable, the manifest gets its name, in one rename. Killed at any moment before, there is no
snapshot, and chunks that nobody refers to are left for the next sweep. Afterwards, the volume notes the snapshot as its
baseline; if that is lost, the next snapshot only reads more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from celaje import paths
from celaje.disk.base import Base, ManifestBase
from celaje.disk.chunk_store import CHUNK, NAME_SIZE, ZERO_NAME, ChunkStore, keep, name_of
from celaje.disk.cut import Cut
from celaje.disk.description import ImageBelow, NothingBelow, new_id
from celaje.disk.files import Buffers, Files, publish
from celaje.disk.layout import MANIFEST_SUFFIX, Layout, store_lock
from celaje.disk.manifest import Manifest, read_manifest, read_summary, shortened
from celaje.disk.volume import Progress, Volume, no_progress
from celaje.errors import HostError, InputError, NotFound

log = logging.getLogger(__name__)

_Each = TypeVar("_Each")
AHEAD = 8  # chunks that are being hashed, compressed and written for each thread that does


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A published snapshot. `size` in bytes, `created` in nanoseconds since 1970; `volume` is an id."""

    id: str
    volume: str
    size: int
    created: int
    description: str


class Contents(Protocol):
    """What a snapshot can be made of without a volume: a disk to read, as `transfer.Disk`."""

    @property
    def size(self) -> int: ...

    def readinto(self, buffers: Buffers, offset: int) -> None: ...

    def data(self) -> Iterator[tuple[int, int]]: ...


class Snapshots:
    """The snapshots of one store. `cache`: where manifests of images are kept, None for nowhere."""

    def __init__(
        self, files: Files, layout: Layout, chunks: ChunkStore, cache: Path | None, threads: int | None = None
    ) -> None:
        self._files = files
        self._layout = layout
        self._chunks = chunks
        self._cache = cache
        self._threads = min(4, os.cpu_count() or 1) if threads is None else threads

    def ids(self) -> list[str]:
        """The ids of the published snapshots."""
        names = self._files.names(self._layout.snapshots)
        return [name.removesuffix(MANIFEST_SUFFIX) for name in names if name.startswith("snap-")]

    def list(self) -> list[Snapshot]:
        """The published snapshots, the oldest first. InputError if a manifest is damaged."""
        found = []
        for snapshot in self.ids():
            with contextlib.suppress(NotFound):  # removed meanwhile
                found.append(self.describe(snapshot))
        return sorted(found, key=lambda one: (one.created, one.id))

    def describe(self, snapshot: str) -> Snapshot:
        """One of them. NotFound, InputError."""
        try:
            return _described(read_summary(self._files, self._layout.manifest(_checked(snapshot))))
        except FileNotFoundError:
            raise _unknown(snapshot) from None

    def manifest(self, snapshot: str) -> Manifest:
        """Its manifest, checked. NotFound, InputError."""
        try:
            return read_manifest(self._files, self._layout.manifest(_checked(snapshot)))
        except FileNotFoundError:
            raise _unknown(snapshot) from None

    def remove(self, snapshot: str) -> None:
        """Take a snapshot away, durably; volumes that were made from it keep their own manifest. NotFound.

        Its chunks stay until a sweep.
        """
        try:
            self._files.unlink(self._layout.manifest(_checked(snapshot)))
        except FileNotFoundError:
            raise _unknown(snapshot) from None
        # Before a chunk of it may go: a name that comes back after a loss of power must not find its chunks gone.
        self._files.sync_directory(self._layout.snapshots)

    def copy(self, source: str, identifier: str, description: str = "") -> Snapshot:
        """Publish what the snapshot `source` holds under another id, which nothing has. NotFound, InputError."""
        path = self._layout.manifest(_checked(identifier))
        with store_lock(self._files, self._layout, exclusive=False):
            known = self.manifest(source)
            copied = Manifest(identifier, "", known.size, time.time_ns(), shortened(description), known.names)
            publish(self._files, path, copied.parts())
        return _described(copied)

    def of_disk(
        self, disk: Contents, size: int, identifier: str, description: str = "", progress: Progress = no_progress
    ) -> Snapshot:
        """Publish what `disk` holds as a snapshot of `size` bytes, which is no less than it has. What `disk` or
        `progress` raises ends it, and then there is no snapshot."""
        path = self._layout.manifest(_checked(identifier))
        self._layout.make(self._files)
        with store_lock(self._files, self._layout, exclusive=False):
            names = bytearray(-(-size // CHUNK) * NAME_SIZE)
            numbers: deque[int] = deque()
            done = 0

            def blocks() -> Iterator[bytearray]:
                for number in _numbers(disk):
                    block, start = bytearray(CHUNK), number * CHUNK
                    with memoryview(block) as window:
                        disk.readinto([window[: min(CHUNK, disk.size - start)]], start)
                    numbers.append(number)
                    yield block

            def kept(block: bytearray) -> bytes:
                return keep(self._chunks, block)

            with _in_order(self._threads, kept) as work:
                for name in work(blocks()):
                    at = numbers.popleft()
                    names[at * NAME_SIZE : (at + 1) * NAME_SIZE] = name
                    done = min((at + 1) * CHUNK, disk.size)
                    progress(done, disk.size)
            self._chunks.settle()
            made = Manifest(identifier, "", size, time.time_ns(), shortened(description), bytes(names))
            publish(self._files, path, made.parts())
        return _described(made)

    def begin(self, volume: Volume, description: str = "", identifier: str | None = None) -> SnapshotTask:
        """Cut `volume` now; the task copies. `identifier` is one that nothing has, None: a new one. InputError if a
        snapshot of it is being taken already, NotFound if that is no identifier."""
        chosen = new_id("snap") if identifier is None else _checked(identifier)
        with contextlib.ExitStack() as held:
            held.enter_context(store_lock(self._files, self._layout, exclusive=False))
            cut = None
            while cut is None:  # again, if another snapshot has been completed since its baseline was looked for
                baseline = volume.description.baseline
                known = None if baseline is None else self._baseline(baseline)
                cut = volume.cut_for_snapshot(None if known is None else baseline)
            held.callback(cut.close)
            task = SnapshotTask(
                chosen, self._files, self._layout, self._chunks, self._threads, volume, cut, known, self._below
            )
            task.description = shortened(description)
            task.held = held.pop_all()
            return task

    def _baseline(self, baseline: str) -> Manifest | None:
        """What a volume's clean clusters have not changed since, while it is there: the lock keeps its chunks."""
        with contextlib.suppress(NotFound):
            return self.manifest(baseline)
        return None

    def _below(self, volume: Volume) -> Manifest | None:
        """A manifest of what is under a volume, kept for the next one if that is an image; None if it is nothing."""
        described = volume.description.base
        if isinstance(described, NothingBelow):
            return None
        path = None
        if self._cache and isinstance(described, ImageBelow):
            path = self._cache / f"{described.sha256}{MANIFEST_SUFFIX}"
        if path:
            with contextlib.suppress(FileNotFoundError, InputError):
                found = read_manifest(self._files, path)
                if found.size == described.size:
                    return found
        base = volume.base
        names = bytearray()

        def name_below(number: int) -> bytes:
            return name_of(_chunk(base, number))

        with _in_order(self._threads, name_below) as work:
            for name in work(range(-(-base.size // CHUNK))):
                names += name
        found = Manifest("", "", base.size, 0, "", bytes(names))
        if path and self._cache:
            with contextlib.suppress(OSError, HostError):  # it can be made again
                paths.made(self._cache)
                publish(self._files, path, found.parts())
        return found


def _checked(snapshot: str) -> str:
    if not snapshot.startswith("snap-") or "/" in snapshot:
        raise NotFound(
            f"{snapshot!r} is no snapshot's id, such as snap-0123456789abcdef0; celaje vm volume snapshots lists them"
        )
    return snapshot


def _unknown(snapshot: str) -> NotFound:
    return NotFound(f"there is no snapshot {snapshot}; celaje vm volume snapshots lists those that there are")


def _described(manifest: Manifest) -> Snapshot:
    return Snapshot(manifest.snapshot, manifest.volume, manifest.size, manifest.created, manifest.description)


def _numbers(disk: Contents) -> Iterator[int]:
    """The chunks in which a disk has anything, ascending."""
    after = 0
    for start, end in disk.data():
        first = max(after, start // CHUNK)
        after = max(after, -(-end // CHUNK))
        yield from range(first, after)


def _chunk(base: Base, number: int) -> bytearray:
    block = bytearray(CHUNK)
    base.readinto([memoryview(block)], number * CHUNK)
    return block


class _Below(Protocol):
    def __call__(self, volume: Volume) -> Manifest | None: ...


class SnapshotTask:
    """A snapshot that is being taken: its instant is over, its chunks are not copied yet. `run` or `cancel` it."""

    description = ""
    held: contextlib.ExitStack

    def __init__(
        self,
        identifier: str,
        files: Files,
        layout: Layout,
        chunks: ChunkStore,
        threads: int,
        volume: Volume,
        cut: Cut,
        baseline: Manifest | None,
        below: _Below,
    ) -> None:
        self.id = identifier
        self.created = time.time_ns()
        self._files = files
        self._layout = layout
        self._chunks = chunks
        self._threads = threads
        self._volume = volume
        self._cut = cut
        self._baseline = baseline
        self._below = below

    def cancel(self) -> None:
        """There will be no snapshot."""
        self.held.close()

    def run(self, progress: Progress = no_progress) -> Snapshot:
        """Copy what has changed, and publish. OSError or CelajeError, and then there is no snapshot."""
        with self.held:
            names = self._names(progress)
            self._chunks.settle()
            manifest = Manifest(
                self.id, self._volume.description.id, self._cut.size, self.created, self.description, names
            )
            publish(self._files, self._layout.manifest(self.id), manifest.parts())
            try:
                self._volume.adopt(self.id)
                self._cut.close(adopted=True)
            except OSError as error:  # the snapshot is there all the same; the next one reads more
                log.warning("volume %s: %s is not its baseline: %s", self._volume.description.name, self.id, error)
            return _described(manifest)

    def _names(self, progress: Progress) -> bytes:
        known, certain = self._baseline, True
        if known is None and isinstance(self._volume.base, ManifestBase):
            known = self._volume.base.manifest  # a link in the volume's directory: no sweep takes its chunks
        elif known is None:
            known, certain = self._below(self._volume), False
        names = bytearray()

        def runs() -> Iterator[tuple[int, int, bool]]:
            """Chunks that must be looked for in the store are runs of their own, so that threads share them."""
            for first, count, changed in self._cut.runs():
                looked_for = 0 if certain or known is None else max(0, min(count, known.chunks - first))
                yield from ((number, 1, changed) for number in range(first, first + looked_for))
                if looked_for < count:
                    yield first + looked_for, count - looked_for, changed

        def named(run: tuple[int, int, bool]) -> bytes:
            first, count, changed = run
            if changed:
                return keep(self._chunks, self._cut.read(first))
            before = b"" if known is None else known.names[first * NAME_SIZE : (first + count) * NAME_SIZE]
            before = before.ljust(count * NAME_SIZE, b"\0")  # beyond its end there are zeros
            if certain or count > 1 or before == ZERO_NAME or self._chunks.has(before):
                return before
            return keep(self._chunks, _chunk(self._volume.base, first))

        with _in_order(self._threads, named) as work:
            for found in work(runs()):
                names += found
                progress(min(len(names) // NAME_SIZE * CHUNK, self._cut.size), self._cut.size)
        return bytes(names)


@contextlib.contextmanager
def _in_order(
    threads: int, task: Callable[[_Each], bytes]
) -> Iterator[Callable[[Iterable[_Each]], Iterator[bytes]]]:
    """The results of `task`, done by that many threads (none: by this one), in the order of what it is given."""
    if not threads:
        yield lambda given: map(task, given)
        return
    with ThreadPoolExecutor(threads, "celaje-snapshot") as pool:

        def results(given: Iterable[_Each]) -> Iterator[bytes]:
            waiting: deque[Future[bytes]] = deque()
            try:
                for each in given:
                    waiting.append(pool.submit(task, each))
                    if len(waiting) > AHEAD * threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

        yield results
