from __future__ import annotations

import pytest

from celaje.machine.bus import AccessRefused
from celaje.machine.devices.aclint import Aclint
from tests.engine.fake import FakeEngine


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine([], [])


@pytest.fixture
def aclint(engine: FakeEngine) -> Aclint:
    return Aclint(engine, [lambda level, hart=hart: hart.set_line(3, level) for hart in engine.scripted])


def test_msip_drives_the_harts_software_interrupt_with_its_lowest_bit(aclint: Aclint, engine: FakeEngine) -> None:
    aclint.write(4, 4, 0xFFFFFFFF)
    assert aclint.read(4, 4) == 1
    assert aclint.read(0, 4) == 0
    assert [hart.lines[3] for hart in engine.scripted] == [False, True]
    aclint.write(4, 4, 0xFFFFFFFE)
    assert engine.scripted[1].lines[3] is False


def test_no_timer_interrupt_is_due_before_the_guest_asks_for_one(aclint: Aclint, engine: FakeEngine) -> None:
    assert aclint.read(0x4000, 8) == (1 << 64) - 1
    assert engine.scripted[0].get("mtimecmp") == (1 << 64) - 1


def test_mtimecmp_goes_to_the_hart(aclint: Aclint, engine: FakeEngine) -> None:
    aclint.write(0x4008, 8, 0x1122334455667788)
    assert engine.scripted[1].get("mtimecmp") == 0x1122334455667788
    assert aclint.read(0x4008, 8) == 0x1122334455667788


def test_mtimecmp_is_written_by_halves(aclint: Aclint, engine: FakeEngine) -> None:
    aclint.write(0x4004, 4, 0xFFFFFFFF)
    aclint.write(0x4000, 4, 0x89ABCDEF)
    aclint.write(0x4004, 4, 0x1234567)
    assert engine.scripted[0].get("mtimecmp") == 0x0123456789ABCDEF
    assert (aclint.read(0x4000, 4), aclint.read(0x4004, 4)) == (0x89ABCDEF, 0x1234567)


def test_mtime_is_the_engines_clock_whole_and_by_halves(aclint: Aclint, engine: FakeEngine) -> None:
    engine.ticks = 0x1_0000_0005
    assert aclint.read(0xBFF8, 8) == 0x1_0000_0005
    assert (aclint.read(0xBFF8, 4), aclint.read(0xBFFC, 4)) == (5, 1)
    aclint.write(0xBFFC, 4, 2)
    assert engine.ticks == 0x2_0000_0005
    aclint.write(0xBFF8, 8, 77)
    assert engine.ticks == 77


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 2), (2, 4), (0x4004, 8), (0xBFFC, 8)])
def test_other_accesses_are_refused(aclint: Aclint, offset: int, size: int) -> None:
    with pytest.raises(AccessRefused):
        aclint.read(offset, size)
    with pytest.raises(AccessRefused):
        aclint.write(offset, size, 0)


def test_registers_of_harts_that_are_not_there_read_as_zero(aclint: Aclint) -> None:
    for offset in (8, 0x3FFC, 0x4010, 0xBFF0, 0xC000):
        aclint.write(offset, 4, 1)
        assert aclint.read(offset, 4) == 0


def test_a_restored_aclint_drives_its_harts_as_the_saved_one(aclint: Aclint, engine: FakeEngine) -> None:
    engine.ticks = 1000
    aclint.write(0, 4, 1)
    aclint.write(0x4008, 8, 2000)
    other_engine = FakeEngine([], [])
    other = Aclint(other_engine, [lambda level, hart=hart: hart.set_line(3, level) for hart in other_engine.scripted])
    other.restore(aclint.save())
    assert other.save() == aclint.save()
    assert other_engine.ticks == 1000
    assert other_engine.scripted[0].lines[3] is True
    assert other_engine.scripted[1].get("mtimecmp") == 2000


def test_a_state_for_another_number_of_harts_is_refused(aclint: Aclint) -> None:
    with pytest.raises(ValueError, match="1 harts"):
        aclint.restore({"msip": [0], "mtimecmp": [0], "mtime": 0})
