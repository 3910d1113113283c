"""Guests that write while others copy, fetch and sweep."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from celaje.disk.check import check
from celaje.disk.chunk_store import CHUNK
from celaje.disk.volume import Volume
from celaje.disk.volumes import SnapshotSource, VolumeStore
from tests.disk.promises import read_all
from tests.disk.writer import RECORD, record

PLACES = 4 * CHUNK // RECORD
SIZE = PLACES * RECORD


def place(number: int) -> int:
    return number * 77 % PLACES * RECORD  # every chunk in turn, every place in the end


@contextmanager
def writing(volume: Volume, flush: bool) -> Iterator[list[int]]:
    """A thread that writes record after record; how many it has written."""
    written, stop = [0], threading.Event()

    def work() -> None:
        while not stop.is_set():
            number = written[0] + 1
            volume.write([memoryview(record(number))], place(number))
            written[0] = number
            if flush and number % 50 == 0:
                volume.flush()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield written
    finally:
        stop.set()
        thread.join()


def is_an_instant(content: bytes | bytearray) -> bool:
    """Whether it is what the writer had written after some record, the newest one that is there."""
    numbers = [int.from_bytes(content[at : at + 8], "little") for at in range(0, SIZE, RECORD)]
    last = max(numbers)
    expected = bytearray(SIZE)
    for number in range(max(1, last - PLACES + 1), last + 1):
        expected[place(number) : place(number) + RECORD] = record(number)
    return content == expected


@pytest.mark.parametrize("threads", [0, 3])
def test_snapshots_of_a_volume_that_is_being_written_are_each_of_one_instant(tmp_path: Path, threads: int) -> None:
    store = VolumeStore(tmp_path, threads=threads)
    store.create("data", size=SIZE)
    with closing(store.open("data")) as volume:
        with writing(volume, flush=True) as written:
            while not written[0]:
                pass
            taken = [store.snapshot(volume) for _ in range(12)]
        end = read_all(volume)
        last = store.snapshot(volume)
    for snapshot in (*taken, last):
        copy = store.create(source=SnapshotSource(snapshot.id)).name
        with closing(store.open(copy)) as volume:
            content = read_all(volume)
        assert is_an_instant(content)
        store.remove(copy)
    assert content == end
    assert not check(store, deep=True).damage


def test_a_cut_for_a_machine_snapshot_is_of_one_instant_beside_a_volume_snapshot(tmp_path: Path) -> None:
    store = VolumeStore(tmp_path, threads=0)
    store.create("data", size=SIZE)
    with closing(store.open("data")) as volume, writing(volume, flush=False) as written:
        while written[0] < PLACES:
            pass
        task = store.snapshots.begin(volume)
        cut = volume.cut()
        copier = threading.Thread(target=task.run)
        copier.start()
        content = b"".join(bytes(cut.read(number)) if changed else bytes(CHUNK) for number, changed in cut.changed())
        cut.close()
        copier.join()
        assert is_an_instant(content)
        assert len(store.snapshots.ids()) == 1


def test_hydration_beside_a_guest_that_writes_loses_none_of_its_writes(tmp_path: Path) -> None:
    store = VolumeStore(tmp_path)
    store.create("old", size=SIZE)
    with closing(store.open("old")) as volume:
        for at in range(0, SIZE, RECORD):
            volume.write([memoryview(b"\xff" * RECORD)], at)
        taken = store.snapshot(volume)
    for _ in range(5):
        name = store.create(source=SnapshotSource(taken.id)).name
        with closing(store.open(name)) as volume:
            with writing(volume, flush=True) as written:
                while not written[0]:
                    pass
                assert volume.hydrate()
            content = read_all(volume)
        newest = {place(number): number for number in range(1, written[0] + 1)}
        for at in range(0, SIZE, RECORD):
            expected = record(newest[at]) if at in newest else b"\xff" * RECORD
            assert content[at : at + RECORD] == expected
        store.remove(name)


_SNAPSHOTS = """
import random, sys
from pathlib import Path
from celaje.disk.chunk_store import CHUNK
from celaje.disk.volumes import SnapshotSource, VolumeStore
store = VolumeStore(Path(sys.argv[1]), threads=1)
chance = random.Random(int(sys.argv[2]))
for _ in range(25):
    name = store.create(size=3 * CHUNK).name
    volume = store.open(name)
    for number in range(3):  # of six contents in all, so that everybody has everybody's chunks
        volume.write([memoryview(bytes([1 + chance.randrange(6)]) * CHUNK)], number * CHUNK)
    taken = store.snapshot(volume)
    volume.close()
    copy = store.create(source=SnapshotSource(taken.id)).name
    store.snapshots.remove(taken.id)
    store.sweep(wait=True)
    with_copy = store.open(copy)
    with_copy.hydrate()
    with_copy.close()
    if chance.random() < 0.8:
        store.remove(copy)
    store.remove(name)
    store.sweep()
"""


def test_a_chunk_that_a_snapshot_counts_on_is_never_swept(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SNAPSHOTS, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(seed)], stderr=subprocess.PIPE, text=True) for seed in range(4)]
    time.sleep(random.Random(1).uniform(0.5, 2))
    processes[-1].kill()  # wherever it is; perhaps it holds the lock
    errors = [process.communicate()[1] for process in processes]
    assert [error for error in errors if error] == []
    store = VolumeStore(tmp_path)
    assert not check(store, deep=True, repair=True).damage
    assert not check(store).garbage
    assert store.names()
