"""A slot: a window in which a device comes, and from which it leaves when its driver has let go of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celaje.engine.memory import GuestMemory
from celaje.machine.virtio.device import VirtioDevice
from celaje.machine.virtio.rng import VirtioRng
from celaje.machine.virtio.slot import VirtioSlot
from tests.machine.virtio.driver import BASE, WRITE, Driver, Line

DATA = BASE + 0x8000


class Slotted(Driver):
    """A driver whose window is a slot with a random number generator in it."""

    def __init__(self, memory: GuestMemory) -> None:
        self.gone: list[VirtioDevice] = []
        slot_line = Line()
        self.slot = VirtioSlot(memory, slot_line, self.gone.append)
        super().__init__(VirtioRng(lambda count: b"\xa5" * count), memory)
        self.line = slot_line
        self.mmio = self.slot  # type: ignore[assignment]  # read and write are all that a driver does with it
        self.slot.plug(self.device)

    def get_random(self) -> None:
        self.memory.write(DATA, bytes(8))
        assert self.request([(DATA, 8, WRITE)])[1] == 8
        assert self.memory.read(DATA, 8) == b"\xa5" * 8


@pytest.fixture
def slotted(memory: GuestMemory) -> Iterator[Slotted]:
    slotted = Slotted(memory)
    yield slotted
    slotted.slot.reset()


def test_an_empty_slot_can_be_recognised_and_a_device_in_it_works_as_anywhere(slotted: Slotted) -> None:
    empty = VirtioSlot(slotted.memory, Line(), slotted.gone.append)
    assert [empty.read(offset, 4) for offset in (0, 4, 8, 0x70)] == [0x74726976, 2, 0, 0]
    assert slotted.read(8) == 4
    slotted.initialize()
    slotted.get_random()
    with pytest.raises(ValueError, match="already"):
        slotted.slot.plug(VirtioRng())


def test_a_device_that_no_driver_has_leaves_at_once(slotted: Slotted) -> None:
    slotted.slot.unplug()
    assert slotted.gone == [slotted.device]
    assert slotted.read(8) == 0
    slotted.slot.unplug()
    assert len(slotted.gone) == 1


def test_a_device_that_is_driven_stays_until_its_driver_resets_it(slotted: Slotted) -> None:
    slotted.initialize()
    slotted.slot.unplug()
    slotted.get_random()
    assert slotted.gone == []
    slotted.write(0x70, 0)
    assert slotted.gone == [slotted.device]
    assert slotted.read(8) == 0
    other = VirtioRng()
    slotted.slot.plug(other)
    assert slotted.slot.window is not None
    assert slotted.slot.window.device is other


def test_a_reset_that_nobody_waits_for_takes_no_device_away(slotted: Slotted) -> None:
    slotted.initialize()
    slotted.write(0x70, 0)
    slotted.initialize()
    slotted.get_random()


def test_the_boards_reset_takes_a_leaving_device_away(slotted: Slotted) -> None:
    slotted.initialize()
    slotted.slot.unplug()
    slotted.slot.reset()
    assert slotted.gone == [slotted.device]
    assert not slotted.line.level


def test_a_restored_slot_goes_on_with_its_device(slotted: Slotted, memory: GuestMemory) -> None:
    slotted.initialize()
    slotted.get_random()
    saved = slotted.slot.save()
    other = Slotted(memory)
    other.queues = slotted.queues
    other.slot.restore(saved)
    other.get_random()
    other.slot.reset()


def test_what_was_in_a_slot_must_be_there_again(slotted: Slotted, memory: GuestMemory) -> None:
    empty = VirtioSlot(memory, Line(), slotted.gone.append)
    assert empty.save() == {"plugged": 0}
    empty.restore({"plugged": 0})
    with pytest.raises(ValueError, match="a slot is empty, and was not"):
        empty.restore(slotted.slot.save())
    with pytest.raises(ValueError, match="a slot is taken, and was not"):
        slotted.slot.restore({"plugged": 0})
    with pytest.raises(ValueError, match="no state"):
        empty.restore({"plugged": 0, "status": 4})


ACCESSES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(range(0, 0x110, 4)), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64 - 1)),
        st.tuples(st.sampled_from([0x70, 0x44, 0x38, 0x50, 0x80, 0x90, 0xA0]), st.just(4), st.integers(0, 16)),
        st.sampled_from(["plug", "unplug"]),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(accesses=ACCESSES)
def test_no_access_breaks_a_slot_whatever_comes_and_goes(
    memory: GuestMemory, accesses: list[str | tuple[int, int, int]]
) -> None:
    gone: list[VirtioDevice] = []
    slot = VirtioSlot(memory, Line(), gone.append)
    for access in accesses:
        if access == "plug":
            if slot.window is None:
                slot.plug(VirtioRng())
        elif access == "unplug":
            slot.unplug()
        else:
            offset, size, value = access
            slot.read(offset, size)
            slot.write(offset, size, value & (1 << 8 * size) - 1)
    slot.unplug()
    slot.reset()
    assert slot.window is None
