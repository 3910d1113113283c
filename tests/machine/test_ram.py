from __future__ import annotations

import pytest

from celaje.engine.memory import OutOfGuestMemory
from celaje.machine.ram import Ram

BASE = 0x80000000


def test_without_tohost_there_is_one_slot() -> None:
    ram = Ram(BASE, 0x4000)
    assert [(slot.base, slot.size) for slot in ram.slots] == [(BASE, 0x4000)]
    ram.close()


@pytest.mark.parametrize(
    ("tohost", "slots"),
    [
        (BASE + 0x1008, [(BASE, 0x1000), (BASE + 0x2000, 0x2000)]),
        (BASE, [(BASE + 0x1000, 0x3000)]),
        (BASE + 0x3FF8, [(BASE, 0x3000)]),
    ],
)
def test_the_page_of_tohost_is_in_no_slot(tohost: int, slots: list[tuple[int, int]]) -> None:
    ram = Ram(BASE, 0x4000, tohost)
    assert [(slot.base, slot.size) for slot in ram.slots] == slots
    assert ram.page_base == tohost & -0x1000
    ram.close()


def test_reads_and_writes_go_over_the_seams() -> None:
    ram = Ram(BASE, 0x3000, BASE + 0x1000)
    data = bytes(index % 251 for index in range(0x2800))
    ram.write(BASE + 0x400, data)
    assert ram.read(BASE + 0x400, len(data)) == data
    assert ram.slots[0].read(BASE + 0x400, 0xC00) == data[:0xC00]
    assert bytes(ram.page) == data[0xC00:0x1C00]
    assert ram.slots[1].read(BASE + 0x2000, 0xC00) == data[0x1C00:]
    ram.close()


@pytest.mark.parametrize(("address", "length"), [(BASE - 1, 2), (BASE + 0x2FFF, 2), (0, 1), (BASE, 0x3001)])
def test_what_is_not_ram_is_refused(address: int, length: int) -> None:
    ram = Ram(BASE, 0x3000, BASE + 0x1000)
    assert not ram.contains(address, length)
    with pytest.raises(OutOfGuestMemory):
        ram.read(address, length)
    with pytest.raises(OutOfGuestMemory):
        ram.write(address, bytes(length))
    ram.close()
