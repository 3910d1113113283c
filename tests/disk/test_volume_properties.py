"""Whatever is done to volumes, in whatever order, they hold what a plain byte array holds."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from celaje.disk.check import check
from celaje.disk.chunk_store import CHUNK
from celaje.disk.files import CREATE, section, write_fully
from celaje.disk.volume import Volume
from celaje.disk.volumes import ImageSource, SnapshotSource, VolumeStore
from tests.disk.crash import Disk
from tests.disk.promises import HOME, read_all

SECTOR = 512
IMAGE = Path("/image")
LARGEST = 4 * CHUNK

places = st.one_of(
    st.integers(0, LARGEST // SECTOR - 1),
    st.integers(0, LARGEST // 4096 - 1).map(lambda cluster: cluster * 8),
    st.sampled_from([0, CHUNK // SECTOR - 1, CHUNK // SECTOR, CHUNK // SECTOR + 1]),
)
lengths = st.sampled_from([1, 3, 7, 8, 9, 16, 64, 256, CHUNK // SECTOR, CHUNK // SECTOR + 11])


class Volumes(RuleBasedStateMachine):
    """Volumes of all kinds, each with its shadow."""

    volumes = Bundle("volumes")
    snapshots = Bundle("snapshots")

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk()
        self.disk.mkdir(HOME.parent)
        self.disk.mkdir(HOME)
        self.image = random.Random(5).randbytes(CHUNK + 3 * SECTOR)
        fd = self.disk.open(IMAGE, CREATE)
        write_fully(self.disk, fd, [self.image], 0)
        self.disk.close(fd)
        self.store = VolumeStore(HOME, files=self.disk, threads=0)
        self.open: dict[str, Volume] = {}
        self.shadows: dict[str, bytearray] = {}
        self.taken: dict[str, bytes] = {}
        self.seed = 0

    def data(self, length: int) -> bytes:
        self.seed += 1
        return random.Random(self.seed).randbytes(length)

    def added(self, name: str, content: bytes) -> str:
        self.open[name] = self.store.open(name)
        self.shadows[name] = bytearray(content)
        return name

    @initialize(target=volumes)
    def first(self) -> str:
        return self.empty(5 * SECTOR)

    @rule(target=volumes, size=st.integers(1, LARGEST // SECTOR).map(lambda sectors: sectors * SECTOR))
    def empty(self, size: int) -> str:
        return self.added(self.store.create(size=size).name, bytes(size))

    @rule(target=volumes, more=st.sampled_from([0, SECTOR, CHUNK]))
    def over_an_image(self, more: int) -> str:
        source = ImageSource(IMAGE, hashlib.sha256(self.image).hexdigest())
        name = self.store.create(source=source, size=len(self.image) + more).name
        return self.added(name, self.image + bytes(more))

    @rule(target=volumes, snapshot=snapshots, more=st.sampled_from([0, SECTOR, CHUNK]))
    def over_a_snapshot(self, snapshot: str, more: int) -> str:
        content = self.taken[snapshot]
        name = self.store.create(source=SnapshotSource(snapshot), size=len(content) + more).name
        return self.added(name, content + bytes(more))

    def _inside(self, volume: str, place: int, length: int) -> tuple[int, int]:
        size = len(self.shadows[volume])
        offset = place * SECTOR % size
        return offset, min(length * SECTOR, size - offset)

    @rule(volume=volumes, place=places, length=lengths, pieces=st.integers(1, 5))
    def write(self, volume: str, place: int, length: int, pieces: int) -> None:
        if volume in self.open:
            offset, count = self._inside(volume, place, length)
            data = self.data(count)
            step = -(-count // pieces)
            self.open[volume].write([memoryview(data)[at : at + step] for at in range(0, count, step)], offset)
            self.shadows[volume][offset : offset + count] = data

    @rule(volume=volumes, place=places, length=lengths, unmap=st.booleans())
    def write_zeroes(self, volume: str, place: int, length: int, unmap: bool) -> None:
        if volume in self.open:
            offset, count = self._inside(volume, place, length)
            self.open[volume].write_zeroes(offset, count, unmap)
            self.shadows[volume][offset : offset + count] = bytes(count)

    @rule(volume=volumes, place=places, length=lengths)
    def discard(self, volume: str, place: int, length: int) -> None:
        if volume in self.open:
            offset, count = self._inside(volume, place, length)
            self.open[volume].discard(offset, count)
            found = bytearray(count)
            self.open[volume].readinto([memoryview(found)], offset)
            before = self.shadows[volume][offset : offset + count]
            for at in range(0, count, SECTOR):  # as before, or zeros
                assert found[at : at + SECTOR] in (before[at : at + SECTOR], bytes(SECTOR))
            self.shadows[volume][offset : offset + count] = found

    @rule(volume=volumes, place=places, length=lengths, pieces=st.integers(1, 5), at_once=st.booleans())
    def read(self, volume: str, place: int, length: int, pieces: int, at_once: bool) -> None:
        if volume in self.open:
            offset, count = self._inside(volume, place, length)
            found = bytearray(count)
            step = -(-count // pieces)
            buffers = [section([memoryview(found)], at, min(step, count - at))[0] for at in range(0, count, step)]
            if at_once and not self.open[volume].readinto_at_once(buffers, offset):
                return
            if not at_once:
                self.open[volume].readinto(buffers, offset)
            assert found == self.shadows[volume][offset : offset + count]

    @rule(volume=volumes, more=st.sampled_from([0, SECTOR, 4096, CHUNK]))
    def grow(self, volume: str, more: int) -> None:
        if volume in self.open and len(self.shadows[volume]) + more <= LARGEST:
            self.shadows[volume].extend(bytes(more))
            self.open[volume].grow(len(self.shadows[volume]))

    @rule(volume=volumes)
    def flush(self, volume: str) -> None:
        if volume in self.open:
            self.open[volume].flush()

    @rule(volume=volumes)
    def reopen(self, volume: str) -> None:
        if volume in self.open:
            self.open[volume].close()
            self.open[volume] = self.store.open(volume)

    @rule(volume=volumes)
    def reopen_after_a_kill(self, volume: str) -> None:
        """What was written since the last flush may be there or not; from then on it is as it is, for snapshots too."""
        if volume in self.open:
            self.disk.close(self.open[volume]._head)
            self.open[volume] = self.store.open(volume)
            self.shadows[volume] = read_all(self.open[volume])

    @rule(volume=volumes)
    def hydrate(self, volume: str) -> None:
        if volume in self.open:
            assert self.open[volume].hydrate()

    @rule(target=snapshots, volume=volumes, before=st.integers(0, 3), during=st.integers(0, 3), seed=st.integers(0, 99))
    def snapshot(self, volume: str, before: int, during: int, seed: int) -> str:
        """With writes between the instant and the copying, and between the copies of one chunk and the next."""
        volume = volume if volume in self.open else next(iter(self.open), "")
        volume = volume or self.empty(LARGEST)
        chance = random.Random(seed)
        content = bytes(self.shadows[volume])
        task = self.store.snapshots.begin(self.open[volume])
        for _ in range(before):
            self.write(volume, chance.randrange(LARGEST // SECTOR), chance.choice([1, 8, 1100]), 1)
            if chance.random() < 0.2:
                self.grow(volume, chance.choice([SECTOR, 4096, CHUNK]))

        def copied(done: int, of: int) -> None:
            if chance.randrange(4) < during:
                self.write(volume, chance.randrange(LARGEST // SECTOR), chance.choice([1, 8, 1100]), 2)

        taken = task.run(copied)
        self.taken[taken.id] = content
        return taken.id

    @rule(volume=volumes, before=st.integers(0, 3))
    def cancelled_snapshot(self, volume: str, before: int) -> None:
        if volume in self.open:
            task = self.store.snapshots.begin(self.open[volume])
            for place in range(before):
                self.write(volume, place * 400, 8, 1)
            task.cancel()

    @rule(volume=volumes, writes=st.integers(0, 3))
    def cut(self, volume: str, writes: int) -> None:
        """What a cut says has changed, over what the base has, is what the volume held."""
        if volume in self.open:
            content = bytes(self.shadows[volume])
            base = self.open[volume].base
            cut = self.open[volume].cut()
            for place in range(writes):
                self.write(volume, place * 900, 9, 1)
            for number, changed in cut.changed():
                block = bytearray(CHUNK)
                if changed:
                    block = cut.read(number)
                else:
                    base.readinto([memoryview(block)], number * CHUNK)
                here = content[number * CHUNK : (number + 1) * CHUNK]
                assert block[: len(here)] == here
            cut.close()

    @rule(snapshot=consumes(snapshots))
    def remove_snapshot(self, snapshot: str) -> None:
        self.store.snapshots.remove(snapshot)
        assert self.store.sweep() is not None

    @rule(volume=consumes(volumes))
    def remove(self, volume: str) -> None:
        if len(self.open) > 1 and volume in self.open:
            self.open.pop(volume).close()
            del self.shadows[volume]
            self.store.remove(volume)

    @invariant()
    def nothing_is_recorded_for_ever(self) -> None:
        self.disk.events.clear()

    def teardown(self) -> None:
        for name, volume in self.open.items():
            assert read_all(volume) == self.shadows[name]
            volume.close()
        report = check(self.store, deep=True)
        assert not report.damage
        assert not report.garbage or "chunks" in report.garbage[0]
        for name, shadow in self.shadows.items():
            volume = self.store.open(name)
            assert read_all(volume) == shadow
            volume.close()


Volumes.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestVolumes = Volumes.TestCase
