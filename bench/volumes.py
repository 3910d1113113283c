"""A volume beside a raw file, without any guest: what the map, the lock and Python cost.

    python -m bench.volumes [--size 512M]

Operations of both alternate in short batches, and the best batch of each counts: what else the host does falls on some
batches only. The files are in the page cache. Snapshots are timed once, chunks of random bytes.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from celaje.cli import arguments
from celaje.disk.snapshots import Snapshot
from celaje.disk.volume import Volume
from celaje.disk.volumes import SnapshotSource, VolumeStore
from celaje.machine.virtio.block_backend import RawFile

MEBIBYTE = 1 << 20
Operation = Callable[[list[memoryview], int], object]


def compare(name: str, volume: Operation, raw: Operation, buffers: list[memoryview], offsets: Sequence[int]) -> None:
    """Print what one operation takes on each."""
    best = [float("inf"), float("inf")]
    batch = max(4, len(offsets) // 300)
    for start in range(0, len(offsets) - batch + 1, batch):
        for which, operation in enumerate((volume, raw)):
            began = time.perf_counter()
            for offset in offsets[start : start + batch]:
                operation(buffers, offset)
            best[which] = min(best[which], (time.perf_counter() - began) / batch)
    print(f"{name:34} volume {best[0] * 1e6:8.2f} us, raw file {best[1] * 1e6:8.2f} us: {best[1] / best[0]:.2f}")


def operations(volume: Volume, raw: RawFile, size: int) -> None:
    """Everything that a guest waits for."""
    chance = random.Random(1)
    anywhere = [chance.randrange(size // 4096) * 4096 for _ in range(60_000)]
    onward = list(range(0, size, MEBIBYTE))
    small, large = [memoryview(bytearray(4096))], [memoryview(bytearray(os.urandom(MEBIBYTE)))]
    compare("4 KiB random read", volume.readinto, raw.readinto, small, anywhere)
    compare("4 KiB random read, not waiting", volume.readinto_at_once, raw.readinto_at_once, small, anywhere)
    compare("4 KiB random write", volume.write, raw.write, small, anywhere)
    compare("1 MiB sequential read", volume.readinto, raw.readinto, large, onward)
    compare("1 MiB sequential write", volume.write, raw.write, large, onward)


def timed(name: str, work: Callable[[], object], size: int) -> None:
    """Print how fast `size` bytes are done."""
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    print(f"{name:34} {seconds * 1e3:8.1f} ms, {size / MEBIBYTE / seconds:.0f} MiB/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=arguments.size, default=512 * MEBIBYTE)
    size: int = parser.parse_args().size
    with tempfile.TemporaryDirectory() as scratch:
        store = VolumeStore(Path(scratch) / "home")
        store.create("data", size=size)
        path = Path(scratch) / "raw"
        path.touch()
        os.truncate(path, size)
        with closing(store.open("data")) as volume, closing(RawFile(path)) as raw:
            for offset in range(0, size, MEBIBYTE):
                block = [memoryview(os.urandom(MEBIBYTE))]
                volume.write(block, offset)
                raw.write(block, offset)
            volume.flush()
            timed("first snapshot", lambda: store.snapshot(volume), size)
            for offset in range(0, size, 16 * MEBIBYTE):
                volume.write([memoryview(os.urandom(4096))], offset)
            task = store.snapshots.begin(volume)
            taken: list[Snapshot] = []
            timed("snapshot of one chunk in 32", lambda: taken.append(task.run()), size)
            for offset in range(0, size, MEBIBYTE):
                volume.write([memoryview(os.urandom(MEBIBYTE))], offset)
            volume.flush()
            print("all of it written, everything dirty:")
            operations(volume, raw, size)
        store.create("copy", source=SnapshotSource(taken[0].id))
        with closing(store.open("copy")) as volume, closing(RawFile(path)) as raw:
            timed("hydration", volume.hydrate, size)
            print("over a snapshot, hydrated, everything clean:")
            operations(volume, raw, size)


if __name__ == "__main__":
    main()
