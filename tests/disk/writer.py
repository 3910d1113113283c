"""A process that writes numbered records to a volume, flushes, and says which are durable, until it is killed.

    python writer.py HOME VOLUME START

Record n is 4 KiB of its number, at a place that follows from it. Each line of the output is a number: every record up
to it is promised. Between them it takes snapshots ("snap-… NUMBER") and removes some ("snap-… removed").
"""

from __future__ import annotations

import random
import struct
import sys
from pathlib import Path

from celaje.disk.volumes import VolumeStore

RECORD = 4096
PLACES = 300
SIZE = PLACES * RECORD


def place(number: int) -> int:
    """Where a record is written, in bytes; each place is written again and again."""
    return number * 7 % PLACES * RECORD


def record(number: int) -> bytes:
    """Its content."""
    return struct.pack("<Q", number) * (RECORD // 8)


def say(line: str) -> None:
    """A promise."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    home, name, start = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    store = VolumeStore(home)
    volume = store.open(name)
    chance = random.Random(start)
    number = start
    while True:
        for _ in range(chance.choice((1, 1, 3, 10))):
            volume.write([memoryview(record(number))], place(number))
            number += 1
        volume.flush()
        say(f"{number - 1}")
        if chance.random() < 0.02:
            taken = store.snapshot(volume)
            say(f"{taken.id} {number - 1}")
            if chance.random() < 0.5:
                oldest = store.snapshots.list()[0].id
                say(f"{oldest} removed")
                store.snapshots.remove(oldest)
                store.sweep()


if __name__ == "__main__":
    main()
