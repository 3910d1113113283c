"""A process that writes to a volume is killed at random moments; what it had been told is durable is there.

CELAJE_KILLS=n kills it that many times (20).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from celaje.disk.check import check
from celaje.disk.volumes import SnapshotSource, VolumeStore
from tests.disk import writer

KILLS = int(os.environ.get("CELAJE_KILLS", "20"))


def newest(number: int) -> dict[int, int]:
    """The newest record at each place when records up to `number` are written."""
    return {writer.place(each): each for each in range(max(0, number - writer.PLACES + 1), number + 1)}


def found(store: VolumeStore, name: str) -> dict[int, int]:
    """The records in a volume, whole ones."""
    records = {}
    with closing(store.open(name)) as volume:
        for at in range(0, writer.SIZE, writer.RECORD):
            block = bytearray(writer.RECORD)
            volume.readinto([memoryview(block)], at)
            number = int.from_bytes(block[:8], "little")
            assert block in (writer.record(number), bytes(writer.RECORD))
            records[at] = number
        assert store.snapshot(volume)
    return records


def run_and_kill(home: Path, start: int, seconds: float) -> list[str]:
    """What a writer said until it was killed."""
    with subprocess.Popen(
        [sys.executable, writer.__file__, str(home), "data", str(start)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        lines = (first + process.stdout.read()).split("\n")
    return lines[:-1]  # the last may be half a line


def test_every_record_that_was_acknowledged_is_there_after_each_kill(tmp_path: Path) -> None:
    chance = random.Random(1)
    store = VolumeStore(tmp_path)
    store.create("data", size=writer.SIZE)
    promised, next_number = -1, 0
    for _ in range(KILLS):
        lines = run_and_kill(tmp_path, next_number, chance.uniform(0, 0.3))
        said = [line.split() for line in lines if line.startswith("snap")]
        removed = {snapshot for snapshot, what in said if what == "removed"}
        snapshots = {snapshot: int(what) for snapshot, what in said if what != "removed"}
        promised = max(int(line) for line in lines if line.isdigit())
        assert not check(store, deep=True).damage
        records = found(store, "data")
        for at, number in newest(promised).items():
            assert records[at] >= number
        assert snapshots.keys() - removed <= set(store.snapshots.ids())
        for snapshot, number_then in snapshots.items():
            if snapshot not in removed:
                copy = store.create(source=SnapshotSource(snapshot)).name
                assert {at: n for at, n in found(store, copy).items() if n} == {
                    at: n for at, n in newest(number_then).items() if n
                }
                store.remove(copy)
        next_number = max(records.values()) + 1
    assert promised > 0
    report = check(store, deep=True, repair=True)
    assert not report.damage
    assert not check(store).garbage
