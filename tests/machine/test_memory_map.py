from __future__ import annotations

from collections.abc import Iterator

import pytest

from celaje.engine.memory import GuestMemory, OutOfGuestMemory
from celaje.machine.memory_map import MemoryMap

LOW, HIGH, SIZE = 0x1000, 0x8000_0000, 0x2000


@pytest.fixture
def slots() -> Iterator[list[GuestMemory]]:
    slots = [GuestMemory(HIGH, SIZE), GuestMemory(LOW, SIZE), GuestMemory(LOW + SIZE, SIZE)]
    yield slots
    for slot in slots:
        slot.close()


def test_each_access_reaches_the_slot_it_lies_in(slots: list[GuestMemory]) -> None:
    memory = MemoryMap(slots)
    memory.write(HIGH + 4, b"high")
    memory.write(LOW, b"low")
    window = memory.slice(LOW + SIZE, 4)
    window[:] = b"next"
    window.release()
    memory.mark_dirty(LOW + SIZE, 4)
    assert [slot.read(slot.base, 8)[:4] for slot in slots] == [bytes(4), b"low\0", b"next"]
    assert memory.read(HIGH + 4, 4) == b"high"
    assert [bytes(slot.dirty) for slot in slots] == [b"\1\0"] * 3


@pytest.mark.parametrize(
    ("address", "length"),
    [(0, 1), (LOW - 1, 2), (LOW + SIZE - 1, 2), (LOW + 2 * SIZE, 1), (HIGH - 1, 1), (HIGH + SIZE, 1), (1 << 64, 1)],
)
def test_an_access_outside_or_across_slots_is_refused(slots: list[GuestMemory], address: int, length: int) -> None:
    memory = MemoryMap(slots)
    assert not memory.contains(address, length)
    with pytest.raises(OutOfGuestMemory):
        memory.read(address, length)
    with pytest.raises(OutOfGuestMemory):
        memory.write(address, bytes(length))
    with pytest.raises(OutOfGuestMemory):
        memory.slice(address, length)
    with pytest.raises(OutOfGuestMemory):
        memory.mark_dirty(address, length)


def test_slots_that_overlap_are_refused(slots: list[GuestMemory]) -> None:
    other = GuestMemory(LOW + 0x1000, SIZE)
    with pytest.raises(ValueError, match="overlap"):
        MemoryMap([*slots, other])
    other.close()
