from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celaje.engine.memory import GuestMemory
from celaje.machine import offers
from celaje.machine.offers import BUSY_REQUESTS, Offers
from celaje.machine.virtio.block import VirtioBlock
from celaje.machine.virtio.block_backend import BlockBackend, Buffers, RawFile
from celaje.machine.virtio.device import FEATURE_RING_INDIRECT, FEATURE_VERSION_1
from celaje.machine.virtio.overlay import Overlay
from tests.machine.virtio.driver import BASE, MEMORY_SIZE, PATIENCE, WRITE, Buffer, Driver, until

SEG_MAX, RO, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, DISCARD, WRITE_ZEROES = (
    1 << n for n in (2, 5, 6, 9, 10, 11, 13, 14)
)
IN, OUT, DO_FLUSH, GET_ID, DO_DISCARD, DO_WRITE_ZEROES = 0, 1, 4, 8, 11, 13
OK, IOERR, UNSUPP = 0, 1, 2
NEEDS_RESET = 64
SECTORS = 256
HEADER, STATUS, TABLE, DATA = BASE + 0x8000, BASE + 0x8020, BASE + 0x8100, BASE + 0x10000


def pattern(sector: int, count: int = 1) -> bytes:
    """What the test disk holds at `sector`."""
    return b"".join(struct.pack("<Q", number) * 64 for number in range(sector, sector + count))


class Slow:
    """A backend that never has anything at hand, fails when told to, and counts its flushes; otherwise `inner`."""

    def __init__(self, inner: BlockBackend) -> None:
        self._inner = inner
        self.size, self.read_only, self.serial = inner.size, inner.read_only, inner.serial
        self.writes_wait = False
        self.flushes = 0
        self.failure: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def readinto(self, buffers: Buffers, offset: int) -> None:
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        if self.failure:
            raise self.failure
        self._inner.readinto(buffers, offset)

    def readinto_at_once(self, buffers: Buffers, offset: int) -> bool:
        return False

    def write(self, buffers: Buffers, offset: int) -> None:
        if self.failure:
            raise self.failure
        self._inner.write(buffers, offset)

    def writes_at_once(self, offset: int, length: int) -> bool:
        return not self.writes_wait

    def flush(self) -> None:
        self.flushes += 1

    def discard(self, offset: int, length: int) -> None:
        self._inner.discard(offset, length)

    def write_zeroes(self, offset: int, length: int, may_unmap: bool) -> None:
        self._inner.write_zeroes(offset, length, may_unmap)

    def close(self) -> None:
        self._inner.close()


class Disk(Driver):
    """A driver of a block device."""

    def __init__(self, backend: BlockBackend, memory: GuestMemory) -> None:
        super().__init__(VirtioBlock(backend), memory)

    def buffers(self, kind: int, sector: int = 0, data: list[Buffer] | None = None) -> list[Buffer]:
        self.memory.write(HEADER, struct.pack("<IIQ", kind, 0, sector))
        self.memory.write(STATUS, b"\xff")
        return [(HEADER, 16, 0), *(data or []), (STATUS, 1, WRITE)]

    def do(self, kind: int, sector: int = 0, data: list[Buffer] | None = None) -> int:
        """One request, start to end; its status."""
        self.request(self.buffers(kind, sector, data))
        return self.memory.read(STATUS, 1)[0]

    def read_sectors(self, sector: int, count: int = 1) -> bytes:
        assert self.do(IN, sector, [(DATA, 512 * count, WRITE)]) == OK
        return self.memory.read(DATA, 512 * count)

    def write_sectors(self, sector: int, data: bytes) -> int:
        self.memory.write(DATA, data)
        return self.do(OUT, sector, [(DATA, len(data), 0)])

    def ranges(self, kind: int, *ranges: tuple[int, int, int]) -> int:
        """Discard or write-zeroes of (sector, sectors, flags)."""
        data = b"".join(struct.pack("<QII", *entry) for entry in ranges)
        self.memory.write(DATA, data)
        return self.do(kind, 0, [(DATA, len(data), 0)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(pattern(0, SECTORS))
    return path


BACKENDS: dict[str, Callable[[Path], BlockBackend]] = {
    "raw": RawFile,
    "overlay": lambda path: Overlay(RawFile(path, read_only=True)),
    "slow": lambda path: Slow(RawFile(path)),
}


@pytest.fixture(params=BACKENDS)
def disk(request: pytest.FixtureRequest, path: Path, memory: GuestMemory) -> Iterator[Disk]:
    disk = Disk(BACKENDS[request.param](path), memory)
    disk.initialize(FLUSH | DISCARD | WRITE_ZEROES | CONFIG_WCE | SEG_MAX | BLK_SIZE)
    yield disk
    disk.mmio.close()


@pytest.fixture
def slow(path: Path, memory: GuestMemory) -> Iterator[tuple[Disk, Slow]]:
    backend = Slow(RawFile(path))
    disk = Disk(backend, memory)
    yield disk, backend
    backend.gate.set()
    disk.mmio.close()


class Hart:
    """A thread that runs a hart, as far as a disk sees it: it is offered what waits."""

    def __init__(self, disk: Driver) -> None:
        self.offers = Offers()
        self.offers.join()
        disk.mmio.offer = self.offers.make


class Written:
    """Notes which threads write."""

    def __init__(self, backend: BlockBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[threading.Thread] = []
        write = backend.write

        def noted(buffers: Buffers, offset: int) -> None:
            self.threads.append(threading.current_thread())
            write(buffers, offset)

        monkeypatch.setattr(backend, "write", noted)


@pytest.fixture
def written(slow: tuple[Disk, Slow], monkeypatch: pytest.MonkeyPatch) -> Written:
    """After a first write, with which writes are expected."""
    disk, backend = slow
    disk.initialize(FLUSH)
    assert disk.write_sectors(0, pattern(9)) == OK
    until(lambda: not disk.device.lock.locked())  # its thread is done, and sleeps until it is woken
    monkeypatch.setattr(offers, "HART_SECONDS", PATIENCE)  # however busy the host is
    return Written(backend, monkeypatch)


def begin_write(disk: Disk, sector: int = 3) -> None:
    """Offer a write and notify, and wait for nothing."""
    disk.memory.write(DATA, pattern(7))
    queue = disk.queues[0]
    queue.offer(queue.chain(disk.buffers(OUT, sector, [(DATA, 512, 0)])))
    disk.notify()


def test_a_write_is_done_by_the_hart_that_asked_if_it_is_idle(slow: tuple[Disk, Slow], written: Written) -> None:
    disk, backend = slow
    hart = Hart(disk)
    begin_write(disk)
    assert hart.offers
    assert not written.threads
    hart.offers.take(idle=True)
    disk.complete()
    assert written.threads == [threading.current_thread()]
    assert disk.memory.read(STATUS, 1)[0] == OK
    stored = bytearray(512)
    backend.readinto([memoryview(stored)], 3 * 512)
    assert stored == pattern(7)


def test_a_write_of_a_hart_that_is_busy_is_the_threads_and_so_are_the_next(
    slow: tuple[Disk, Slow], written: Written
) -> None:
    disk, _ = slow
    hart = Hart(disk)
    begin_write(disk)
    hart.offers.take(idle=False)
    disk.complete()
    for _ in range(BUSY_REQUESTS):
        begin_write(disk)
        assert not hart.offers
        disk.complete()
    assert threading.current_thread() not in written.threads
    begin_write(disk)
    assert hart.offers
    hart.offers.take(idle=True)
    disk.complete()


def test_a_second_request_while_one_is_offered_wakes_the_thread(slow: tuple[Disk, Slow], written: Written) -> None:
    disk, _ = slow
    hart = Hart(disk)
    begin_write(disk)
    disk.notify()
    disk.complete()
    assert threading.current_thread() not in written.threads
    hart.offers.take(idle=True)  # too late, and nothing is left to do
    assert len(written.threads) == 1


def test_what_may_take_its_time_is_no_idle_harts(
    slow: tuple[Disk, Slow], written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, backend = slow
    hart = Hart(disk)
    flushed: list[threading.Thread] = []
    monkeypatch.setattr(backend, "flush", lambda: flushed.append(threading.current_thread()))
    queue = disk.queues[0]
    queue.offer(queue.chain(disk.buffers(DO_FLUSH)))
    disk.notify()
    hart.offers.take(idle=True)
    disk.complete()
    assert len(flushed) == 1
    assert threading.current_thread() not in flushed


def test_a_write_that_waits_for_more_than_the_host_is_no_idle_harts(slow: tuple[Disk, Slow], written: Written) -> None:
    disk, backend = slow
    backend.writes_wait = True
    hart = Hart(disk)
    begin_write(disk)
    hart.offers.take(idle=True)
    disk.complete()
    assert len(written.threads) == 1
    assert threading.current_thread() not in written.threads


def test_a_host_that_writes_slowly_is_waited_for_by_the_thread(
    slow: tuple[Disk, Slow], written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, _ = slow
    hart = Hart(disk)
    monkeypatch.setattr(offers, "HART_SECONDS", -1.0)  # whatever it takes is too long
    begin_write(disk)
    hart.offers.take(idle=True)
    disk.complete()
    begin_write(disk)
    assert not hart.offers
    disk.complete()


def test_what_is_offered_when_a_pause_begins_is_done_after_it(slow: tuple[Disk, Slow], written: Written) -> None:
    disk, _ = slow
    hart = Hart(disk)
    begin_write(disk)
    disk.mmio.pause()
    hart.offers.take(idle=True)
    assert not written.threads
    disk.mmio.resume()
    hart.offers.take(idle=True)
    disk.complete()
    assert len(written.threads) == 1


def test_a_reset_forgets_what_is_offered(slow: tuple[Disk, Slow], written: Written) -> None:
    disk, _ = slow
    hart = Hart(disk)
    begin_write(disk)
    disk.initialize(FLUSH)
    hart.offers.take(idle=True)
    assert not written.threads
    begin_write(disk)
    hart.offers.take(idle=True)
    disk.complete()
    assert len(written.threads) == 1


def test_the_configuration_describes_the_disk(disk: Disk) -> None:
    def field(offset: int, size: int) -> int:
        return disk.mmio.read(0x100 + offset, size)

    assert field(0, 8) == SECTORS
    assert field(8, 4) == 0
    assert field(12, 4) == 510
    assert field(20, 4) == 512
    assert (field(24, 1), field(25, 1), field(26, 2), field(28, 4)) == (3, 0, 8, 0)
    assert field(32, 1) == 1
    assert field(34, 2) == 1
    assert (field(36, 4), field(40, 4), field(44, 4)) == (1 << 22, 16, 8)
    assert (field(48, 4), field(52, 4), field(56, 1)) == (1 << 22, 16, 1)
    assert field(60, 8) == 0


def test_a_disk_that_has_grown_says_so_and_has_the_new_sectors(path: Path, memory: GuestMemory) -> None:
    backend = RawFile(path)
    disk = Disk(backend, memory)
    disk.initialize(FLUSH)
    assert isinstance(disk.device, VirtioBlock)
    disk.device.capacity_changed()
    assert not disk.line.level
    backend.grow(512 * (SECTORS + 10))
    disk.device.capacity_changed()
    assert disk.acknowledge() == 2
    assert disk.mmio.read(0x100, 8) == SECTORS + 10
    assert disk.read_sectors(SECTORS + 9) == bytes(512)
    disk.mmio.close()


def test_a_read_brings_the_sectors_asked_for(disk: Disk) -> None:
    assert disk.read_sectors(3, 5) == pattern(3, 5)
    assert disk.read_sectors(SECTORS - 1) == pattern(SECTORS - 1)


def test_a_read_is_scattered_over_its_buffers(disk: Disk) -> None:
    pieces = [(DATA, 100, WRITE), (DATA + 0x1000, 900, WRITE), (DATA + 0x2000, 24, WRITE)]
    assert disk.do(IN, 7, pieces) == OK
    assert b"".join(disk.memory.read(address, length) for address, length, _ in pieces) == pattern(7, 2)


def test_the_used_length_covers_data_and_status(disk: Disk) -> None:
    assert disk.request(disk.buffers(IN, 0, [(DATA, 1024, WRITE)]))[1] == 1025
    assert disk.request(disk.buffers(OUT, 0, [(DATA, 1024, 0)]))[1] == 1


def test_what_is_written_is_read_back_from_where_it_was_written(disk: Disk) -> None:
    data = bytes(range(256)) * 6
    assert disk.write_sectors(9, data) == OK
    assert disk.read_sectors(8, 5) == pattern(8) + data + pattern(12)


def test_a_write_is_gathered_from_its_buffers(disk: Disk) -> None:
    disk.memory.write(DATA, b"a" * 300)
    disk.memory.write(DATA + 0x1000, b"b" * 212)
    assert disk.do(OUT, 2, [(DATA, 300, 0), (DATA + 0x1000, 212, 0)]) == OK
    assert disk.read_sectors(2) == b"a" * 300 + b"b" * 212


def test_header_data_and_status_may_be_cut_anywhere(disk: Disk) -> None:
    disk.memory.write(HEADER, struct.pack("<IIQ", OUT, 0, 4) + b"w" * 512)
    disk.request([(HEADER, 5, 0), (HEADER + 5, 1, 0), (HEADER + 6, 522, 0), (STATUS + 0x1000, 1, WRITE)])
    assert disk.memory.read(STATUS + 0x1000, 1) == b"\0"
    disk.memory.write(HEADER, struct.pack("<IIQ", IN, 0, 4))
    disk.request([(HEADER, 16, 0), (DATA, 513, WRITE)])
    assert disk.memory.read(DATA, 513) == b"w" * 512 + b"\0"


def test_an_indirect_request_is_served(disk: Disk) -> None:
    queue = disk.queues[0]
    queue.offer(queue.indirect(TABLE, disk.buffers(IN, 1, [(DATA + 512 * n, 512, WRITE) for n in range(14)])))
    disk.notify()
    assert disk.complete() == [(0, 14 * 512 + 1)]
    assert disk.memory.read(DATA, 14 * 512) == pattern(1, 14)


def test_many_requests_are_served_on_one_notification(disk: Disk) -> None:
    queue = disk.queues[0]
    for number in range(5):
        header, status, data = HEADER + 64 * number, HEADER + 64 * number + 32, DATA + 512 * number
        disk.memory.write(header, struct.pack("<IIQ", IN, 0, 20 + number))
        queue.offer(queue.chain([(header, 16, 0), (data, 512, WRITE), (status, 1, WRITE)]))
    queue.set_used_event(4)  # one interrupt, for the last of them
    disk.notify()
    disk.line.wait()
    assert len(queue.take_used()) == 5
    assert disk.line.rises == 1
    assert disk.memory.read(DATA, 5 * 512) == pattern(20, 5)


def test_one_notification_reads_more_than_fits_a_harts_turn(disk: Disk) -> None:
    queue = disk.queues[0]
    length = 0x18000
    for number in range(5):
        header = HEADER + 64 * number
        disk.memory.write(header, struct.pack("<IIQ", IN, 0, number))
        queue.offer(queue.chain([(header, 16, 0), (DATA, length, WRITE), (header + 32, 1, WRITE)]))
    queue.set_used_event(4)
    disk.notify()
    assert disk.complete(count=5) == [(3 * number, length + 1) for number in range(5)]
    assert disk.memory.read(DATA, length) == pattern(4, length // 512)


@pytest.mark.parametrize("kind", [IN, OUT])
@pytest.mark.parametrize(
    ("sector", "length"), [(SECTORS, 512), (SECTORS - 1, 1024), ((1 << 64) - 1, 512), (0, 511), (0, 513), (0, 1)]
)
def test_a_range_outside_the_disk_or_not_whole_sectors_is_an_error(
    disk: Disk, kind: int, sector: int, length: int
) -> None:
    assert disk.do(kind, sector, [(DATA, length, WRITE if kind == IN else 0)]) == IOERR
    assert disk.read_sectors(0) == pattern(0)
    assert disk.read_sectors(SECTORS - 1) == pattern(SECTORS - 1)


@pytest.mark.parametrize("kind", [2, 3, 5, 10, 14, 0xFFFF_FFFF])
def test_a_request_of_a_kind_the_device_does_not_know_is_unsupported(disk: Disk, kind: int) -> None:
    assert disk.do(kind) == UNSUPP


def test_get_id_gives_the_serial_in_twenty_bytes(disk: Disk) -> None:
    disk.memory.write(DATA, b"\xff" * 21)
    assert disk.do(GET_ID, 0, [(DATA, 7, WRITE), (DATA + 7, 13, WRITE)]) == OK
    serial = disk.memory.read(DATA, 21)
    assert serial[20] == 0xFF
    assert serial[:20].decode().isalnum()


def test_get_id_into_a_short_buffer_writes_no_further(disk: Disk) -> None:
    disk.memory.write(DATA, b"\xff" * 8)
    assert disk.do(GET_ID, 0, [(DATA, 4, WRITE)]) == OK
    assert disk.memory.read(DATA + 4, 4) == b"\xff" * 4


def test_zeroes_are_written_with_and_without_unmapping(disk: Disk) -> None:
    assert disk.ranges(DO_WRITE_ZEROES, (3, 20, 0), (40, 1, 1), (50, 0, 0)) == OK
    assert disk.read_sectors(2, 22) == pattern(2) + bytes(20 * 512) + pattern(23)
    assert disk.read_sectors(39, 3) == pattern(39) + bytes(512) + pattern(41)


def test_a_discard_leaves_what_lies_around_it(disk: Disk) -> None:
    assert disk.ranges(DO_DISCARD, (8, 16, 0)) == OK
    assert disk.read_sectors(7) == pattern(7)
    assert disk.read_sectors(24) == pattern(24)
    assert disk.write_sectors(10, b"n" * 512) == OK
    assert disk.read_sectors(10) == b"n" * 512


@pytest.mark.parametrize("kind", [DO_DISCARD, DO_WRITE_ZEROES])
@pytest.mark.parametrize("bad", [(SECTORS, 1, 0), (0, SECTORS + 1, 0), ((1 << 64) - 1, 2, 0), (0, (1 << 22) + 1, 0)])
def test_a_range_outside_the_disk_stops_the_whole_request(disk: Disk, kind: int, bad: tuple[int, int, int]) -> None:
    assert disk.ranges(kind, (0, 8, 0), bad) == IOERR
    assert disk.read_sectors(0, 8) == pattern(0, 8)


def test_flags_that_a_request_does_not_have_are_unsupported(disk: Disk) -> None:
    assert disk.ranges(DO_DISCARD, (0, 8, 1)) == UNSUPP
    assert disk.ranges(DO_WRITE_ZEROES, (0, 8, 2)) == UNSUPP
    assert disk.read_sectors(0, 8) == pattern(0, 8)


@pytest.mark.parametrize("length", [0, 15, 17, 16 * 17])
def test_a_list_of_ranges_of_a_wrong_length_is_an_error(disk: Disk, length: int) -> None:
    assert disk.do(DO_DISCARD, 0, [(DATA, length, 0)]) == IOERR


def test_requests_that_were_not_negotiated_are_unsupported(path: Path, memory: GuestMemory) -> None:
    disk = Disk(RawFile(path), memory)
    disk.initialize(FLUSH)
    assert disk.ranges(DO_DISCARD, (0, 8, 0)) == UNSUPP
    assert disk.ranges(DO_WRITE_ZEROES, (0, 8, 0)) == UNSUPP
    disk.mmio.close()


def test_a_read_only_disk_says_so_and_takes_no_change(path: Path, memory: GuestMemory) -> None:
    disk = Disk(RawFile(path, read_only=True), memory)
    assert disk.offered() & (RO | DISCARD | WRITE_ZEROES) == RO
    disk.initialize(RO | FLUSH)
    assert disk.write_sectors(0, bytes(512)) == IOERR
    assert disk.do(DO_FLUSH) == OK
    assert disk.read_sectors(0) == pattern(0)
    disk.mmio.close()
    assert path.read_bytes() == pattern(0, SECTORS)


def test_a_driver_that_cannot_flush_gets_every_write_through(slow: tuple[Disk, Slow]) -> None:
    disk, backend = slow
    disk.initialize(0)
    assert disk.write_sectors(0, bytes(512)) == OK
    assert backend.flushes == 1
    disk.initialize(FLUSH)
    assert disk.write_sectors(0, bytes(512)) == OK
    assert backend.flushes == 1
    assert disk.do(DO_FLUSH) == OK
    assert backend.flushes == 2


def test_a_driver_may_choose_to_write_through_and_a_reset_undoes_it(slow: tuple[Disk, Slow]) -> None:
    disk, backend = slow
    disk.initialize(FLUSH | CONFIG_WCE)
    disk.mmio.write(0x120, 1, 0)
    assert disk.mmio.read(0x120, 1) == 0
    disk.write_sectors(0, bytes(512))
    assert backend.flushes == 1
    disk.mmio.write(0x120, 4, 1)
    assert disk.mmio.read(0x120, 1) == 0, "the field is one byte wide"
    disk.initialize(FLUSH)
    assert disk.mmio.read(0x120, 1) == 1
    disk.mmio.write(0x120, 1, 0)
    assert disk.mmio.read(0x120, 1) == 1, "not the driver's to choose"


@pytest.mark.parametrize("kind", [IN, OUT])
def test_a_host_that_fails_gives_the_guest_an_error_and_the_disk_goes_on(slow: tuple[Disk, Slow], kind: int) -> None:
    disk, backend = slow
    disk.initialize(FLUSH)
    backend.failure = OSError(errno.ENOSPC, "no space")
    assert disk.do(kind, 0, [(DATA, 512, WRITE if kind == IN else 0)]) == IOERR
    backend.failure = None
    assert disk.read_sectors(0) == pattern(0)


def test_a_mistake_in_a_backend_is_an_error_to_the_guest_and_its_place_is_in_the_log(
    slow: tuple[Disk, Slow], caplog: pytest.LogCaptureFixture
) -> None:
    disk, backend = slow
    disk.initialize(FLUSH)
    backend.failure = ZeroDivisionError("a mistake")
    for kind in (IN, OUT, IN):
        assert disk.do(kind, 0, [(DATA, 512, WRITE if kind == IN else 0)]) == IOERR
    backend.failure = None
    assert disk.read_sectors(0) == pattern(0)
    (line,) = caplog.messages
    assert "in readinto" in line
    assert "ZeroDivisionError: a mistake; the guest gets I/O errors" in line
    caplog.clear()


@pytest.mark.parametrize(
    "buffers",
    [
        [(HEADER, 16, 0)],
        [(HEADER, 15, 0), (STATUS, 1, WRITE)],
        [(STATUS, 1, WRITE)],
        [(HEADER, 16, 0), (STATUS, 0, WRITE)],
        [(HEADER, 16, 0), (0x1000, 512, WRITE), (STATUS, 1, WRITE)],
    ],
    ids=["no status", "short header", "no header", "empty status", "data outside memory"],
)
def test_what_is_no_request_stops_the_device_until_a_reset(disk: Disk, buffers: list[Buffer]) -> None:
    disk.queues[0].offer(disk.queues[0].chain(buffers))
    disk.notify()
    disk.line.wait()
    assert disk.acknowledge() == 2
    assert disk.status & NEEDS_RESET
    assert disk.queues[0].take_used() == []
    disk.initialize(FLUSH)
    assert disk.read_sectors(5) == pattern(5)


def test_a_reset_waits_for_the_request_in_hand_and_drops_the_rest(slow: tuple[Disk, Slow]) -> None:
    disk, backend = slow
    disk.initialize(FLUSH)
    backend.gate.clear()
    queue = disk.queues[0]
    buffers = disk.buffers(IN, 0, [(DATA, 512, WRITE)])
    queue.offer(*(queue.chain(buffers) for _ in range(3)))
    disk.notify()
    assert backend.entered.wait(PATIENCE)
    hart = threading.Thread(target=lambda: disk.write(0x70, 0))
    hart.start()
    until(lambda: disk.device.halting)
    assert disk.status != 0
    backend.gate.set()
    hart.join(PATIENCE)
    assert disk.status == 0
    assert not disk.line.level
    assert len(queue.take_used()) <= 1
    before = disk.memory.read(BASE, 0x20000)
    disk.notify()
    assert disk.memory.read(BASE, 0x20000) == before
    disk.initialize(FLUSH)
    assert disk.read_sectors(1) == pattern(1)


class Lingering:
    """A lock that the device's thread has given up, and from which it does not get on until `go_on`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.given_up = threading.Event()
        self.go_on = threading.Event()

    def acquire(self, blocking: bool = True) -> bool:
        return self._lock.acquire(blocking)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()
        if threading.current_thread().name == "celaje-virtio-block":
            self.given_up.set()
            assert self.go_on.wait(PATIENCE)


def test_after_a_reset_memory_may_go_though_the_disks_thread_has_only_given_up_the_lock(path: Path) -> None:
    memory = GuestMemory(BASE, MEMORY_SIZE)
    disk = Disk(Slow(RawFile(path)), memory)
    lock = Lingering()
    disk.device.lock = lock  # type: ignore[assignment]  # what of a lock a device uses
    disk.initialize(FLUSH)
    begin_write(disk)
    assert lock.given_up.wait(PATIENCE)
    disk.mmio.reset()
    try:
        memory.close()
    finally:
        lock.go_on.set()
        disk.device.close()


def test_a_saved_disk_goes_on_in_another_machine_with_what_was_queued(
    disk: Disk, path: Path, memory: GuestMemory
) -> None:
    disk.mmio.write(0x120, 1, 0)
    assert disk.read_sectors(1) == pattern(1)
    disk.mmio.pause()
    queue = disk.queues[0]
    queue.offer(queue.chain(disk.buffers(IN, 2, [(DATA, 512, WRITE)])))
    disk.notify()
    state = disk.mmio.save()
    disk.mmio.close()

    other = Disk(RawFile(path), memory)
    other.queues = disk.queues
    other.mmio.restore(state)
    assert len(other.complete()) == 1
    assert memory.read(DATA, 512) == pattern(2)
    assert other.mmio.read(0x120, 1) == 0
    assert other.read_sectors(3) == pattern(3)
    other.mmio.close()


def test_a_request_that_the_thread_was_handed_and_has_not_begun_is_saved_in_the_queue(
    path: Path, memory: GuestMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(RawFile(path), memory)
    disk.initialize(FLUSH)
    assert isinstance(disk.device, VirtioBlock)
    monkeypatch.setattr(disk.device._doorbell, "ring", lambda: None)
    memory.write(DATA, b"h" * 512)
    disk.queues[0].offer(disk.queues[0].chain(disk.buffers(OUT, 6, [(DATA, 512, 0)])))
    disk.notify()
    disk.notify()
    state = disk.mmio.save()
    assert state["queue_taken"] == [0]
    monkeypatch.undo()
    disk.mmio.close()
    assert path.read_bytes() == pattern(0, SECTORS)

    other = Disk(RawFile(path), memory)
    other.queues = disk.queues
    other.mmio.restore(state)
    assert len(other.complete()) == 1
    assert other.read_sectors(6) == b"h" * 512
    other.mmio.close()


def test_a_state_of_a_disk_of_another_size_is_refused(path: Path, memory: GuestMemory, tmp_path: Path) -> None:
    disk = Disk(RawFile(path), memory)
    state = disk.mmio.save()
    disk.mmio.close()
    small = tmp_path / "small.raw"
    small.write_bytes(bytes(512))
    other = Disk(RawFile(small), memory)
    with pytest.raises(ValueError, match="256 sectors, this one has 1"):
        other.mmio.restore(state)
    other.mmio.close()


def test_a_teaching_kernels_driver_is_served(path: Path, memory: GuestMemory) -> None:
    """It negotiates the low feature bits only, less those it does not know, and has eight descriptors."""
    disk = Disk(RawFile(path), memory)
    low = disk.offered() & 0xFFFF_FFFF & ~(RO | FLUSH | CONFIG_WCE | 1 << 12 | 1 << 27 | 1 << 28 | 1 << 29)
    disk.initialize(low, size=8, transport=0)
    assert disk.read_sectors(2, 2) == pattern(2, 2)
    assert disk.write_sectors(4, b"x" * 1024) == OK
    assert disk.read_sectors(4, 2) == b"x" * 1024
    disk.mmio.close()


REQUESTS = st.builds(
    lambda kind, reserved, sector, data, lengths: (struct.pack("<IIQ", kind, reserved, sector) + data, lengths),
    st.one_of(st.sampled_from([IN, OUT, DO_FLUSH, GET_ID, DO_DISCARD, DO_WRITE_ZEROES]), st.integers(0, 0xFFFF_FFFF)),
    st.integers(0, 0xFFFF_FFFF),
    st.one_of(st.integers(0, SECTORS + 2), st.integers(0, (1 << 64) - 1)),
    st.binary(max_size=64),
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from([HEADER, DATA, STATUS, BASE + 0xFFFFF]), st.integers(0, (1 << 64) - 1)),
            st.one_of(st.sampled_from([1, 16, 20, 512, 513, 4096]), st.integers(0, 0xFFFF_FFFF)),
            st.integers(0, 7),
        ),
        min_size=1,
        max_size=6,
    ),
)


@pytest.mark.parametrize("transport", [FEATURE_VERSION_1, FEATURE_VERSION_1 | FEATURE_RING_INDIRECT, Driver.FEATURES])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(REQUESTS, min_size=1, max_size=4))
def test_no_request_breaks_the_disk_or_leaves_guest_memory(
    path: Path, memory: GuestMemory, transport: int, requests: list[tuple[bytes, list[Buffer]]]
) -> None:
    disk = Disk(Overlay(RawFile(path, read_only=True)), memory)
    disk.initialize(FLUSH | DISCARD | WRITE_ZEROES, transport=transport)
    queue = disk.queues[0]
    for contents, buffers in requests:
        memory.write(HEADER, contents)
        queue.offer(queue.chain([(HEADER, len(contents), 0), *buffers, (STATUS, 1, WRITE)]))
        disk.notify()
    disk.write(0x70, 0)  # waits for what is in hand
    disk.initialize(FLUSH)
    assert disk.status == 15
    assert len(disk.read_sectors(1)) == 512
    disk.mmio.close()
    assert path.read_bytes() == pattern(0, SECTORS)


def test_a_hart_that_scribbles_over_the_queue_while_it_is_served_breaks_nothing(
    path: Path, memory: GuestMemory
) -> None:
    disk = Disk(Slow(Overlay(RawFile(path, read_only=True))), memory)
    random = Random(7)
    for _ in range(20):
        disk.initialize(FLUSH | DISCARD | WRITE_ZEROES)
        queue = disk.queues[0]
        heads = [queue.chain(disk.buffers(IN, 0, [(DATA, 4096, WRITE)])) for _ in range(5)]
        for _ in range(50):
            queue.offer(*heads[: random.randint(0, 5)])
            disk.notify()
            at = random.randrange(queue.descriptors, queue.end - 8)
            memory.write(at, random.randbytes(random.choice([1, 2, 4, 8])))
            disk.acknowledge()
    disk.write(0x70, 0)
    disk.initialize(FLUSH)
    assert len(disk.read_sectors(1)) == 512
    disk.mmio.close()
    assert path.read_bytes() == pattern(0, SECTORS)
