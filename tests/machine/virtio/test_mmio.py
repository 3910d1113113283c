from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celaje.engine.memory import GuestMemory
from celaje.machine.bus import Bus
from celaje.machine.console import BufferConsole
from celaje.machine.memory_map import MemoryMap
from celaje.machine.virtio.console import VirtioConsole
from celaje.machine.virtio.device import FEATURE_RING_INDIRECT, FEATURE_RING_RESET, FEATURE_VERSION_1
from celaje.machine.virtio.mmio import VirtioMmio
from celaje.machine.virtio.rng import VirtioRng
from tests.machine.virtio.driver import BASE, MEMORY_SIZE, PATIENCE, WRITE, Driver, DriverQueue

ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 64, 128
DATA = BASE + 0x8000


@pytest.fixture
def rng(memory: GuestMemory) -> Iterator[Driver]:
    driver = Driver(VirtioRng(lambda count: b"\xa5" * count), memory)
    yield driver
    driver.mmio.close()


@pytest.fixture
def console(memory: GuestMemory) -> Iterator[Driver]:
    driver = Driver(VirtioConsole(BufferConsole(), terminal_size=(80, 25)), memory)
    yield driver
    driver.mmio.close()


def get_random(driver: Driver) -> None:
    driver.memory.write(DATA, bytes(8))
    assert driver.request([(DATA, 8, WRITE)])[1] == 8
    assert driver.memory.read(DATA, 8) == b"\xa5" * 8


def test_the_identity_registers_say_what_a_driver_looks_for(rng: Driver) -> None:
    assert rng.read(0x00) == 0x74726976
    assert rng.read(0x04) == 2
    assert rng.read(0x08) == 4
    assert rng.read(0x0C) == 0x554D4551
    assert rng.mmio.size == 0x1000


def test_features_are_read_32_bits_at_a_time_and_are_zero_beyond_64(rng: Driver) -> None:
    assert rng.offered() == FEATURE_VERSION_1 | FEATURE_RING_RESET | 0x3000_0000
    rng.write(0x14, 2)
    assert rng.read(0x10) == 0
    rng.write(0x14, 0xFFFF_FFFF)
    assert rng.read(0x10) == 0


def test_a_driver_that_takes_no_more_than_is_offered_gets_features_ok(rng: Driver) -> None:
    assert rng.begin(FEATURE_VERSION_1 | FEATURE_RING_INDIRECT)
    assert rng.status == ACKNOWLEDGE | DRIVER | FEATURES_OK


@pytest.mark.parametrize("bit", [0, 5, 24, 33, 35, 63])
def test_a_feature_that_was_not_offered_is_refused_at_features_ok(rng: Driver, bit: int) -> None:
    assert not rng.begin(FEATURE_VERSION_1 | 1 << bit)
    assert rng.status == ACKNOWLEDGE | DRIVER
    rng.ready()
    assert rng.status == ACKNOWLEDGE | DRIVER, "DRIVER_OK has no meaning without FEATURES_OK"


def test_a_feature_beyond_bit_63_is_refused(rng: Driver) -> None:
    rng.write(0x70, ACKNOWLEDGE)
    rng.write(0x70, ACKNOWLEDGE | DRIVER)
    rng.write(0x24, 2)
    rng.write(0x20, 1)
    rng.write(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK)
    assert rng.status == ACKNOWLEDGE | DRIVER


def test_a_refused_driver_may_ask_for_less(rng: Driver) -> None:
    assert not rng.begin(FEATURE_VERSION_1 | 1)
    rng.accept(FEATURE_VERSION_1)
    rng.write(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK)
    assert rng.status & FEATURES_OK


def test_features_are_frozen_after_features_ok(rng: Driver) -> None:
    assert rng.begin(FEATURE_VERSION_1)
    rng.accept(FEATURE_VERSION_1 | FEATURE_RING_INDIRECT)
    rng.place_queue(0, queue := DriverQueue(rng.memory, BASE + 0x1000, 16))
    rng.ready()
    queue.offer(queue.indirect(BASE + 0x4000, [(DATA, 8, WRITE)]))
    rng.notify()
    assert rng.status & NEEDS_RESET


def test_a_driver_that_reads_only_the_low_features_is_served(rng: Driver) -> None:
    rng.initialize(transport=0)
    get_random(rng)


def test_the_driver_cannot_clear_or_invent_status_bits(rng: Driver) -> None:
    rng.initialize()
    rng.write(0x70, ACKNOWLEDGE)
    assert rng.status == ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK
    rng.write(0x70, 0xFFFF_FFFF)
    assert rng.status == ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED


def test_a_status_of_zero_resets_everything(rng: Driver) -> None:
    rng.initialize()
    get_random(rng)
    rng.queues[0].offer(rng.queues[0].chain([(DATA, 8, WRITE)]))
    rng.notify()
    assert rng.line.level
    rng.write(0x70, 0)
    assert (rng.status, rng.read(0x60), rng.line.level) == (0, 0, False)
    rng.write(0x30, 0)
    assert rng.read(0x44) == 0
    rng.initialize()
    get_random(rng)


def test_queue_size_max_is_zero_for_a_queue_that_is_not_there(rng: Driver) -> None:
    assert rng.read(0x34) == 64
    rng.write(0x30, 1)
    assert (rng.read(0x34), rng.read(0x44)) == (0, 0)
    rng.write(0x38, 8)
    rng.write(0x44, 1)
    rng.write(0x30, 0xFFFF_FFFF)
    assert (rng.read(0x34), rng.read(0x44)) == (0, 0)


def test_a_ready_queue_does_not_move(rng: Driver) -> None:
    rng.initialize()
    for register in (0x38, 0x80, 0x84, 0x90, 0x94, 0xA0, 0xA4):
        rng.write(register, 4)
    state = rng.mmio.save()
    queue = rng.queues[0]
    assert (state["queue_size"], state["queue_descriptors"], state["queue_used"]) == (
        [16],
        [queue.descriptors],
        [queue.used],
    )


def test_queue_ready_can_be_taken_back_and_given_again(rng: Driver) -> None:
    rng.initialize()
    get_random(rng)
    rng.write(0x44, 0)
    assert rng.read(0x44) == 0
    old = rng.queues[0]
    old.offer(old.chain([(DATA, 8, WRITE)]))
    rng.notify()
    assert old.take_used() == [], "a queue that is not ready is not touched"
    rng.queues[0] = DriverQueue(rng.memory, BASE + 0x2000, 8)
    rng.place_queue(0, rng.queues[0])
    get_random(rng)


def test_queue_reset_stops_one_queue_where_it_was_negotiated(rng: Driver) -> None:
    rng.initialize(transport=Driver.FEATURES | FEATURE_RING_RESET)
    get_random(rng)
    rng.write(0xC0, 1)
    assert (rng.read(0xC0), rng.read(0x44)) == (0, 0)
    rng.queues[0] = DriverQueue(rng.memory, BASE + 0x2000, 8)
    rng.place_queue(0, rng.queues[0])
    get_random(rng)


def test_queue_reset_does_nothing_where_it_was_not_negotiated(rng: Driver) -> None:
    rng.initialize()
    rng.write(0xC0, 1)
    assert rng.read(0x44) == 1


def test_a_notification_before_driver_ok_touches_no_memory(rng: Driver) -> None:
    rng.begin(Driver.FEATURES)
    queue = DriverQueue(rng.memory, BASE + 0x1000, 16)
    rng.place_queue(0, queue)
    queue.offer(queue.chain([(DATA, 8, WRITE)]))
    rng.notify()
    assert queue.take_used() == []
    rng.ready()
    assert queue.take_used() == [(0, 8)]


def test_a_notification_of_a_queue_that_is_not_there_is_ignored(rng: Driver) -> None:
    rng.initialize()
    rng.notify(1)
    rng.notify(0xFFFF_FFFF)
    rng.mmio.write(0x50, 2, 0)
    get_random(rng)


def test_an_interrupt_is_a_level_until_it_is_acknowledged(rng: Driver) -> None:
    rng.initialize()
    queue = rng.queues[0]
    queue.offer(queue.chain([(DATA, 8, WRITE)]))
    rng.notify()
    assert (rng.read(0x60), rng.line.level) == (1, True)
    rng.write(0x64, 2)
    assert rng.line.level, "acknowledging another cause leaves this one"
    assert rng.acknowledge() == 1
    assert (rng.read(0x60), rng.line.level) == (0, False)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_control_registers_take_whole_words_only(rng: Driver, size: int) -> None:
    for offset in range(0, 0x100, size):
        assert rng.mmio.read(offset, size) == 0
    rng.mmio.write(0x70, size, 1)
    assert rng.status == 0
    assert rng.mmio.read(0x71, 4) == 0
    rng.mmio.write(0x6E, 4, 1)
    assert rng.status == 0


def test_registers_that_are_only_written_read_zero(rng: Driver) -> None:
    rng.initialize()
    for offset in (0x14, 0x20, 0x24, 0x30, 0x38, 0x50, 0x64, 0x80, 0x84, 0x90, 0x94, 0xA0, 0xA4, 0xAC, 0x18, 0xF8):
        assert rng.read(offset) == 0


def test_there_is_no_shared_memory(rng: Driver) -> None:
    rng.write(0xAC, 0)
    assert [rng.read(offset) for offset in (0xB0, 0xB4, 0xB8, 0xBC)] == [0xFFFF_FFFF] * 4


def test_configuration_is_read_in_any_width_and_zero_beyond_its_end(console: Driver) -> None:
    assert console.mmio.read(0x100, 2) == 80
    assert console.mmio.read(0x102, 2) == 25
    assert console.mmio.read(0x100, 4) == 25 << 16 | 80
    assert console.mmio.read(0x100, 8) == 1 << 32 | 25 << 16 | 80
    assert console.mmio.read(0x101, 1) == 0
    assert console.mmio.read(0x108, 8) == 0
    assert console.mmio.read(0xFF8, 8) == 0


def test_a_changed_configuration_is_told_with_an_interrupt_and_a_new_generation(console: Driver) -> None:
    generation = console.read(0xFC)
    assert isinstance(console.device, VirtioConsole)
    console.device.resize(100, 50)
    assert not console.line.level, "a device without a driver interrupts nobody"
    console.initialize()
    console.device.resize(132, 43)
    assert console.line.level
    assert console.acknowledge() == 2
    assert console.read(0xFC) == generation + 2
    assert console.mmio.read(0x100, 4) == 43 << 16 | 132


@pytest.mark.parametrize(
    ("size", "descriptors", "available", "used"),
    [
        (0, BASE, BASE, BASE),
        (12, BASE, BASE, BASE),
        (128, BASE, BASE, BASE),
        (16, 8, BASE, BASE),
        (16, BASE, BASE, 1 << 40),
    ],
)
def test_a_queue_that_cannot_be_makes_the_device_need_a_reset(
    rng: Driver, size: int, descriptors: int, available: int, used: int
) -> None:
    rng.begin(Driver.FEATURES)
    rng.write(0x38, size)
    for register, address in ((0x80, descriptors), (0x90, available), (0xA0, used)):
        rng.write(register, address & 0xFFFF_FFFF)
        rng.write(register + 4, address >> 32)
    rng.write(0x44, 1)
    assert not rng.status & NEEDS_RESET, "nothing is looked at before DRIVER_OK"
    rng.ready()
    assert rng.status & NEEDS_RESET
    assert rng.acknowledge() == 2
    assert rng.mmio.failure
    rng.initialize()
    get_random(rng)


def test_a_broken_queue_stops_the_device_until_it_is_reset(rng: Driver) -> None:
    rng.initialize()
    queue = rng.queues[0]
    queue.offer(queue.chain([(0x1000, 8, WRITE)]))
    rng.notify()
    assert rng.status == ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | NEEDS_RESET
    assert rng.acknowledge() == 2
    queue.offer(queue.chain([(DATA, 8, WRITE)]))
    rng.notify()
    rng.write(0x44, 0)
    rng.write(0x44, 1)
    rng.notify()
    assert queue.take_used() == []
    assert rng.status & NEEDS_RESET
    rng.initialize()
    assert rng.mmio.failure is None
    get_random(rng)


def test_a_paused_device_is_at_rest_and_loses_nothing(rng: Driver) -> None:
    rng.initialize()
    queue = rng.queues[0]
    rng.mmio.pause()
    rng.mmio.pause()
    queue.offer(queue.chain([(DATA, 8, WRITE)]))
    rng.notify()
    rng.mmio.resume()
    assert queue.take_used() == []
    rng.mmio.resume()
    assert queue.take_used() == [(0, 8)]
    with pytest.raises(ValueError, match="without pause"):
        rng.mmio.resume()


def test_a_restored_device_goes_on_where_the_saved_one_stood(rng: Driver, memory: GuestMemory) -> None:
    rng.initialize()
    for _ in range(3):
        get_random(rng)
    queue = rng.queues[0]
    queue.offer(queue.chain([(DATA, 8, WRITE)]))
    rng.notify()
    rng.mmio.pause()
    queue.offer(queue.chain([(DATA, 8, WRITE)]))
    state = rng.mmio.save()

    other = Driver(VirtioRng(lambda count: b"\xa5" * count), memory)
    other.queues = rng.queues
    other.mmio.restore(state)
    assert other.line.level, "an interrupt that was not acknowledged is still there"
    assert other.status == rng.status
    assert len(other.complete(count=2)) == 2, "what was queued but not yet done is done after the restore"
    get_random(other)
    other.mmio.close()


def test_a_state_that_is_not_this_devices_is_refused_and_leaves_it_reset(rng: Driver) -> None:
    rng.initialize()
    good = rng.mmio.save()
    bad = [
        {**good, "version": 2},
        {**good, "device_id": 2},
        {**good, "queue_size": []},
        {**good, "queue_size": [7]},
        {**good, "queue_used": [0]},
        {**good, "queue_taken": [1 << 16]},
        {**good, "driver_features": 1},
        {**good, "interrupt_status": 4},
        {**good, "status": "15"},
        {**good, "own_thing": 1},
        {**good, "thing": 1},
        {name: value for name, value in good.items() if name != "status"},
    ]
    for state in bad:
        with pytest.raises(ValueError):
            rng.mmio.restore(state)
    rng.initialize()
    get_random(rng)


def test_two_harts_that_notify_and_reset_at_once_neither_deadlock_nor_break_the_device(rng: Driver) -> None:
    def notify() -> None:
        for _ in range(2000):
            rng.notify()
            rng.acknowledge()

    harts = [threading.Thread(target=notify) for _ in range(2)]
    for hart in harts:
        hart.start()
    for _ in range(100):
        rng.initialize()
        rng.queues[0].offer(*[rng.queues[0].chain([(DATA, 8, WRITE)]) for _ in range(4)])
    for hart in harts:
        hart.join(PATIENCE)
        assert not hart.is_alive()
    rng.initialize()
    get_random(rng)


ACCESSES = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from([0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64, 0x70, 0xC0]),
            st.integers(0, 0x110),
            st.integers(0, 0xFF8),
        ),
        st.sampled_from([4, 4, 4, 1, 2, 8]),
        st.one_of(st.integers(0, 16), st.sampled_from([BASE, BASE + 0x100, 0xFF, 0x30]), st.integers(0, (1 << 64) - 1)),
    ),
    max_size=60,
)


@pytest.mark.parametrize("kind", ["rng", "console"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(accesses=ACCESSES, contents=st.binary(min_size=64, max_size=512))
def test_no_sequence_of_accesses_breaks_a_device(
    memory: GuestMemory, kind: str, accesses: list[tuple[int, int, int]], contents: bytes
) -> None:
    driver = Driver(VirtioRng() if kind == "rng" else VirtioConsole(BufferConsole()), memory)
    memory.write(BASE, contents * (0x4000 // len(contents)))
    for offset, size, value in accesses:
        driver.mmio.write(offset, size, value & (1 << 8 * size) - 1)
        assert 0 <= driver.mmio.read(offset, size) < 1 << 8 * size
    assert driver.line.level == bool(driver.read(0x60))
    driver.initialize(size=8)
    assert driver.status == ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK
    driver.mmio.close()


def test_the_window_lets_go_of_memory_when_it_is_closed() -> None:
    memory = GuestMemory(BASE, MEMORY_SIZE)
    mmio = VirtioMmio(VirtioRng(), memory, lambda level: None)
    mmio.close()
    memory.close()


def test_a_machine_of_two_memory_slots_is_one_address_space_and_no_buffer_crosses_them() -> None:
    low, high = GuestMemory(BASE, MEMORY_SIZE), GuestMemory(BASE + MEMORY_SIZE, MEMORY_SIZE)
    driver = Driver(VirtioRng(lambda count: b"\xa5" * count), low)
    driver.mmio = VirtioMmio(driver.device, MemoryMap([low, high]), driver.line)
    driver.initialize()
    driver.request([(BASE + MEMORY_SIZE - 4, 4, WRITE), (BASE + MEMORY_SIZE, 4, WRITE)])
    assert low.read(BASE + MEMORY_SIZE - 4, 4) + high.read(BASE + MEMORY_SIZE, 4) == b"\xa5" * 8
    driver.queues[0].offer(driver.queues[0].chain([(BASE + MEMORY_SIZE - 4, 8, WRITE)]))
    driver.notify()
    assert driver.status & NEEDS_RESET
    driver.mmio.close()
    low.close()
    high.close()


def test_the_window_is_a_device_of_the_bus(rng: Driver) -> None:
    bus = Bus()
    bus.add(0x1000_1000, rng.mmio)
    rng.initialize()
    bus.reset()
    assert rng.status == 0
