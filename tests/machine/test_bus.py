from __future__ import annotations

import pytest

from celaje.engine.protocol import MmioRead, MmioWrite
from celaje.machine.bus import AccessRefused, Bus, SavedState
from tests.engine.fake import FakeHart


class Registers:
    """A device that remembers what was done to it and takes 32-bit accesses only."""

    size = 0x1800

    def __init__(self) -> None:
        self.seen: list[tuple[int, int] | tuple[int, int, int]] = []
        self.resets = 0

    def read(self, offset: int, size: int) -> int:
        if size != 4:
            raise AccessRefused
        self.seen.append((offset, size))
        return 0x1234

    def write(self, offset: int, size: int, value: int) -> None:
        if size != 4:
            raise AccessRefused
        self.seen.append((offset, size, value))

    def reset(self) -> None:
        self.resets += 1

    def save(self) -> SavedState:
        return {}

    def restore(self, state: SavedState) -> None:
        raise ValueError(state)


@pytest.fixture
def device() -> Registers:
    return Registers()


@pytest.fixture
def bus(device: Registers) -> Bus:
    bus = Bus()
    bus.add(0x10000, device)
    return bus


@pytest.fixture
def hart() -> FakeHart:
    return FakeHart(0, [])


def test_a_load_and_a_store_reach_the_device_at_their_offset(bus: Bus, device: Registers, hart: FakeHart) -> None:
    bus.read(hart, MmioRead(0x10008, 4))
    bus.write(hart, MmioWrite(0x11010, 4, 7))
    assert hart.answers == [0x1234]
    assert device.seen == [(8, 4), (0x1010, 4, 7)]


@pytest.mark.parametrize("address", [0, 0x0FFFC, 0x11800, 0x12000, (1 << 64) - 4])
def test_an_access_to_nothing_is_an_access_fault(bus: Bus, device: Registers, hart: FakeHart, address: int) -> None:
    bus.read(hart, MmioRead(address, 4))
    bus.write(hart, MmioWrite(address, 4, 1))
    assert hart.answers == [None, None]
    assert device.seen == []


def test_an_access_over_the_devices_end_is_an_access_fault(bus: Bus, device: Registers, hart: FakeHart) -> None:
    bus.read(hart, MmioRead(0x117FE, 4))
    assert hart.answers == [None]
    assert device.seen == []


def test_a_size_that_the_device_refuses_is_an_access_fault(bus: Bus, hart: FakeHart) -> None:
    bus.read(hart, MmioRead(0x10000, 8))
    bus.write(hart, MmioWrite(0x10000, 1, 0))
    assert hart.answers == [None, None]


def test_a_store_that_is_taken_answers_nothing(bus: Bus, hart: FakeHart) -> None:
    bus.write(hart, MmioWrite(0x10000, 4, 0))
    assert hart.answers == []


def test_two_devices_cannot_share_a_page(bus: Bus) -> None:
    with pytest.raises(ValueError, match="two devices at 0x11000"):
        bus.add(0x11000, Registers())


def test_a_device_starts_on_a_page() -> None:
    with pytest.raises(ValueError, match="0x10010"):
        Bus().add(0x10010, Registers())


def test_a_reset_reaches_every_device(bus: Bus, device: Registers) -> None:
    other = Registers()
    bus.add(0x20000, other)
    bus.reset()
    assert (device.resets, other.resets) == (1, 1)
