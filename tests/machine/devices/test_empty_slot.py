from __future__ import annotations

import pytest

from celaje.machine.devices.empty_slot import EmptySlot


def test_an_empty_slot_is_a_virtio_device_with_number_zero() -> None:
    slot = EmptySlot()
    slot.write(0x70, 4, 0xFF)
    assert [slot.read(offset, 4) for offset in (0, 4, 8, 0xC, 0x70, 0x100)] == [0x74726976, 2, 0, 0, 0, 0]


def test_an_empty_slot_keeps_nothing() -> None:
    slot = EmptySlot()
    slot.restore(slot.save())
    with pytest.raises(ValueError, match="status"):
        slot.restore({"status": 1})
