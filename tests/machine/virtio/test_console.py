from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from celaje.engine.memory import GuestMemory
from celaje.machine.console import BufferConsole
from celaje.machine.virtio.console import VirtioConsole
from tests.machine.virtio.driver import BASE, WRITE, Driver

RECEIVE, TRANSMIT = 0, 1
DATA = BASE + 0x8000
NEEDS_RESET = 64


class NarrowConsole(BufferConsole):
    """A console that has room for so many bytes, and then for none until `drain`."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._on_room: Callable[[], None] = lambda: None

    @property
    def has_room(self) -> bool:  # type: ignore[override]  # a plain attribute of the console that is always ready
        return len(self.output) < self._room

    def listen(self, on_input: Callable[[], None], on_room: Callable[[], None]) -> None:
        super().listen(on_input, on_room)
        self._on_room = on_room

    def drain(self) -> bytes:
        sent = bytes(self.output)
        self.output.clear()
        self._on_room()
        return sent


@pytest.fixture
def backend() -> BufferConsole:
    return BufferConsole()


@pytest.fixture
def driver(backend: BufferConsole, memory: GuestMemory) -> Iterator[Driver]:
    driver = Driver(VirtioConsole(backend), memory)
    driver.initialize()
    yield driver
    driver.mmio.close()


def test_what_is_transmitted_reaches_the_other_end(driver: Driver, backend: BufferConsole, memory: GuestMemory) -> None:
    memory.write(DATA, b"hello, world")
    assert driver.request([(DATA, 7, 0), (DATA + 7, 5, 0)], TRANSMIT)[1] == 0
    assert backend.output == b"hello, world"


def test_what_is_typed_goes_into_the_buffer_that_waits(driver: Driver, backend: BufferConsole) -> None:
    queue = driver.queues[RECEIVE]
    queue.offer(queue.chain([(DATA, 4, WRITE), (DATA + 16, 60, WRITE)]))
    driver.notify(RECEIVE)
    assert queue.take_used() == []
    backend.type(b"uname\n")
    assert driver.acknowledge() == 1
    assert queue.take_used() == [(0, 6)]
    assert driver.memory.read(DATA, 4) + driver.memory.read(DATA + 16, 2) == b"uname\n"


def test_what_is_typed_early_waits_for_a_buffer(driver: Driver, backend: BufferConsole, memory: GuestMemory) -> None:
    backend.type(b"0123456789")
    queue = driver.queues[RECEIVE]
    for number in range(4):
        queue.offer(queue.chain([(DATA + 4 * number, 4, WRITE)]))
    driver.notify(RECEIVE)
    assert queue.take_used() == [(0, 4), (1, 4), (2, 2)]
    assert memory.read(DATA, 10) == b"0123456789"
    backend.type(b"x")
    assert queue.take_used() == [(3, 1)]


def test_input_typed_before_the_driver_is_there_is_not_lost(memory: GuestMemory) -> None:
    backend = BufferConsole()
    driver = Driver(VirtioConsole(backend), memory)
    backend.type(b"early")
    driver.initialize()
    driver.request([(DATA, 16, WRITE)], RECEIVE)
    assert memory.read(DATA, 5) == b"early"
    driver.mmio.close()


def test_output_waits_in_the_queue_while_the_other_end_has_no_room(memory: GuestMemory) -> None:
    backend = NarrowConsole(room=1)
    driver = Driver(VirtioConsole(backend), memory)
    driver.initialize()
    text = bytes(range(256)) * 40
    memory.write(DATA, text)
    queue = driver.queues[TRANSMIT]
    queue.offer(
        queue.chain([(DATA, 100, 0), (DATA + 100, len(text) - 200, 0)]), queue.chain([(DATA + len(text) - 100, 100, 0)])
    )
    driver.notify(TRANSMIT)
    assert queue.take_used() == [], "half a chain is not given back"
    sent = b""
    while len(queue.take_used()) == 0:
        sent += backend.drain()
        assert len(sent) <= len(text)
    sent += backend.drain()
    sent += backend.drain()
    assert sent == text
    assert queue.used_index == 2
    driver.mmio.close()


def test_a_chain_sent_in_part_is_finished_by_the_machine_that_is_restored(memory: GuestMemory) -> None:
    backend = NarrowConsole(room=1)
    driver = Driver(VirtioConsole(backend), memory)
    driver.initialize()
    memory.write(DATA, bytes(range(256)) * 32)
    queue = driver.queues[TRANSMIT]
    queue.offer(queue.chain([(DATA, 8192, 0)]))
    driver.notify(TRANSMIT)
    state = driver.mmio.save()
    sent = bytes(backend.output)
    assert 0 < len(sent) < 8192
    driver.mmio.close()

    after = BufferConsole()
    other = Driver(VirtioConsole(after), memory)
    other.mmio.restore(state)
    assert sent + after.output == memory.read(DATA, 8192)
    assert queue.take_used() == [(0, 0)]
    other.mmio.close()


def test_a_reset_forgets_what_was_half_sent(memory: GuestMemory) -> None:
    backend = NarrowConsole(room=1)
    driver = Driver(VirtioConsole(backend), memory)
    driver.initialize()
    queue = driver.queues[TRANSMIT]
    queue.offer(queue.chain([(DATA, 8192, 0)]))
    driver.notify(TRANSMIT)
    driver.initialize()
    backend.drain()
    memory.write(DATA, b"fresh")
    driver.request([(DATA, 5, 0)], TRANSMIT)
    assert backend.output == b"fresh"
    driver.mmio.close()


def test_an_emergency_write_needs_no_queue(memory: GuestMemory, backend: BufferConsole) -> None:
    driver = Driver(VirtioConsole(backend), memory)
    assert driver.offered() & 1 << 2
    for byte in b"panic":
        driver.mmio.write(0x108, 4, byte)
    assert backend.output == b"panic"
    driver.mmio.close()


@pytest.mark.parametrize(
    ("index", "buffers"),
    [(RECEIVE, [(DATA, 4, 0)]), (RECEIVE, [(DATA, 0, WRITE)]), (TRANSMIT, [(DATA, 4, WRITE)])],
)
def test_a_buffer_of_the_wrong_direction_stops_the_device_until_a_reset(
    driver: Driver, backend: BufferConsole, index: int, buffers: list[tuple[int, int, int]]
) -> None:
    queue = driver.queues[index]
    queue.offer(queue.chain(buffers))
    driver.notify(index)
    assert driver.status & NEEDS_RESET
    backend.type(b"nobody reads this yet")
    driver.initialize()
    driver.request([(DATA, 64, WRITE)], RECEIVE)
    assert driver.memory.read(DATA, 6) == b"nobody"
