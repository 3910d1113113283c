"""The SCSI host device: disks that come and go, and the events that tell of it."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator

import pytest

from celaje.engine.memory import GuestMemory
from celaje.errors import InputError, NotFound
from celaje.machine.virtio.scsi import EVENT, REQUEST, TARGETS
from celaje.machine.virtio.scsi_events import MAX_EVENTS
from tests.machine.virtio.driver import PATIENCE, WRITE, until
from tests.machine.virtio.memory_disk import MemoryDisk, pattern
from tests.machine.virtio.scsi_adapter import (
    BAD_TARGET,
    CAPACITY,
    DATA,
    GOOD,
    OK,
    SECTORS,
    SYNCHRONIZE,
    TEST_UNIT_READY,
    Adapter,
    lun,
    read,
    write,
)


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk(SECTORS)


@pytest.fixture
def adapter(memory: GuestMemory, disk: MemoryDisk) -> Iterator[Adapter]:
    adapter = Adapter(memory, disk)
    adapter.start()
    yield adapter
    disk.gate.set()
    adapter.mmio.close()


def test_a_disk_that_is_attached_is_announced_and_usable(adapter: Adapter) -> None:
    more = MemoryDisk(8)
    assert adapter.scsi.attach(more) == 1
    assert adapter.events(1) == [(1, 1, 1)]
    sense = adapter.send(TEST_UNIT_READY, [], lun(1))[3]
    assert (sense[2], sense[12]) == (6, 0x29)
    sense = adapter.send(TEST_UNIT_READY, [], lun(1))[3]
    assert (sense[2], sense[12], sense[13]) == (6, 0x3F, 0x0E)
    assert adapter.read_sectors(7, target=1) == pattern(7)
    assert list(adapter.scsi.targets) == [0, 1]


def test_a_target_is_the_lowest_free_one_or_that_which_is_asked_for(adapter: Adapter) -> None:
    assert adapter.scsi.attach(MemoryDisk(8), 5) == 5
    assert adapter.scsi.attach(MemoryDisk(8)) == 1
    for taken in (5, -1, TARGETS):
        with pytest.raises(InputError, match=f"target {taken} is not free"):
            adapter.scsi.attach(MemoryDisk(8), taken)
    for _ in range(TARGETS - 3):
        adapter.scsi.attach(MemoryDisk(8))
    with pytest.raises(InputError, match="all are taken"):
        adapter.scsi.attach(MemoryDisk(8))


def test_a_disk_leaves_when_the_guest_has_flushed_it(adapter: Adapter, disk: MemoryDisk) -> None:
    leaving = threading.Thread(target=lambda: adapter.scsi.detach(0, PATIENCE))
    leaving.start()
    assert adapter.events(1) == [(1, 0, 2)]
    adapter.memory.write(DATA, b"l" * 512)
    assert adapter.do(write(3), [(DATA, 512, 0)]) == (OK, GOOD)
    assert adapter.do(SYNCHRONIZE) == (OK, GOOD)
    leaving.join(PATIENCE)
    assert not leaving.is_alive()
    assert disk.closed
    assert disk.flushes == 2
    assert disk.data[3 * 512 : 4 * 512] == b"l" * 512
    assert adapter.do(TEST_UNIT_READY)[0] == BAD_TARGET
    assert adapter.scsi.targets == {}


def test_a_disk_leaves_also_when_nobody_flushes_it(memory: GuestMemory, disk: MemoryDisk) -> None:
    adapter = Adapter(memory, disk, MemoryDisk(8, read_only=True))
    adapter.scsi.detach(0, PATIENCE)  # no driver that could
    assert disk.closed
    adapter.start()
    adapter.scsi.detach(1, PATIENCE)  # nothing to flush
    adapter.scsi.attach(MemoryDisk(8))
    adapter.scsi.detach(0, 0.0)
    assert adapter.events(3) == [(1, 1, 2), (1, 0, 1), (1, 0, 2)]
    adapter.mmio.close()


def test_a_reset_ends_the_wait_for_a_flush(adapter: Adapter, disk: MemoryDisk) -> None:
    leaving = threading.Thread(target=lambda: adapter.scsi.detach(0, PATIENCE))
    leaving.start()
    adapter.events(1)
    adapter.write(0x70, 0)
    leaving.join(PATIENCE)
    assert disk.closed


def test_a_disk_that_leaves_first_ends_what_it_has_in_hand(adapter: Adapter, disk: MemoryDisk) -> None:
    disk.gate.clear()
    adapter.memory.write(DATA, b"h" * 1024)
    adapter.submit(write(3), [(DATA, 512, 0)], slot=0)
    adapter.submit(write(4), [(DATA, 512, 0)], slot=1)
    adapter.notify(REQUEST)
    assert disk.entered.wait(PATIENCE)
    leaving = threading.Thread(target=lambda: adapter.scsi.detach(0, 0.0))
    leaving.start()
    until(lambda: adapter.scsi.targets == {})
    assert not disk.closed
    adapter.submit(TEST_UNIT_READY, [], slot=2)
    adapter.notify(REQUEST)
    disk.gate.set()
    adapter.complete(REQUEST, 3)
    assert [adapter.response(slot)[0] for slot in range(3)] == [OK, OK, BAD_TARGET]
    leaving.join(PATIENCE)
    assert disk.closed
    assert disk.data[3 * 512 : 5 * 512] == b"h" * 1024


@pytest.fixture
def leaving(adapter: Adapter, disk: MemoryDisk) -> threading.Thread:
    """Takes the disk away, and waits for the read that it has in hand."""
    disk.at_hand = False
    disk.gate.clear()
    adapter.submit(read(3), [(DATA, 512, WRITE)])
    adapter.notify(REQUEST)
    assert disk.entered.wait(PATIENCE)
    thread = threading.Thread(target=lambda: adapter.scsi.detach(0, 0.0))
    thread.start()
    until(lambda: adapter.scsi.targets == {})
    return thread


def test_a_pause_waits_also_for_what_a_disk_that_leaves_has_in_hand(
    adapter: Adapter, disk: MemoryDisk, leaving: threading.Thread
) -> None:
    pausing = threading.Thread(target=adapter.mmio.pause)
    pausing.start()
    pausing.join(0.2)
    assert pausing.is_alive()
    disk.gate.set()
    for thread in (pausing, leaving):
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert len(adapter.queues[REQUEST].take_used()) == 1
    assert adapter.memory.read(DATA, 512) == pattern(3)
    assert disk.closed


def test_a_reset_waits_also_for_what_a_disk_that_leaves_has_in_hand(
    adapter: Adapter, disk: MemoryDisk, leaving: threading.Thread
) -> None:
    hart = threading.Thread(target=lambda: adapter.write(0x70, 0))
    hart.start()
    hart.join(0.2)
    assert hart.is_alive()
    disk.gate.set()
    for thread in (hart, leaving):
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert adapter.queues[REQUEST].take_used() == []
    assert disk.closed


def test_another_disk_may_have_the_target_before_the_one_that_leaves_is_done(
    adapter: Adapter, disk: MemoryDisk, leaving: threading.Thread
) -> None:
    other = MemoryDisk(8)
    other.at_hand = False
    assert adapter.scsi.attach(other, 0) == 0
    disk.gate.set()
    leaving.join(PATIENCE)
    assert not leaving.is_alive()
    assert (disk.closed, other.closed) == (True, False)
    adapter.complete(REQUEST)
    for _ in range(2):
        adapter.do(TEST_UNIT_READY)  # takes its unit attentions
    assert adapter.read_sectors(7) == pattern(7)


def test_a_disk_that_cannot_be_made_durable_is_gone_all_the_same(adapter: Adapter, disk: MemoryDisk) -> None:
    disk.failure = OSError(errno.EIO, "on purpose")
    with pytest.raises(OSError, match="on purpose"):
        adapter.scsi.detach(0, 0.0)
    assert disk.closed
    assert adapter.scsi.targets == {}


def test_a_disk_that_is_not_there_cannot_leave(adapter: Adapter) -> None:
    for operation in (adapter.scsi.detach, adapter.scsi.capacity_changed):
        with pytest.raises(NotFound, match="no disk at target 3; it has \\[0\\]"):
            operation(3)


def test_a_disk_that_grows_is_announced(adapter: Adapter, disk: MemoryDisk) -> None:
    adapter.scsi.capacity_changed(0)
    disk.grow(100)
    adapter.scsi.capacity_changed(0)
    assert adapter.events(1) == [(3, 0, 0x092A)]
    sense = adapter.send(CAPACITY, [(DATA, 8, WRITE)])[3]
    assert (sense[2], sense[12], sense[13]) == (6, 0x2A, 9)
    adapter.do(CAPACITY, [(DATA, 8, WRITE)])
    assert adapter.memory.read(DATA, 4) == (SECTORS + 99).to_bytes(4, "big")


def test_a_driver_that_wants_no_events_gets_none(memory: GuestMemory, disk: MemoryDisk) -> None:
    adapter = Adapter(memory, disk)
    adapter.start(0)
    adapter.scsi.attach(MemoryDisk(8))
    disk.grow(8)
    adapter.scsi.capacity_changed(0)
    adapter.scsi.detach(1)
    assert adapter.queues[EVENT].take_used() == []
    adapter.mmio.close()


def test_events_wait_for_buffers(memory: GuestMemory, disk: MemoryDisk) -> None:
    adapter = Adapter(memory, disk)
    adapter.start(events=0)
    adapter.scsi.attach(MemoryDisk(8))
    adapter.scsi.attach(MemoryDisk(8))
    adapter.offer_event(0)
    adapter.notify(EVENT)
    assert adapter.events(1) == [(1, 1, 1)]
    adapter.offer_event(1)
    adapter.notify(EVENT)
    assert adapter.events(1) == [(1, 2, 1)]
    adapter.mmio.close()


def test_of_more_events_than_are_kept_the_driver_is_told_that_it_missed_some(
    memory: GuestMemory, disk: MemoryDisk
) -> None:
    adapter = Adapter(memory, disk)
    adapter.start(events=0)
    for _ in range(MAX_EVENTS // 2 + 1):
        adapter.scsi.attach(MemoryDisk(8), 1)
        adapter.scsi.detach(1, 0.0)
    for number in range(3):
        adapter.offer_event(number)
    adapter.notify(EVENT)
    assert adapter.events(2) == [(1 << 31, 0, 0), (1, 1, 2)]
    adapter.mmio.close()


def test_disks_come_and_go_under_load(memory: GuestMemory) -> None:
    adapter = Adapter(memory, MemoryDisk(SECTORS))
    adapter.start()
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            adapter.scsi.attach(MemoryDisk(64), 1)
            adapter.scsi.detach(1, 0.0)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for number in range(300):
            for _ in adapter.queues[EVENT].take_used():
                adapter.offer_event(0)
            adapter.notify(EVENT)
            assert adapter.read_sectors(number % SECTORS) == pattern(number % SECTORS)
            assert adapter.do(write(3), [(DATA, 512, 0)], target=1)[0] in (OK, BAD_TARGET)
    finally:
        stop.set()
        changing.join(PATIENCE)
    adapter.mmio.close()
