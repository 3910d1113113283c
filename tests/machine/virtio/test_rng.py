from __future__ import annotations

from collections.abc import Iterator

import pytest

from celaje.engine.memory import GuestMemory
from celaje.machine.virtio.rng import MAX_BYTES, VirtioRng
from tests.machine.virtio.driver import BASE, WRITE, Driver

DATA = BASE + 0x8000


@pytest.fixture
def driver(memory: GuestMemory) -> Iterator[Driver]:
    driver = Driver(VirtioRng(), memory)
    driver.initialize()
    yield driver
    driver.mmio.close()


def test_every_byte_of_a_buffer_becomes_random(driver: Driver, memory: GuestMemory) -> None:
    assert driver.request([(DATA, 256, WRITE), (DATA + 0x1000, 256, WRITE)])[1] == 512
    first, second = memory.read(DATA, 256), memory.read(DATA + 0x1000, 256)
    assert first != second
    assert len(set(first + second)) > 100


def test_a_request_for_very_much_gets_some(driver: Driver, memory: GuestMemory) -> None:
    assert driver.request([(DATA, 3000, WRITE), (DATA + 0x1000, 0x10000, WRITE)])[1] == MAX_BYTES
    assert memory.read(DATA + 0x1000 + MAX_BYTES - 3000, 64) == bytes(64)


def test_a_request_without_a_buffer_is_answered_with_nothing(driver: Driver) -> None:
    assert driver.request([(DATA, 0, WRITE)])[1] == 0


def test_a_buffer_that_may_only_be_read_stops_the_device(driver: Driver, memory: GuestMemory) -> None:
    queue = driver.queues[0]
    queue.offer(queue.chain([(DATA, 16, 0)]))
    driver.notify()
    assert driver.status & 64
    assert memory.read(DATA, 16) == bytes(16)
