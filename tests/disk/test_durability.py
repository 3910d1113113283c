"""What was acknowledged is there after a loss of power at any moment, whatever of the rest is.

One course of events, in which every operation of the room occurs, is recorded (`crash.py`). Of each prefix, disks are
made as a loss of power may leave them, and held against what had been promised by then (`promises.py`). Then each sync
is taken away in turn: one without which nothing is ever missed would be one too many, or the proof too weak.

CELAJE_CRASHES=n makes n random mixtures of each prefix (2), besides the plain ones.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from celaje.disk.chunk_store import CHUNK, FolderChunkStore
from celaje.disk.files import CREATE, write_fully
from celaje.disk.volumes import ImageSource, SnapshotSource
from celaje.errors import CelajeError
from tests.disk.crash import Disk, Event, crashes
from tests.disk.promises import HOME, Promises, Recorded

SIZE = 2 * CHUNK + 64 * 4096
MIXTURES = int(os.environ.get("CELAJE_CRASHES", "2"))
IMAGE = Path("/image")


def content(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)


def course(disk: Disk) -> None:
    """Every operation, with crashes possible between any two events of it."""
    disk.mkdir(HOME.parent)
    disk.mkdir(HOME)
    raw = content(100, CHUNK + 8192)
    fd = disk.open(IMAGE, CREATE)
    write_fully(disk, fd, [raw], 0)
    disk.close(fd)
    for number in [1, *(disk.nodes[1].entries or {}).values()]:
        disk.events.append(Event("sync-directory" if disk.nodes[number].content is None else "sync", number))

    on = Recorded(disk)
    taken: list[str] = []
    of_image: list[str] = []
    on.create("image", SIZE, ImageSource(IMAGE, hashlib.sha256(raw).hexdigest()), raw)
    on.write("image", CHUNK + 4096 + 512, content(14, 512))
    on.flush("image")
    on.write("image", 2 * CHUNK + 8192, content(18, 4096))  # all else of the chunk is absent; the snapshot has it first
    with on.snapshot("image", of_image):
        on.write("image", 0, content(15, 4096))
    on.reopen("image")
    on.write("image", CHUNK + 4096, content(16, 4096))  # clean, in the file too
    on.write("image", 65536, content(19, 4096))  # absent, and not flushed before it is closed
    on.close("image")
    on.create("empty", SIZE)
    on.write("empty", 0, content(1, 8192))
    on.flush("empty")
    on.write("empty", 4096, content(2, 4096))  # the same cluster again
    on.write("empty", CHUNK + 512, content(3, 1024))  # a part of a cluster
    on.flush("empty")
    on.zero("empty", 0, 4096)
    on.write("empty", 2 * CHUNK, content(4, 8192))
    on.flush("empty")
    on.write("empty", 8192, content(5, 4096))
    with on.snapshot("empty", taken):
        on.write("empty", 8192, content(6, 4096))
        on.flush("empty")
    on.write("empty", 4096, content(7, 4096))  # clean, and overwritten in place
    on.flush("empty")
    with on.snapshot("empty", taken):
        on.write("empty", 2 * CHUNK + 4096, content(8, 4096))
    on.write("empty", CHUNK + 16384, content(17, 4096))
    on.reopen("empty")
    on.write("empty", 0, content(9, 4096))
    on.write("empty", 2 * CHUNK, content(10, 4096))
    on.flush("empty")

    on.create("copy", SIZE, SnapshotSource(taken[1]), _of_snapshot(disk, taken[1]))
    on.read("copy", 4096, 4096)
    on.write("copy", 2 * CHUNK + 1024, content(11, 2048))
    on.flush("copy")
    on.write("copy", 4096, content(12, 4096))
    on.reopen("copy")
    on.grow("copy", SIZE + CHUNK)
    on.write("copy", SIZE + 4096, content(13, 4096))
    on.flush("copy")
    on.killed_snapshot("copy")
    with on.snapshot("copy", taken):
        pass
    on.killed_while_removing_snapshot(taken[0])
    on.store.sweep()
    on.remove_snapshot(taken[1])
    on.store.sweep()
    on.read("copy", 0, SIZE)
    on.close("empty")
    on.remove("empty")
    on.store.sweep()

    on.close("copy")
    on.remove("copy")
    on.remove_snapshot(taken[2])
    on.store.sweep()


def _of_snapshot(disk: Disk, snapshot: str) -> bytes:
    return next(event.mark[2] for event in disk.events if event.mark and event.mark[:2] == ("cut", snapshot))  # type: ignore[index]


def broken(disk: Disk, mixtures: int, each: bool = False) -> Iterator[str]:
    """Each promise that is not kept after some crash."""
    promises = Promises()
    for length, chooser, marks, found in crashes(disk, mixtures, each):
        promises.take(marks)
        try:
            for what in promises.broken(found):
                yield f"after {length} events, {chooser.name}: {what}"
        except (CelajeError, OSError) as error:
            yield f"after {length} events, {chooser.name}: {error}"


def test_every_prefix_of_a_course_of_events_keeps_what_was_promised() -> None:
    disk = Disk()
    course(disk)
    assert next(broken(disk, MIXTURES), None) is None


def _sites() -> list[str]:
    disk = Disk()
    course(disk)
    return sorted(disk.sites)


@pytest.mark.parametrize("site", _sites())
def test_without_any_one_sync_something_promised_is_missed(site: str) -> None:
    disk = Disk(forgets=frozenset({site}))
    course(disk)
    assert next(broken(disk, mixtures=0, each=True), None) is not None, f"nothing needs the sync of {site}"


def test_without_counting_on_a_chunk_that_was_found_it_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderChunkStore, "has", lambda self, name: self._files.identity(self._path(name)) is not None)
    disk = Disk()
    course(disk)
    disk.first_forgotten = next(n for n, event in enumerate(disk.events) if event.mark == ("killed snapshot", "copy"))
    assert next(broken(disk, mixtures=0), None) is not None
