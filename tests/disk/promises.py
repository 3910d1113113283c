"""What a store has promised, and whether a disk found after a crash keeps it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from celaje.disk.check import check
from celaje.disk.chunk_store import CHUNK, keep, name_of
from celaje.disk.volume import Volume
from celaje.disk.volumes import Source, VolumeStore
from tests.disk.crash import SECTOR, Disk

HOME = Path("/home/celaje")


def names_of(content: bytes | bytearray) -> bytes:
    """The names that a manifest of this content has."""
    chunks = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]
    return b"".join(name_of(bytes(chunk).ljust(CHUNK, b"\0")) for chunk in chunks)


def read_all(volume: Volume) -> bytearray:
    """Everything in a volume."""
    content = bytearray(volume.size)
    volume.readinto([memoryview(content)], 0)
    return content


@dataclass
class Contents:
    """What a volume must hold: `flushed`, or in the sectors written since, what was written."""

    flushed: bytearray
    since: list[tuple[int, bytes]] = field(default_factory=list)
    sizes: set[int] = field(default_factory=set)
    certain: bool = False
    leaving: bool = False

    def verdict(self, found: bytearray) -> str | None:
        """What is wrong with `found`, if anything is."""
        if len(found) not in (self.sizes or {len(self.flushed)}):
            return f"it has {len(found)} bytes"
        if found == self.flushed:
            return None
        expected = self.flushed.ljust(len(found), b"\0")[: len(found)]
        for at in range(0, len(found), SECTOR):
            here = found[at : at + SECTOR]
            if here != expected[at : at + SECTOR] and not any(
                offset <= at < offset + len(data) and here == data[at - offset : at - offset + SECTOR]
                for offset, data in self.since
            ):
                return f"its sector at {at} is neither what was flushed nor what was written since"
        return None


@dataclass
class Snapshotted:
    """What a snapshot must hold."""

    content: bytes
    names: bytes
    certain: bool = False
    leaving: bool = False


@dataclass
class Promises:
    """What the marks so far say."""

    volumes: dict[str, Contents] = field(default_factory=dict)
    snapshots: dict[str, Snapshotted] = field(default_factory=dict)
    taken: int = 0

    def take(self, marks: list[object]) -> None:
        """Take in the marks that are new."""
        for mark in marks[self.taken :]:
            assert isinstance(mark, tuple)
            self._take(*mark)
        self.taken = len(marks)

    def _take(self, what: str, name: str, *rest: object) -> None:
        match what, rest:
            case "making", (bytes(content),):
                self.volumes[name] = Contents(bytearray(content))
            case "made", ():
                self.volumes[name].certain = True
            case "write", (int(offset), bytes(data)):
                self.volumes[name].since.append((offset, data))
            case "flushed", ():
                contents = self.volumes[name]
                for offset, data in contents.since:
                    contents.flushed[offset : offset + len(data)] = data
                contents.since.clear()
            case "growing", (int(size),):
                self.volumes[name].sizes = {len(self.volumes[name].flushed), size}
            case "grown", (int(size),):
                contents = self.volumes[name]
                contents.sizes = {size}
                contents.flushed.extend(bytes(size - len(contents.flushed)))
            case "removing", ():
                self.volumes[name].leaving = True
            case "removed", ():
                del self.volumes[name]
            case "cut", (bytes(content),):
                self.snapshots[name] = Snapshotted(content, names_of(content))
            case "snapshot", ():
                self.snapshots[name].certain = True
            case "killed snapshot", ():
                pass
            case "removing snapshot", ():
                self.snapshots[name].leaving = True
            case "snapshot removed", ():
                del self.snapshots[name]
            case _:
                raise AssertionError(what)

    def broken(self, disk: Disk) -> Iterator[str]:
        """What a disk found after a crash does not keep; empty if it keeps everything."""
        store = VolumeStore(HOME, files=disk, threads=0)
        if disk.identity(HOME) is None:
            yield from (f"the volume {name} is gone" for name, one in self.volumes.items() if one.certain)
            return
        yield from (f"the checker: {damage}" for damage in check(store, deep=True).damage)
        there = store.snapshots.ids()
        for snapshot, expected in self.snapshots.items():
            if snapshot not in there:
                if expected.certain and not expected.leaving:
                    yield f"the snapshot {snapshot} is gone"
            elif store.snapshots.manifest(snapshot).names != expected.names:
                yield f"the snapshot {snapshot} holds something else"
        yield from (f"the snapshot {name} is back" for name in there if name not in self.snapshots)
        names = store.names()
        yield from (f"the volume {name} is back" for name in names if name not in self.volumes)
        for name, contents in self.volumes.items():
            if name not in names:
                if contents.certain and not contents.leaving:
                    yield f"the volume {name} is gone"
                continue
            yield from self._volume(store, name, contents)
        yield from (f"the checker, after using it: {damage}" for damage in check(store, repair=True).damage)
        yield from (f"the checker, after repairing: {what}" for what in check(store).garbage)

    def _volume(self, store: VolumeStore, name: str, contents: Contents) -> Iterator[str]:
        with contextlib.closing(store.open(name)) as volume:
            found = read_all(volume)
            wrong = contents.verdict(found)
            if wrong:
                yield f"the volume {name}: {wrong}"
            # An incremental snapshot reads only what the map says has changed: so this asks whether the map is true.
            snapshot = store.snapshot(volume)
            if store.snapshots.manifest(snapshot.id).names != names_of(found):
                yield f"a snapshot of the volume {name} holds something else than the volume"
            store.snapshots.remove(snapshot.id)


class Recorded:
    """A store on a recording disk, and what the test does to it, with marks of what each step promises."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.store = VolumeStore(HOME, files=disk, threads=0)
        self.now: dict[str, bytearray] = {}
        self.open: dict[str, Volume] = {}

    def create(self, name: str, size: int, source: Source | None = None, content: bytes = b"") -> None:
        """Make a volume, over `source` whose content is `content`, and open it."""
        self.now[name] = bytearray(content.ljust(size, b"\0"))
        self.disk.mark(("making", name, bytes(self.now[name])))
        self.store.create(name, size=size, source=source)
        self.disk.mark(("made", name))
        self.open[name] = self.store.open(name)

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Write, which promises nothing."""
        self.disk.mark(("write", name, offset, data))
        self.now[name][offset : offset + len(data)] = data
        self.open[name].write([memoryview(data)], offset)

    def zero(self, name: str, offset: int, length: int) -> None:
        """Let a range read as zeros."""
        self.disk.mark(("write", name, offset, bytes(length)))
        self.now[name][offset : offset + length] = bytes(length)
        self.open[name].write_zeroes(offset, length, True)

    def flush(self, name: str) -> None:
        """Everything written so far is promised."""
        self.open[name].flush()
        self.disk.mark(("flushed", name))

    def read(self, name: str, offset: int, length: int) -> None:
        """Read, which may hydrate."""
        content = bytearray(length)
        self.open[name].readinto([memoryview(content)], offset)
        assert content == self.now[name][offset : offset + length]

    def grow(self, name: str, size: int) -> None:
        """Grow."""
        self.disk.mark(("growing", name, size))
        self.open[name].grow(size)
        self.now[name].extend(bytes(size - len(self.now[name])))
        self.disk.mark(("grown", name, size))

    def reopen(self, name: str) -> None:
        """Close, which promises nothing that a flush has not, and open again."""
        self.open[name].close()
        self.open[name] = self.store.open(name)

    def close(self, name: str) -> None:
        """Close."""
        self.open.pop(name).close()

    def remove(self, name: str) -> None:
        """Remove a volume that is not open."""
        self.disk.mark(("removing", name))
        self.store.remove(name)
        self.disk.mark(("removed", name))

    @contextlib.contextmanager
    def snapshot(self, name: str, taken: list[str]) -> Iterator[None]:
        """Cut, let the caller go on, then copy; the id goes to `taken`."""
        task = self.store.snapshots.begin(self.open[name])
        self.disk.mark(("cut", task.id, bytes(self.now[name])))
        yield
        task.run()
        self.disk.mark(("snapshot", task.id))
        taken.append(task.id)

    def remove_snapshot(self, snapshot: str) -> None:
        """Remove a snapshot."""
        self.disk.mark(("removing snapshot", snapshot))
        self.store.snapshots.remove(snapshot)
        self.disk.mark(("snapshot removed", snapshot))

    def killed_snapshot(self, name: str) -> None:
        """Another process takes a snapshot of a volume like this one, and is killed when it has put its chunks."""
        self.disk.mark(("killed snapshot", name))
        other = VolumeStore(HOME, files=self.disk, threads=0)
        for at in range(0, len(self.now[name]), CHUNK):
            keep(other.chunks, bytes(self.now[name][at : at + CHUNK]).ljust(CHUNK, b"\0"))

    def killed_while_removing_snapshot(self, snapshot: str) -> None:
        """Another process removes a snapshot, and is killed before that is durable."""
        self.disk.mark(("removing snapshot", snapshot))
        self.disk.unlink(self.store.layout.manifest(snapshot))
