from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celaje.engine.memory import GuestMemory
from celaje.machine.virtio.queue import Areas, Chain, MalformedQueue, Queue
from tests.machine.virtio.driver import BASE, INDIRECT, MEMORY_SIZE, NEXT, WRITE, DriverQueue

SIZE = 8
DATA = BASE + 0x8000


@pytest.fixture(scope="module")
def memory() -> Iterator[GuestMemory]:
    memory = GuestMemory(BASE, MEMORY_SIZE)
    yield memory
    memory.close()


class Pair:
    """Both ends of one queue."""

    def __init__(self, memory: GuestMemory, *, event_index: bool = False, indirect: bool = True) -> None:
        self.driver = DriverQueue(memory, BASE + 0x1000, SIZE)
        areas = Areas(SIZE, self.driver.descriptors, self.driver.available, self.driver.used)
        self.device = Queue(memory, areas, chain_limit=16, event_index=event_index, indirect=indirect)

    def refuses(self, *heads: int) -> None:
        self.driver.offer(*heads)
        with pytest.raises(MalformedQueue):
            self.device.pop()


@pytest.fixture
def pair(memory: GuestMemory) -> Iterator[Pair]:
    pair = Pair(memory)
    yield pair
    pair.device.release()


@pytest.fixture
def event_pair(memory: GuestMemory) -> Iterator[Pair]:
    pair = Pair(memory, event_index=True)
    yield pair
    pair.device.release()


def changed(chain: Chain) -> list[tuple[int, int]]:
    if isinstance(chain.changed, list):
        return chain.changed
    starts, sizes = chain.changed.ranges()
    return [(chain.changed.base + start, size) for start, size in zip(starts, sizes, strict=True)]


def lengths(windows: list[memoryview]) -> list[int]:
    return [len(window) for window in windows]


def test_an_empty_queue_has_nothing_to_take(pair: Pair) -> None:
    assert pair.device.pop() is None


def test_a_chain_comes_as_its_readable_and_writable_buffers(pair: Pair, memory: GuestMemory) -> None:
    memory.write(DATA, b"hello")
    head = pair.driver.chain([(DATA, 5, 0), (DATA + 16, 3, WRITE), (DATA + 32, 4, WRITE)])
    pair.driver.offer(head)
    chain = pair.device.pop()
    assert chain is not None
    assert [bytes(window) for window in chain.readable] == [b"hello"]
    assert lengths(chain.writable) == [3, 4]
    chain.writable[1][:] = b"back"
    pair.device.push(chain, 7)
    assert memory.read(DATA + 32, 4) == b"back"
    assert pair.driver.take_used() == [(head, 7)]
    assert pair.device.pop() is None


def test_buffers_of_no_length_are_left_out_wherever_they_point(pair: Pair) -> None:
    pair.driver.offer(pair.driver.chain([(0, 0, 0), (DATA, 5, 0), (1 << 63, 0, WRITE)]))
    chain = pair.device.pop()
    assert chain is not None
    assert (lengths(chain.readable), chain.writable) == ([5], [])


def test_indices_go_round_at_65536(memory: GuestMemory) -> None:
    driver = DriverQueue(memory, BASE + 0x1000, SIZE)
    driver.next_available = driver.seen_used = 0xFFFE
    memory.write(driver.available + 2, struct.pack("<H", 0xFFFE))
    memory.write(driver.used + 2, struct.pack("<H", 0xFFFE))
    areas = Areas(SIZE, driver.descriptors, driver.available, driver.used)
    device = Queue(memory, areas, chain_limit=16, taken=0xFFFE, given=0xFFFE)
    heads = [driver.chain([(DATA, 1, 0)]) for _ in range(5)]
    driver.offer(*heads)
    for chain in device.chains():
        device.push(chain, 0)
    assert [head for head, _ in driver.take_used()] == heads
    assert (device.taken, device.given) == (3, 3)
    device.release()


def test_a_written_buffer_and_the_used_ring_are_marked_dirty(pair: Pair, memory: GuestMemory) -> None:
    pair.driver.offer(pair.driver.chain([(DATA + 4000, 200, WRITE)]))
    chain = pair.device.pop()
    assert chain is not None
    memory.dirty[:] = bytes(len(memory.dirty))
    pair.device.push(chain, 200)
    assert {page for page, dirty in enumerate(memory.dirty) if dirty} == {1, 8, 9}


def test_a_chain_that_is_rewound_comes_again(pair: Pair) -> None:
    heads = [pair.driver.chain([(DATA, length, 0)]) for length in (1, 2)]
    pair.driver.offer(*heads)
    assert pair.device.pop() is not None
    pair.device.rewind()
    assert [chain.head for chain in pair.device.chains()] == heads


def test_an_indirect_table_is_followed_and_its_write_flag_ignored(pair: Pair) -> None:
    pair.driver.indirect(DATA, [(DATA + 0x400, 5, 0), (DATA + 0x500, 6, WRITE)])
    pair.driver.describe(0, DATA, 32, INDIRECT | WRITE)
    pair.driver.offer(0)
    chain = pair.device.pop()
    assert chain is not None
    assert (lengths(chain.readable), lengths(chain.writable)) == ([5], [6])


def test_an_indirect_table_may_follow_plain_descriptors(pair: Pair) -> None:
    pair.driver.indirect(DATA, [(DATA + 0x400, 5, WRITE)])
    pair.driver.describe(1, DATA, 16, INDIRECT)
    pair.driver.describe(2, DATA, 3, NEXT, 1)
    pair.driver.offer(2)
    chain = pair.device.pop()
    assert chain is not None
    assert (lengths(chain.readable), lengths(chain.writable)) == ([3], [5])


def test_a_chain_may_be_as_long_as_the_queue_and_an_indirect_one_as_the_device_allows(pair: Pair) -> None:
    pair.driver.offer(pair.driver.chain([(DATA, 1, 0)] * SIZE))
    chain = pair.device.pop()
    assert chain is not None
    assert len(chain.readable) == SIZE
    pair.driver.offer(pair.driver.indirect(DATA, [(DATA, 1, 0)] * 16))
    chain = pair.device.pop()
    assert chain is not None
    assert len(chain.readable) == 16


def test_a_loop_of_descriptors_is_refused(pair: Pair) -> None:
    pair.driver.describe(0, DATA, 1, NEXT, 1)
    pair.driver.describe(1, DATA, 1, NEXT, 0)
    pair.refuses(0)


@pytest.mark.parametrize("reads", [0, 1, 20, 39, 40])
@pytest.mark.parametrize("order", ["in order", "not in order"])
def test_a_long_indirect_table_gives_the_same_chain_in_whatever_order_it_is_written(
    memory: GuestMemory, reads: int, order: str
) -> None:
    driver = DriverQueue(memory, BASE + 0x1000, 64)
    areas = Areas(64, driver.descriptors, driver.available, driver.used)
    queue = Queue(memory, areas, chain_limit=64, indirect=True)
    buffers = [(BASE + 0x10000 + 64 * n, n + 1, 0 if n < reads else WRITE) for n in range(40)]
    driver.offer(driver.indirect(BASE + 0x8000, buffers))
    if order == "not in order":  # the second and the third descriptor change places
        second, third = memory.read(BASE + 0x8010, 14), memory.read(BASE + 0x8020, 14)
        memory.write(BASE + 0x8000 + 14, struct.pack("<H", 2))
        memory.write(BASE + 0x8010, third + struct.pack("<H", 3))
        memory.write(BASE + 0x8020, second + struct.pack("<H", 1))
    for number, (address, _, _) in enumerate(buffers):
        memory.write(address, bytes([number]))
    chain = queue.pop()
    assert chain is not None
    windows = [*chain.readable, *chain.writable]
    assert [(window[0], len(window)) for window in windows] == [(n, n + 1) for n in range(40)]
    assert len(chain.readable) == reads
    assert changed(chain) == [(address, length) for address, length, write in buffers if write]
    del chain, windows
    queue.release()


@pytest.mark.parametrize(
    ("number", "descriptor", "refused"),
    [
        (20, (BASE + 0x10000, 0, 1, 21), False),
        (20, (BASE - 1, 4, 1, 21), True),
        (20, (BASE + MEMORY_SIZE - 3, 4, 1, 21), True),
        (20, ((1 << 64) - 1, 4, 1, 21), True),
        (20, (BASE + 0x10000, 4, 3, 21), True),
        (20, (BASE + 0x10000, 4, 1, 20), True),
        (20, (BASE + 0x10000, 4, 1, 40), True),
        (39, (BASE + 0x10000, 4, 1, 0), True),
        (20, (BASE + 0x10000, 4, 5, 21), True),
    ],
)
def test_a_long_indirect_table_with_one_odd_descriptor_is_judged_like_a_short_one(
    memory: GuestMemory, number: int, descriptor: tuple[int, int, int, int], refused: bool
) -> None:
    driver = DriverQueue(memory, BASE + 0x1000, 64)
    areas = Areas(64, driver.descriptors, driver.available, driver.used)
    queue = Queue(memory, areas, chain_limit=64, indirect=True)
    driver.offer(driver.indirect(BASE + 0x8000, [(BASE + 0x10000 + n, 1, 0) for n in range(40)]))
    memory.write(BASE + 0x8000 + 16 * number, struct.pack("<QIHH", *descriptor))
    if refused:
        with pytest.raises(MalformedQueue):
            queue.pop()
    else:
        chain = queue.pop()
        assert chain is not None
        assert len(chain.readable) == 39
        del chain
    queue.release()


def test_a_loop_in_an_indirect_table_is_refused(pair: Pair, memory: GuestMemory) -> None:
    memory.write(DATA, struct.pack("<QIHH", DATA, 1, NEXT, 0))
    pair.driver.describe(0, DATA, 16, INDIRECT)
    pair.refuses(0)


def test_an_indirect_table_longer_than_the_device_allows_is_refused(pair: Pair) -> None:
    pair.refuses(pair.driver.indirect(DATA, [(DATA, 1, 0)] * 17))


def test_plain_and_indirect_descriptors_count_together(pair: Pair) -> None:
    pair.driver.indirect(DATA, [(DATA, 1, 0)] * 16)
    pair.driver.describe(1, DATA, 256, INDIRECT)
    pair.driver.describe(2, DATA, 1, NEXT, 1)
    pair.refuses(2)


@pytest.mark.parametrize("length", [0, 8, 17, 16 * 17, 0xFFFF_FFF0])
def test_an_indirect_table_of_a_wrong_length_is_refused(pair: Pair, length: int) -> None:
    pair.driver.describe(0, DATA, length, INDIRECT)
    pair.refuses(0)


def test_an_indirect_table_in_an_indirect_table_is_refused(pair: Pair, memory: GuestMemory) -> None:
    memory.write(DATA, struct.pack("<QIHH", DATA, 16, INDIRECT, 0))
    pair.driver.describe(0, DATA, 16, INDIRECT)
    pair.refuses(0)


def test_an_indirect_descriptor_that_goes_on_is_refused(pair: Pair) -> None:
    pair.driver.describe(0, DATA, 16, INDIRECT | NEXT, 1)
    pair.refuses(0)


def test_an_indirect_table_that_was_not_negotiated_is_refused(memory: GuestMemory) -> None:
    pair = Pair(memory, indirect=False)
    pair.refuses(pair.driver.indirect(DATA, [(DATA, 1, 0)]))
    pair.device.release()


def test_a_readable_buffer_after_a_writable_one_is_refused(pair: Pair) -> None:
    pair.refuses(pair.driver.chain([(DATA, 1, WRITE), (DATA, 1, 0)]))


def test_a_head_outside_the_table_is_refused(pair: Pair) -> None:
    pair.refuses(SIZE)


def test_a_next_outside_the_table_is_refused(pair: Pair) -> None:
    pair.driver.describe(0, DATA, 1, NEXT, SIZE)
    pair.refuses(0)


@pytest.mark.parametrize(
    ("address", "length"),
    [
        (0, 1),
        (BASE - 1, 2),
        (BASE + MEMORY_SIZE - 1, 2),
        (BASE + MEMORY_SIZE, 1),
        ((1 << 64) - 1, 2),
        (BASE, 0xFFFF_FFFF),
    ],
)
def test_a_buffer_outside_memory_is_refused(pair: Pair, address: int, length: int) -> None:
    pair.refuses(pair.driver.chain([(address, length, 0)]))


def test_an_available_index_too_far_ahead_is_refused(pair: Pair, memory: GuestMemory) -> None:
    memory.write(pair.driver.available + 2, struct.pack("<H", SIZE + 1))
    with pytest.raises(MalformedQueue):
        pair.device.pop()


def test_an_available_index_that_goes_back_is_refused(pair: Pair, memory: GuestMemory) -> None:
    memory.write(pair.driver.available + 2, struct.pack("<H", 0xFFFF))
    with pytest.raises(MalformedQueue):
        pair.device.pop()


@pytest.mark.parametrize("size", [0, 3, 12, 32, 0xFFFF_FFFF])
def test_a_size_that_is_no_power_of_two_or_too_large_is_refused(memory: GuestMemory, size: int) -> None:
    with pytest.raises(MalformedQueue):
        Queue(memory, Areas(size, BASE, BASE + 0x400, BASE + 0x800), chain_limit=16)


@pytest.mark.parametrize(
    ("descriptors", "available", "used"),
    [
        (BASE + 8, BASE + 0x400, BASE + 0x800),
        (BASE, BASE + 0x401, BASE + 0x800),
        (BASE, BASE + 0x400, BASE + 0x802),
        (BASE + MEMORY_SIZE - 16, BASE + 0x400, BASE + 0x800),
        (BASE, BASE + MEMORY_SIZE - 20, BASE + 0x800),
        (BASE, BASE + 0x400, BASE + MEMORY_SIZE - 68),
        (0, 0, 0),
        ((1 << 64) - 16, BASE + 0x400, BASE + 0x800),
    ],
)
def test_an_area_that_is_not_aligned_or_not_in_memory_is_refused(
    memory: GuestMemory, descriptors: int, available: int, used: int
) -> None:
    with pytest.raises(MalformedQueue):
        Queue(memory, Areas(SIZE, descriptors, available, used), chain_limit=16)


def serve(pair: Pair) -> bool:
    for chain in pair.device.chains():
        pair.device.push(chain, 0)
    return pair.device.interrupt_due()


def test_without_event_index_the_driver_turns_interrupts_off_with_a_flag(pair: Pair) -> None:
    pair.driver.offer(pair.driver.chain([(DATA, 1, 0)]))
    assert serve(pair)
    assert not pair.device.interrupt_due()
    pair.driver.set_no_interrupt(True)
    pair.driver.offer(pair.driver.chain([(DATA, 1, 0)]))
    assert not serve(pair)


def test_without_event_index_the_device_turns_notifications_off_while_it_is_at_work(pair: Pair) -> None:
    pair.driver.offer(pair.driver.chain([(DATA, 1, 0)]), pair.driver.chain([(DATA, 1, 0)]))
    assert [pair.driver.notifications_off for _ in pair.device.chains()] == [True, True]
    assert not pair.driver.notifications_off


def test_with_event_index_an_interrupt_comes_when_the_event_is_passed(event_pair: Pair) -> None:
    driver = event_pair.driver
    driver.set_used_event(2)  # when the third one comes back
    driver.offer(*(driver.chain([(DATA, 1, 0)]) for _ in range(2)))
    assert not serve(event_pair)
    driver.offer(*(driver.chain([(DATA, 1, 0)]) for _ in range(2)))
    assert serve(event_pair)
    driver.offer(driver.chain([(DATA, 1, 0)]))
    assert not serve(event_pair)


def test_with_event_index_the_device_asks_to_be_told_of_the_next_chain(event_pair: Pair) -> None:
    driver = event_pair.driver
    for expected in (1, 2, 3):
        driver.offer(driver.chain([(DATA, 1, 0)]))
        serve(event_pair)
        assert driver.available_event == expected
        assert not driver.notifications_off


def test_a_chain_that_comes_while_notifications_are_turned_on_is_seen(event_pair: Pair) -> None:
    assert event_pair.device.pop() is None
    event_pair.driver.offer(event_pair.driver.chain([(DATA, 1, 0)]))
    assert event_pair.device.rearm()
    assert event_pair.device.pop() is not None
    assert not event_pair.device.rearm()


ADDRESSES = st.one_of(
    st.integers(BASE, BASE + MEMORY_SIZE),
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([BASE - 1, BASE + MEMORY_SIZE - 1, (1 << 64) - 1, DATA, DATA + 16]),
)
LENGTHS = st.one_of(
    st.integers(0, 64), st.sampled_from([16, 32, 256, 512, MEMORY_SIZE, 0xFFFF_FFFF]), st.integers(0, 0xFFFF_FFFF)
)
DESCRIPTORS = st.builds(
    lambda address, length, flags, following: struct.pack("<QIHH", address, length, flags, following),
    ADDRESSES,
    LENGTHS,
    st.one_of(st.integers(0, 7), st.integers(0, 0xFFFF)),
    st.one_of(st.integers(0, SIZE), st.integers(0, 0xFFFF)),
)
RINGS = st.tuples(
    st.integers(0, 3),
    st.one_of(st.integers(0, SIZE), st.integers(0, 0xFFFF)),
    st.lists(st.integers(0, SIZE), min_size=SIZE, max_size=SIZE),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.lists(DESCRIPTORS, min_size=SIZE, max_size=SIZE),
    indirect=st.lists(DESCRIPTORS, max_size=20),
    ring=RINGS,
    event_index=st.booleans(),
)
def test_whatever_lies_in_the_areas_a_queue_gives_windows_inside_memory_or_refuses(
    memory: GuestMemory, table: list[bytes], indirect: list[bytes], ring: tuple[int, int, list[int]], event_index: bool
) -> None:
    pair = Pair(memory, event_index=event_index)
    memory.write(DATA, b"".join(indirect) or bytes(16))
    memory.write(pair.driver.descriptors, b"".join(table))
    flags, index, heads = ring
    memory.write(pair.driver.available, struct.pack(f"<HH{SIZE}H", flags, index, *heads))
    taken = 0
    try:
        for chain in pair.device.chains():
            taken += 1
            assert taken <= SIZE
            assert len(chain.readable) + len(chain.writable) <= SIZE + 16
            assert all(memory.contains(address, length) for address, length in changed(chain))
            assert all(window.nbytes for window in chain.readable + chain.writable)
            pair.device.push(chain, 0)
        pair.device.interrupt_due()
    except MalformedQueue:
        assert taken <= SIZE
    finally:
        pair.device.release()
