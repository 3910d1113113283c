"""What a volume does when the host fails it, and what it does not do needlessly."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from celaje.disk.chunk_store import CHUNK, FolderChunkStore
from celaje.disk.cluster_map import CLUSTER, LARGE
from celaje.disk.files import WRITE
from celaje.disk.manifest import Manifest
from celaje.disk.volume import Volume
from celaje.disk.volumes import SnapshotSource, VolumeInUse, VolumeStore
from celaje.errors import InputError, NotFound, UsageError
from tests.disk.crash import Disk
from tests.disk.promises import names_of, read_all

SIZE = 3 * CHUNK


def put(volume: Volume, offset: int, data: bytes) -> None:
    volume.write([memoryview(data)], offset)


def get(volume: Volume, offset: int, length: int) -> bytes:
    found = bytearray(length)
    volume.readinto([memoryview(found)], offset)
    return bytes(found)


def fresh(store: VolumeStore, name: str = "data") -> Volume:
    store.create(name, size=SIZE)
    return store.open(name)


def killed(disk: Disk, volume: Volume) -> None:
    """Its process is gone: nothing is written any more, and its lock is free."""
    disk.close(volume._head)


def kinds(disk: Disk, work: Callable[[], object]) -> list[str]:
    """What `work` does to the disk."""
    before = len(disk.events)
    work()
    return [event.kind for event in disk.events[before:]]


def snapshot_is_true(store: VolumeStore, volume: Volume) -> bool:
    """Whether a snapshot, which trusts the map, has what the volume reads as."""
    return store.snapshots.manifest(store.snapshot(volume).id).names == names_of(read_all(volume))


# --- what it costs ---


def test_a_flush_of_what_is_flushed_does_nothing(disk: Disk, store: VolumeStore) -> None:
    volume = fresh(store)
    assert kinds(disk, volume.flush) == []
    put(volume, 0, b"x" * 4096)
    assert kinds(disk, volume.flush) == ["sync", "write", "sync"]  # data, then the map
    assert kinds(disk, volume.flush) == []


def test_writing_again_where_it_was_written_costs_one_write_and_one_sync(disk: Disk, store: VolumeStore) -> None:
    volume = fresh(store)
    put(volume, 4096, b"x" * 8192)
    volume.flush()
    assert kinds(disk, lambda: (put(volume, 8192, b"y" * 4096), volume.flush())) == ["write", "sync"]


def test_hydration_makes_no_flush_of_the_guests_wait(disk: Disk, store: VolumeStore) -> None:
    first = fresh(store)
    put(first, 0, b"x" * CHUNK)
    taken = store.snapshot(first)
    store.create("copy", source=SnapshotSource(taken.id))
    copy = store.open("copy")
    assert get(copy, 4096, 8) == b"x" * 8
    assert kinds(disk, copy.flush) == []
    assert "write" in kinds(disk, copy.close)
    assert kinds(disk, lambda: get(store.open("copy"), 8192, 4096)) == []


def test_a_second_snapshot_stores_only_the_chunks_that_changed(disk: Disk, store: VolumeStore) -> None:
    volume = fresh(store)
    for number in range(3):
        put(volume, number * CHUNK, bytes([number + 1]) * 4096)
    store.snapshot(volume)
    before = set(store.chunks.list())
    put(volume, CHUNK, b"n" * 512)
    opened = len(disk.events)
    store.snapshot(volume)
    assert len(set(store.chunks.list()) - before) == 1
    assert sum(event.kind == "enter" and len(event.name) > 64 for event in disk.events[opened:]) == 1


def test_a_volume_over_a_snapshot_is_made_without_reading_a_chunk(disk: Disk, store: VolumeStore) -> None:
    volume = fresh(store)
    put(volume, 0, b"x" * CHUNK)
    taken = store.snapshot(volume)
    (name,) = store.chunks.list()
    store.chunks.delete(name)
    store.create("copy", source=SnapshotSource(taken.id))


def test_a_write_says_beforehand_whether_it_waits_for_a_chunk_a_sync_or_a_copy(
    store: VolumeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for one is a disk's thread, and no hart."""
    first = fresh(store)
    assert first.writes_at_once(512, 512)  # there is nothing below
    put(first, 0, b"a" * SIZE)
    assert first.writes_at_once(512, 512)
    task = store.snapshots.begin(first)
    assert not first.writes_at_once(0, CLUSTER)  # it is copied for the snapshot first
    taken = task.run().id
    assert not first.writes_at_once(0, CLUSTER)  # clean, and a sync says that it is no more
    put(first, 0, b"b" * CLUSTER)
    assert first.writes_at_once(CLUSTER, CLUSTER)

    store.create("over", source=SnapshotSource(taken), size=SIZE + 512)
    over = store.open("over")
    with monkeypatch.context() as nothing:
        nothing.setattr(FolderChunkStore, "get", None)  # what is asked for it fails
        for offset, length in ((0, CLUSTER), (CLUSTER, 3 * CLUSTER), (SIZE, 512), (SIZE, 512), (512, 512)):
            assert over.writes_at_once(offset, length)
            put(over, offset, bytes(length))
    assert not over.writes_at_once(8 * CLUSTER + 512, 512)  # the rest of the cluster is in a chunk
    assert not over.writes_at_once(8 * CLUSTER, CLUSTER + 512)
    assert over.hydrate()
    assert not over.writes_at_once(8 * CLUSTER, CLUSTER)
    put(over, 8 * CLUSTER, bytes(CLUSTER))
    assert over.writes_at_once(9 * CLUSTER + 512, 512)


def test_its_serial_is_its_id_in_twenty_bytes(store: VolumeStore) -> None:
    volume = fresh(store)
    assert volume.serial == volume.description.id.replace("-", "").encode()
    assert len(volume.serial) == 20


# --- a disk that is full, or fails ---


def test_a_disk_that_fills_up_in_a_write_loses_nothing_that_was_flushed(disk: Disk, store: VolumeStore) -> None:
    volume = fresh(store)
    put(volume, 0, b"a" * 8192)
    volume.flush()
    store.snapshot(volume)
    disk.room = 4096 + 1024
    with pytest.raises(OSError, match="space") as refused:
        put(volume, 4096, b"b" * 16384)
    assert refused.value.errno == errno.ENOSPC
    assert get(volume, 0, 4096) == b"a" * 4096
    assert get(volume, 8192, 12288) == bytes(12288)
    disk.room = None
    assert snapshot_is_true(store, volume)
    put(volume, 4096, b"c" * 16384)
    volume.flush()
    killed(disk, volume)
    assert get(store.open("data"), 0, 20480) == b"a" * 4096 + b"c" * 16384


def test_a_disk_that_is_full_for_the_map_fails_that_flush_and_the_next_one_makes_up_for_it(
    disk: Disk, store: VolumeStore
) -> None:
    volume = fresh(store)
    put(volume, 0, b"a" * 4096)
    disk.room = 0
    with pytest.raises(OSError, match="space"):
        volume.flush()
    disk.room = None
    volume.flush()
    killed(disk, volume)
    assert get(store.open("data"), 0, 4096) == b"a" * 4096


def test_after_a_failed_sync_nothing_is_acknowledged_until_it_is_opened_again(
    disk: Disk, store: VolumeStore, caplog: pytest.LogCaptureFixture
) -> None:
    volume = fresh(store)
    put(volume, 0, b"a" * 4096)

    def fail(kind: str, node: int) -> None:
        if kind == "sync":
            raise OSError(errno.EIO, "the device failed")

    disk.fail = fail
    with pytest.raises(OSError, match="the device failed"):
        volume.flush()
    disk.fail = None
    for work in (volume.flush, lambda: put(volume, 0, b"b" * 4096), lambda: volume.discard(0, 4096)):
        with pytest.raises(OSError, match="must be reopened"):
            work()
    assert "takes no more writes" in caplog.text
    volume.close()
    again = store.open("data")
    put(again, 0, b"c" * 4096)
    again.flush()


def test_a_full_disk_stops_hydration_and_no_read(
    disk: Disk, store: VolumeStore, caplog: pytest.LogCaptureFixture
) -> None:
    first = fresh(store)
    put(first, 0, b"x" * CHUNK)
    store.create("copy", source=SnapshotSource(store.snapshot(first).id))
    copy = store.open("copy")
    disk.room = 0
    assert get(copy, 512, 1024) == b"x" * 1024
    assert "keeps nothing more of its base: the disk is full" in caplog.text
    with pytest.raises(OSError, match="full"):
        copy.hydrate()
    disk.room = None
    assert copy.hydrate()
    assert get(copy, 0, CHUNK) == b"x" * CHUNK


def test_a_snapshot_for_which_there_is_no_room_fails_and_the_guests_write_does_not(
    disk: Disk, store: VolumeStore
) -> None:
    volume = fresh(store)
    put(volume, 0, b"x" * CHUNK)
    task = store.snapshots.begin(volume)
    head = volume._head

    def fail(kind: str, node: int) -> None:
        if kind == "write" and node != disk._open[head].node:
            raise OSError(errno.ENOSPC, "No space left on device")

    disk.fail = fail
    put(volume, 0, b"y" * 4096)
    disk.fail = None
    with pytest.raises(OSError, match="could not be saved"):
        task.run()
    assert store.snapshots.ids() == []
    assert get(volume, 0, 4096) == b"y" * 4096
    assert snapshot_is_true(store, volume)


# --- chunks that are gone ---


@pytest.mark.parametrize("how", ["missing", "altered", "short"])
def test_a_chunk_that_is_not_what_it_was_is_an_io_error_and_a_line_that_names_it(
    how: str, disk: Disk, store: VolumeStore, caplog: pytest.LogCaptureFixture
) -> None:
    first = fresh(store)
    put(first, CHUNK, b"x" * CHUNK)
    put(first, 0, b"y" * 4096)
    store.create("copy", source=SnapshotSource(store.snapshot(first).id))
    name = next(name for name in store.chunks.list() if name == names_of(b"x" * CHUNK))
    frame = store.chunks.get(name)
    store.chunks.delete(name)
    if how != "missing":
        store.chunks.put(name, frame[:-1] if how == "short" else store.chunks.get(names_of(b"y" * 4096)))
    copy = store.open("copy")
    for _ in range(2):
        with pytest.raises(OSError, match="cannot be read") as refused:
            get(copy, CHUNK, 512)
        assert refused.value.errno == errno.EIO
    assert get(copy, 0, 4096) == b"y" * 4096
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "chunk 1" in line
    assert store.chunks.where(name) in line
    assert "celaje vm volume check" in line
    put(copy, CHUNK + 4096, b"z" * 8192)  # whole clusters need nothing of the base
    assert get(copy, CHUNK + 4096, 8192) == b"z" * 8192


# --- maps that stay true ---


def test_a_clean_cluster_that_was_overwritten_before_a_kill_is_in_the_next_snapshot(
    disk: Disk, store: VolumeStore
) -> None:
    volume = fresh(store)
    put(volume, 0, b"a" * 4096)
    store.snapshot(volume)
    volume.close()
    volume = store.open("data")
    put(volume, 0, b"b" * 4096)
    killed(disk, volume)
    volume = store.open("data")
    assert get(volume, 0, 4096) == b"b" * 4096
    assert snapshot_is_true(store, volume)


def test_what_was_in_a_snapshot_unflushed_and_lost_by_a_kill_is_not_taken_from_it_by_the_next(
    disk: Disk, store: VolumeStore
) -> None:
    volume = fresh(store)
    store.snapshot(volume)
    put(volume, 0, b"a" * 4096)
    store.snapshot(volume)
    killed(disk, volume)
    assert snapshot_is_true(store, store.open("data"))


def test_hydration_leaves_alone_what_the_guest_has_written(store: VolumeStore) -> None:
    first = fresh(store)
    put(first, 0, b"x" * CHUNK)
    store.create("copy", source=SnapshotSource(store.snapshot(first).id))
    copy = store.open("copy")
    put(copy, 4096 + 512, b"g" * 512)
    copy.hydrate()
    assert get(copy, 0, 3 * 4096) == b"x" * 4608 + b"g" * 512 + b"x" * (3 * 4096 - 5120)


def test_after_the_last_snapshot_was_removed_the_next_one_is_whole_all_the_same(store: VolumeStore) -> None:
    volume = fresh(store)
    put(volume, 0, b"a" * 4096)
    taken = store.snapshot(volume)
    store.snapshots.remove(taken.id)
    swept = store.sweep()
    assert swept is not None
    assert swept.chunks == 1
    assert snapshot_is_true(store, volume)
    assert len(list(store.chunks.list())) == 1


# --- who may ---


def test_one_opener_or_readers(store: VolumeStore) -> None:
    volume = fresh(store)
    for read_only in (False, True):
        with pytest.raises(VolumeInUse, match="is in use"):
            store.open("data", read_only=read_only)
    volume.close()
    readers = [store.open("data", read_only=True) for _ in range(2)]
    with pytest.raises(VolumeInUse):
        store.open(readers[0].description.id)
    with pytest.raises(InputError, match="cannot grow"):
        readers[0].grow(2 * SIZE)


def test_what_nobody_wrote_is_gone_over_in_runs_and_what_was_written_chunk_by_chunk(tmp_path: Path) -> None:
    """A snapshot of an empty volume of terabytes must not take a step for each of its millions of chunks."""
    store = VolumeStore(tmp_path)
    store.create("large", size=1 << 40)
    with contextlib.closing(store.open("large")) as volume:
        for number in (0, 1, 5, 2_000_000):
            put(volume, number * CHUNK + 4096, b"x" * 4096)
        cut = volume.cut()
        runs = list(cut.runs())
        put(volume, 7 * CHUNK, b"y" * 4096)
        assert [first for first, _, changed in runs if changed] == [0, 1, 5, 2_000_000]
        assert all(count == 1 for _, count, changed in runs if changed)
        assert len(runs) < 200
        after = 0
        for first, count, _ in runs:
            assert first == after
            after += count
        assert after == cut.chunks == (1 << 40) // CHUNK
        cut.close()


def test_a_volume_that_becomes_a_very_large_one_is_what_it_was(tmp_path: Path) -> None:
    """From 256 GiB on, the map in memory is another kind of thing; a snapshot is being taken meanwhile."""
    store, small, large = VolumeStore(tmp_path), LARGE * CLUSTER - CHUNK, LARGE * CLUSTER + (1 << 30)
    store.create("data", size=small)
    with contextlib.closing(store.open("data")) as volume:
        put(volume, 3 * CHUNK, b"first" * 1000)
        task = store.snapshots.begin(volume)
        volume.grow(large)
        put(volume, 3 * CHUNK, b"later" * 1000)
        put(volume, large - 4096, b"end" * 1000)
        volume.flush()
        before = task.run()
        after = store.snapshot(volume)
    with contextlib.closing(store.open("data")) as volume:
        assert get(volume, 3 * CHUNK, 5000) == b"later" * 1000
        put(volume, 9 * CHUNK, b"more")
        last = store.snapshot(volume)
        volume.grow(large + (1 << 30))
        put(volume, large, b"beyond")
    for snapshot, first, end, more in (
        (before, b"first", None, b"\0\0\0\0"),
        (after, b"later", b"end", b"\0\0\0\0"),
        (last, b"later", b"end", b"more"),
    ):
        made = store.create(source=SnapshotSource(snapshot.id))
        with contextlib.closing(store.open(made.name)) as volume:
            assert volume.size == (small if end is None else large)
            assert get(volume, 3 * CHUNK, 5000) == first * 1000
            assert get(volume, 9 * CHUNK, 4) == more
            if end is not None:
                assert get(volume, large - 4096, 3000) == end * 1000


def test_one_snapshot_at_a_time(store: VolumeStore) -> None:
    volume = fresh(store)
    task = store.snapshots.begin(volume)
    with pytest.raises(InputError, match="being taken already"):
        store.snapshots.begin(volume)
    task.run()
    store.snapshot(volume)


def test_a_snapshot_that_is_begun_while_another_becomes_the_baseline_is_true(
    store: VolumeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = fresh(store)
    put(volume, 0, b"a" * CHUNK)
    store.snapshot(volume)
    put(volume, 0, b"b" * CHUNK)
    task = store.snapshots.begin(volume)
    manifest = store.snapshots.manifest

    def found_late(snapshot: str) -> Manifest:
        found = manifest(snapshot)
        if not task._cut._ended:
            task.run()
        return found

    monkeypatch.setattr(store.snapshots, "manifest", found_late)
    assert snapshot_is_true(store, volume)
    assert task._cut._ended


def test_of_two_that_begin_a_snapshot_at_once_one_is_refused(store: VolumeStore) -> None:
    volume = fresh(store)
    held, came, outcomes = volume._lock, threading.Semaphore(0), list[str]()

    class Queue:
        """The lock, which says who comes to it."""

        def __enter__(self) -> None:
            came.release()
            held.acquire()

        def __exit__(self, *_: object) -> None:
            held.release()

    def begin() -> None:
        try:
            store.snapshots.begin(volume)
            outcomes.append("begun")
        except InputError as error:
            outcomes.append("refused" if "being taken already" in str(error) else str(error))

    threads = [threading.Thread(target=begin) for _ in range(2)]
    with held:
        volume._lock = Queue()  # type: ignore[assignment]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert came.acquire(timeout=60)
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["begun", "refused"]


def test_a_volume_closed_under_a_snapshot_leaves_none(store: VolumeStore) -> None:
    volume = fresh(store)
    put(volume, 0, b"a" * 4096)
    task = store.snapshots.begin(volume)
    volume.close()
    with pytest.raises(OSError, match="was closed"):
        task.run()
    assert store.snapshots.ids() == []
    assert get(store.open("data"), 0, 4096) == b"a" * 4096


def test_hydration_ends_when_the_volume_is_closed(store: VolumeStore) -> None:
    first = fresh(store)
    put(first, 0, b"x" * SIZE)
    store.create("copy", source=SnapshotSource(store.snapshot(first).id))
    copy = store.open("copy")
    assert copy.hydrate(lambda done, of: copy.close()) is False
    again = store.open("copy")
    assert again.states(0, 130) == b"\1" * 128 + b"\0" * 2
    assert again.hydrate(stopped=lambda: True) is False


def test_sizes_and_names_that_cannot_be(store: VolumeStore) -> None:
    volume = fresh(store)
    for size, says in ((SIZE - 512, "cannot shrink"), (SIZE + 1, "whole number of 512-byte"), (65 << 40, "64 TiB")):
        with pytest.raises(InputError, match=says):
            volume.grow(size)
    with pytest.raises(InputError, match="there is a volume data already"):
        store.create("data", size=SIZE)
    with pytest.raises(UsageError, match="needs a size"):
        store.create("more")
    with pytest.raises(InputError, match=f"at least its {SIZE} bytes"):
        store.create("more", size=SIZE - 512, source=SnapshotSource(store.snapshot(volume).id))
    assert store.names() == ["data"]


# --- files that somebody altered ---


def alter(disk: Disk, store: VolumeStore, name: str, offset: int, data: bytes) -> None:
    fd = disk.open(store.layout.volumes / "data" / name, WRITE)
    disk.pwritev(fd, [data], offset)
    disk.close(fd)


@pytest.mark.parametrize(
    ("name", "offset", "data", "says"),
    [
        ("map", 0, b"nonsense", "does not begin as a map does"),
        ("map", 16, b"\x02", "is of version 2"),
        ("map", 24, b"vol-x", "fails its checksum"),
        ("map", 4096, b"\x04", "has state 4"),
        ("volume.json", 0, b'{"version": 2}' + bytes(4000), "does not describe a volume"),
        ("volume.json", 0, b"[", "does not describe a volume"),
        ("volume.json", 0, b'{"version": 1, "id": "\xff', "does not describe a volume"),
    ],
)
def test_a_file_that_somebody_altered_is_refused_by_name(
    name: str, offset: int, data: bytes, says: str, disk: Disk, store: VolumeStore
) -> None:
    fresh(store).close()
    alter(disk, store, name, offset, data)
    with pytest.raises(InputError, match=says) as refused:
        store.open("data")
    assert name in str(refused.value)


def test_a_volume_of_another_version_is_refused(disk: Disk, store: VolumeStore) -> None:
    fresh(store).close()
    path = store.layout.volumes / "data" / "volume.json"
    fd = disk.open(path, WRITE)
    text = bytes(disk._content(fd)).replace(b'"version": 1', b'"version": 2, "new": 1')
    disk.truncate(fd, 0)
    disk.pwritev(fd, [text], 0)
    with pytest.raises(InputError, match="is of version 2, and this celaje reads version 1; use the celaje that made"):
        store.open("data")


def test_who_makes_a_volume_or_a_snapshot_may_say_what_it_is_called(store: VolumeStore) -> None:
    described = store.create(size=1 << 20, identifier="vol-0123456789abcdef0")
    assert (described.id, described.name) == ("vol-0123456789abcdef0",) * 2
    with contextlib.closing(store.open(described.id)) as volume:
        assert store.snapshot(volume, identifier="snap-0123456789abcdef0").id == "snap-0123456789abcdef0"
        with pytest.raises(NotFound, match="no snapshot's id"):
            store.snapshot(volume, identifier="../x")
    with pytest.raises(UsageError, match="17 hexadecimal digits"):
        store.create(size=1 << 20, identifier="vol-../x")
