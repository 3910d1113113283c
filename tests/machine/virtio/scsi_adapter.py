"""A driver of the SCSI host device, and what its tests say to it."""

from __future__ import annotations

import struct

from celaje.engine.memory import GuestMemory
from celaje.machine.virtio.scsi import (
    CONTROL,
    EVENT,
    FEATURE_CHANGE,
    FEATURE_HOTPLUG,
    REQUEST,
    VirtioScsi,
)
from tests.machine.virtio.driver import BASE, WRITE, Buffer, Driver
from tests.machine.virtio.memory_disk import MemoryDisk

OK, OVERRUN, ABORTED, BAD_TARGET, RESET, FAILURE, SUCCEEDED, REJECTED, INCORRECT_LUN = 0, 1, 2, 3, 4, 9, 10, 11, 12
GOOD, CHECK_CONDITION = 0, 2
NEEDS_RESET = 64
FEATURES = FEATURE_HOTPLUG | FEATURE_CHANGE
HEADERS, RESPONSES, EVENTS, TASKS, DATA = (BASE + at for at in (0x8000, 0xA000, 0xC000, 0xD000, 0x10000))
INDIRECT_TABLE = BASE + 0xE000
LUN_0 = bytes([1, 0, 0, 0, 0, 0, 0, 0])
SECTORS = 256


def lun(target: int, unit: int = 0) -> bytes:
    return bytes([1, target, 0x40, unit, 0, 0, 0, 0])


def read(lba: int, count: int = 1) -> bytes:
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, count, 0)


def write(lba: int, count: int = 1) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, count, 0)


TEST_UNIT_READY = bytes(6)
SYNCHRONIZE = bytes([0x35]) + bytes(9)
CAPACITY = bytes([0x25]) + bytes(9)


class Adapter(Driver):
    """A driver of the controller. Requests have a slot each for header and response: slot n from `HEADERS + 64 n`."""

    def __init__(self, memory: GuestMemory, *disks: MemoryDisk) -> None:
        self.scsi = VirtioScsi()
        for disk in disks:
            self.scsi.attach(disk)
        super().__init__(self.scsi, memory)

    def start(self, features: int = FEATURES, *, events: int = 4) -> None:
        """Initialize, offer `events` event buffers, and take every disk's first unit attention."""
        self.initialize(features, size=64)
        for number in range(events):
            self.offer_event(number)
        self.notify(EVENT)
        for target in self.scsi.targets:
            self.do(TEST_UNIT_READY, target=target)

    def offer_event(self, number: int) -> None:
        queue = self.queues[EVENT]
        queue.offer(queue.chain([(EVENTS + 16 * number, 16, WRITE)]))

    def submit(self, cdb: bytes, data: list[Buffer], *, address: bytes = LUN_0, slot: int = 0, tag: int = 0) -> None:
        """Offer one request without a notification."""
        header = address + struct.pack("<QBBB", tag or slot, 0, 0, 0) + cdb.ljust(32, b"\0")
        self.memory.write(HEADERS + 64 * slot, header)
        self.memory.write(RESPONSES + 128 * slot, b"\xee" * 108)
        out = [one for one in data if not one[2]]
        into = [one for one in data if one[2]]
        queue = self.queues[REQUEST]
        buffers = [(HEADERS + 64 * slot, 51, 0), *out, (RESPONSES + 128 * slot, 108, WRITE), *into]
        queue.offer(queue.chain(buffers))

    def response(self, slot: int = 0) -> tuple[int, int, int, bytes]:
        """(response, status, residual, sense)."""
        data = self.memory.read(RESPONSES + 128 * slot, 108)
        sense_length, residual, qualifier, status, response = struct.unpack_from("<IIHBB", data)
        assert qualifier == 0
        assert sense_length <= 96
        return response, status, residual, data[12 : 12 + sense_length]

    def send(self, cdb: bytes, data: list[Buffer], address: bytes = LUN_0) -> tuple[int, int, int, bytes]:
        self.submit(cdb, data, address=address)
        self.notify(REQUEST)
        self.complete(REQUEST)
        return self.response()

    def do(self, cdb: bytes, data: list[Buffer] | None = None, *, target: int = 0) -> tuple[int, int]:
        """(response, status) of one command, start to end."""
        return self.send(cdb, data or [], lun(target))[:2]

    def read_sectors(self, sector: int, count: int = 1, *, target: int = 0) -> bytes:
        assert self.do(read(sector, count), [(DATA, 512 * count, WRITE)], target=target) == (OK, GOOD)
        return self.memory.read(DATA, 512 * count)

    def offer_task(self, function: int, address: bytes = LUN_0, tag: int = 0, slot: int = 0) -> None:
        self.memory.write(TASKS + 64 * slot, struct.pack("<II8sQ", 0, function, address, tag) + b"\xee")
        queue = self.queues[CONTROL]
        queue.offer(queue.chain([(TASKS + 64 * slot, 24, 0), (TASKS + 64 * slot + 24, 1, WRITE)]))
        self.notify(CONTROL)

    def task(self, function: int, address: bytes = LUN_0, tag: int = 0) -> int:
        self.offer_task(function, address, tag)
        assert len(self.complete(CONTROL)) == 1
        return self.memory.read(TASKS + 24, 1)[0]

    def events(self, count: int) -> list[tuple[int, int, int]]:
        """Wait for `count` events: (event, target, reason). Their buffers are not offered again."""
        queue = self.queues[EVENT]
        found = []
        for _ in self.complete(EVENT, count):
            number = self._seen = getattr(self, "_seen", -1) + 1
            event, address, reason = struct.unpack("<I8sI", self.memory.read(EVENTS + 16 * number, 16))
            found.append((event, address[1], reason))
        assert queue.take_used() == []
        return found
