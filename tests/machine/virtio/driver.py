"""A small virtio driver: what a guest kernel does, in Python, over the register window and guest memory."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Sequence

from celaje.engine.memory import GuestMemory
from celaje.machine.virtio.device import (
    FEATURE_RING_EVENT_INDEX,
    FEATURE_RING_INDIRECT,
    FEATURE_VERSION_1,
    VirtioDevice,
)
from celaje.machine.virtio.mmio import (
    STATUS_ACKNOWLEDGE,
    STATUS_DRIVER,
    STATUS_DRIVER_OK,
    STATUS_FEATURES_OK,
    VirtioMmio,
)

BASE = 0x8000_0000
MEMORY_SIZE = 1 << 20
PATIENCE = 30.0
"""Seconds after which a test that waits for the device fails instead of hanging. Nothing is asserted about time."""

NEXT, WRITE, INDIRECT = 1, 2, 4
Buffer = tuple[int, int, int]
"""Address, length, WRITE or 0."""


def until(true: Callable[[], bool]) -> None:
    """Wait for what another thread is about to bring about."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


class Line:
    """An interrupt line that remembers its level and how often it rose."""

    def __init__(self) -> None:
        self.level = False
        self.rises = 0
        self._changed = threading.Condition()

    def __call__(self, level: bool) -> None:
        with self._changed:
            assert level != self.level, "the line is only driven when its level changes"
            self.level = level
            self.rises += level
            self._changed.notify_all()

    def wait(self) -> None:
        """Return once the line is high."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.level, PATIENCE), "no interrupt came"


class DriverQueue:
    """One split queue, as the driver sees it. The areas lie one after the other from `base`."""

    def __init__(self, memory: GuestMemory, base: int, size: int) -> None:
        self.memory, self.size, self.base = memory, size, base
        self.descriptors = base
        self.available = base + 16 * size
        self.used = self.available + (6 + 2 * size + 3) // 4 * 4
        self.end = self.used + 6 + 8 * size
        self.next_available = 0
        self.seen_used = 0
        self._next_descriptor = 0
        memory.write(base, bytes(self.end - base))

    def describe(self, index: int, address: int, length: int, flags: int = 0, following: int = 0) -> None:
        """Write one descriptor of the table."""
        self.memory.write(self.descriptors + 16 * index, struct.pack("<QIHH", address, length, flags, following))

    def chain(self, buffers: Sequence[Buffer]) -> int:
        """Write a chain of `buffers` into the table, round it goes; returns its head."""
        indices = [(self._next_descriptor + number) % self.size for number in range(len(buffers))]
        self._next_descriptor = (self._next_descriptor + len(buffers)) % self.size
        for number, (address, length, write) in enumerate(buffers):
            last = number == len(buffers) - 1
            following = 0 if last else indices[number + 1]
            self.describe(indices[number], address, length, write | (0 if last else NEXT), following)
        return indices[0]

    def indirect(self, table: int, buffers: Sequence[Buffer]) -> int:
        """Write an indirect table at address `table`, and a descriptor that points there; returns its index."""
        for number, (address, length, write) in enumerate(buffers):
            last = number == len(buffers) - 1
            entry = struct.pack("<QIHH", address, length, write | (0 if last else NEXT), number + 1)
            self.memory.write(table + 16 * number, entry)
        return self.chain([(table, 16 * len(buffers), INDIRECT)])

    def offer(self, *heads: int) -> None:
        """Make chains available, without a notification."""
        for head in heads:
            self.memory.write(self.available + 4 + 2 * (self.next_available % self.size), struct.pack("<H", head))
            self.next_available = (self.next_available + 1) & 0xFFFF
        self.memory.write(self.available + 2, struct.pack("<H", self.next_available))

    def _word(self, address: int) -> int:
        return int.from_bytes(self.memory.read(address, 2), "little")

    @property
    def used_index(self) -> int:
        return self._word(self.used + 2)

    @property
    def available_event(self) -> int:
        return self._word(self.used + 4 + 8 * self.size)

    @property
    def notifications_off(self) -> bool:
        return bool(self._word(self.used) & 1)

    def set_used_event(self, value: int) -> None:
        self.memory.write(self.available + 4 + 2 * self.size, struct.pack("<H", value & 0xFFFF))

    def set_no_interrupt(self, value: bool) -> None:
        self.memory.write(self.available, struct.pack("<H", value))

    def take_used(self) -> list[tuple[int, int]]:
        """(head, length) of everything given back since the last call."""
        result = []
        while self.seen_used != self.used_index:
            at = self.used + 4 + 8 * (self.seen_used % self.size)
            head, length = struct.unpack("<II", self.memory.read(at, 8))
            result.append((head, length))
            self.seen_used = (self.seen_used + 1) & 0xFFFF
        return result


class Driver:
    """Speaks to `device` through a transport of its own."""

    FEATURES = FEATURE_VERSION_1 | FEATURE_RING_INDIRECT | FEATURE_RING_EVENT_INDEX

    def __init__(self, device: VirtioDevice, memory: GuestMemory) -> None:
        self.memory = memory
        self.line = Line()
        self.device = device
        self.mmio = VirtioMmio(device, memory, self.line)
        self.queues: list[DriverQueue] = []

    def read(self, offset: int) -> int:
        return self.mmio.read(offset, 4)

    def write(self, offset: int, value: int) -> None:
        self.mmio.write(offset, 4, value)

    @property
    def status(self) -> int:
        return self.read(0x70)

    def offered(self) -> int:
        self.write(0x14, 1)
        high = self.read(0x10)
        self.write(0x14, 0)
        return high << 32 | self.read(0x10)

    def accept(self, features: int) -> None:
        self.write(0x24, 1)
        self.write(0x20, features >> 32)
        self.write(0x24, 0)
        self.write(0x20, features & 0xFFFF_FFFF)

    def begin(self, features: int) -> bool:
        """Reset, acknowledge, negotiate. Whether the device took the features."""
        self.write(0x70, 0)
        self.write(0x70, STATUS_ACKNOWLEDGE)
        self.write(0x70, STATUS_ACKNOWLEDGE | STATUS_DRIVER)
        self.accept(features)
        self.write(0x70, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK)
        return bool(self.status & STATUS_FEATURES_OK)

    def place_queue(self, index: int, queue: DriverQueue) -> None:
        """Tell the device of a queue that lies in memory, and that it is ready."""
        self.write(0x30, index)
        assert self.read(0x44) == 0
        assert self.read(0x34) >= queue.size
        self.write(0x38, queue.size)
        for register, address in ((0x80, queue.descriptors), (0x90, queue.available), (0xA0, queue.used)):
            self.write(register, address & 0xFFFF_FFFF)
            self.write(register + 4, address >> 32)
        self.write(0x44, 1)
        assert self.read(0x44) == 1

    def ready(self) -> None:
        self.write(0x70, self.status | STATUS_DRIVER_OK)

    def initialize(self, features: int = 0, size: int = 16, *, transport: int | None = None) -> None:
        """The whole of 3.1.1, with `features` of the device's own and all queues of `size`."""
        assert self.begin(features | (self.FEATURES if transport is None else transport))
        self.queues = []
        base = BASE + 0x1000
        for index in range(len(self.device.queue_sizes)):
            queue = DriverQueue(self.memory, base, size)
            base = (queue.end + 15) // 16 * 16
            self.place_queue(index, queue)
            self.queues.append(queue)
        self.ready()

    def notify(self, index: int = 0) -> None:
        self.write(0x50, index)

    def acknowledge(self) -> int:
        """What an interrupt handler does first: which interrupts there are, and away with them."""
        causes = self.read(0x60)
        self.write(0x64, causes)
        return causes

    def complete(self, index: int = 0, count: int = 1) -> list[tuple[int, int]]:
        """Wait for interrupts until `count` chains of a queue came back."""
        queue = self.queues[index]
        used: list[tuple[int, int]] = []
        while True:
            used += queue.take_used()
            queue.set_used_event(queue.seen_used)
            used += queue.take_used()  # what came before the device could see that
            if len(used) >= count:
                return used
            self.line.wait()
            self.acknowledge()

    def request(self, buffers: Sequence[Buffer], index: int = 0) -> tuple[int, int]:
        """Offer one chain, notify, wait until it comes back: (head, used length)."""
        self.queues[index].offer(self.queues[index].chain(buffers))
        self.notify(index)
        (answer,) = self.complete(index)
        return answer
