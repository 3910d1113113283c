from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from celaje.engine.memory import GuestMemory
from celaje.machine.virtio.input import VirtioPowerButton
from tests.machine.virtio.driver import BASE, WRITE, Buffer, Driver

DATA = BASE + 0x8000
EVENTS, STATUS = 0, 1
NEEDS_RESET = 64
SELECT, SIZE, ANSWER = 0x100, 0x102, 0x108
DOWN_AND_UP = [(1, 116, 1), (0, 0, 0), (1, 116, 0), (0, 0, 0)]


class Button(Driver):
    """A driver of a power button."""

    def __init__(self, memory: GuestMemory) -> None:
        self.button = VirtioPowerButton()
        super().__init__(self.button, memory)
        self.taken = 0

    def ask(self, select: int, subsel: int) -> bytes:
        self.mmio.write(SELECT, 1, select)
        self.mmio.write(SELECT + 1, 1, subsel)
        return bytes(self.mmio.read(ANSWER + index, 1) for index in range(self.mmio.read(SIZE, 1)))

    def offer_buffers(self, count: int) -> None:
        queue = self.queues[EVENTS]
        for _ in range(count):
            at = DATA + 8 * (queue.next_available % 64)
            queue.offer(queue.chain([(at, 8, WRITE)]))
        self.notify(EVENTS)

    def events(self) -> list[tuple[int, ...]]:
        found = []
        for _, length in self.queues[EVENTS].take_used():
            assert length == 8
            found.append(struct.unpack("<HHI", self.memory.read(DATA + 8 * (self.taken % 64), 8)))
            self.taken += 1
        return found


@pytest.fixture
def driver(memory: GuestMemory) -> Iterator[Button]:
    driver = Button(memory)
    driver.initialize()
    yield driver
    driver.mmio.close()


def test_the_configuration_tells_of_one_key(driver: Button) -> None:
    assert driver.ask(0x01, 0) == b"celaje power button"
    keys = driver.ask(0x11, 1)
    assert [bit for bit in range(8 * len(keys)) if keys[bit // 8] >> bit % 8 & 1] == [116]
    assert len(driver.ask(0x03, 0)) == 8


@pytest.mark.parametrize(("select", "subsel"), [(0, 0), (0x10, 0), (0x11, 3), (0x12, 0), (0xFF, 0xFF), (1, 1)])
def test_what_the_device_has_not_has_no_size(driver: Button, select: int, subsel: int) -> None:
    assert driver.ask(select, subsel) == b""


def test_the_answer_cannot_be_written(driver: Button) -> None:
    driver.ask(0x01, 0)
    for offset, size in ((SIZE, 1), (ANSWER, 8), (SELECT, 8), (SELECT + 1, 2)):
        driver.mmio.write(offset, size, (1 << 8 * size) - 1)
    assert driver.ask(0x01, 0) == b"celaje power button"


def test_a_press_is_a_key_that_goes_down_and_up(driver: Button) -> None:
    driver.offer_buffers(8)
    assert driver.button.press()
    assert driver.acknowledge() == 1
    assert driver.events() == DOWN_AND_UP


def test_the_button_can_be_pressed_again(driver: Button) -> None:
    driver.offer_buffers(8)
    assert driver.button.press()
    assert driver.button.press()
    assert driver.events() == DOWN_AND_UP * 2


def test_without_a_driver_a_press_is_refused(memory: GuestMemory) -> None:
    driver = Button(memory)
    assert not driver.button.press()
    driver.initialize()
    driver.offer_buffers(4)
    assert driver.events() == []
    driver.mmio.close()


def test_events_wait_for_buffers_and_a_second_press_meanwhile_is_the_first(driver: Button) -> None:
    driver.offer_buffers(1)
    assert driver.button.press()
    assert driver.button.press()
    assert driver.events() == DOWN_AND_UP[:1]
    driver.offer_buffers(8)
    assert driver.events() == DOWN_AND_UP[1:]


def test_a_press_while_paused_is_told_when_the_device_goes_on(driver: Button) -> None:
    driver.offer_buffers(4)
    driver.mmio.pause()
    assert driver.button.press()
    assert driver.events() == []
    driver.mmio.resume()
    assert driver.events() == DOWN_AND_UP


def test_a_press_half_told_is_finished_by_the_machine_that_is_restored(driver: Button, memory: GuestMemory) -> None:
    driver.offer_buffers(2)
    assert driver.button.press()
    assert driver.events() == DOWN_AND_UP[:2]
    state = driver.mmio.save()
    driver.mmio.reset()

    other = Button(memory)
    other.mmio.restore(state)
    other.queues, other.taken = driver.queues, driver.taken
    other.offer_buffers(4)
    assert other.events() == DOWN_AND_UP[2:]
    other.mmio.close()


def test_a_reset_forgets_a_press_half_told(driver: Button) -> None:
    assert driver.button.press()
    driver.initialize()
    driver.offer_buffers(4)
    assert driver.events() == []


def test_a_status_event_is_taken_and_given_back(driver: Button) -> None:
    assert driver.request([(DATA, 8, 0)], STATUS)[1] == 0


@pytest.mark.parametrize(
    ("index", "buffers"),
    [(EVENTS, [(DATA, 8, 0)]), (EVENTS, [(DATA, 7, WRITE)]), (STATUS, [(DATA, 8, WRITE)])],
)
def test_a_buffer_of_the_wrong_kind_stops_the_device(driver: Button, index: int, buffers: list[Buffer]) -> None:
    queue = driver.queues[index]
    queue.offer(queue.chain(buffers))
    driver.notify(index)
    driver.button.press()
    assert driver.status & NEEDS_RESET


@pytest.mark.parametrize("wrong", [{"own_sent": 5}, {"own_select": 256}, {"own_subsel": -1}])
def test_a_saved_state_that_cannot_be_is_refused(driver: Button, memory: GuestMemory, wrong: dict[str, int]) -> None:
    state = driver.mmio.save() | wrong
    other = Button(memory)
    with pytest.raises(ValueError, match="saved field"):
        other.mmio.restore(state)
    other.mmio.close()
