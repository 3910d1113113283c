from __future__ import annotations

import pytest

from celaje.machine.bus import AccessRefused
from celaje.machine.devices.plic import Plic

MACHINE, SUPERVISOR = 0, 1  # contexts of hart 0


class Wired:
    """A PLIC with 95 sources and two contexts, and what its outputs show."""

    def __init__(self) -> None:
        self.outputs = [False, False]
        self.changes = 0
        self.plic = Plic(95, [self.output(0), self.output(1)])

    def output(self, context: int):  # type: ignore[no-untyped-def]  # a closure of one line
        def drive(level: bool) -> None:
            self.outputs[context] = level
            self.changes += 1

        return drive

    def priority(self, source: int, priority: int) -> None:
        self.plic.write(4 * source, 4, priority)

    def enable(self, context: int, *sources: int) -> None:
        for word in range(3):
            bits = sum(1 << source % 32 for source in sources if source // 32 == word)
            self.plic.write(0x2000 + 0x80 * context + 4 * word, 4, bits)

    def threshold(self, context: int, threshold: int) -> None:
        self.plic.write(0x200000 + 0x1000 * context, 4, threshold)

    def claim(self, context: int) -> int:
        return self.plic.read(0x200004 + 0x1000 * context, 4)

    def complete(self, context: int, source: int) -> None:
        self.plic.write(0x200004 + 0x1000 * context, 4, source)

    def pending(self, source: int) -> bool:
        return bool(self.plic.read(0x1000 + 4 * (source // 32), 4) >> source % 32 & 1)


@pytest.fixture
def wired() -> Wired:
    return Wired()


def test_an_enabled_source_interrupts_its_context_until_it_is_claimed(wired: Wired) -> None:
    wired.priority(10, 1)
    wired.enable(SUPERVISOR, 10)
    wired.plic.set_level(10, True)
    assert wired.outputs == [False, True]
    assert wired.claim(SUPERVISOR) == 10
    assert wired.outputs == [False, False]
    assert wired.claim(SUPERVISOR) == 0


def test_a_level_that_stays_interrupts_again_after_completion_only(wired: Wired) -> None:
    wired.priority(10, 1)
    wired.enable(SUPERVISOR, 10)
    wired.plic.set_level(10, True)
    wired.claim(SUPERVISOR)
    wired.plic.set_level(10, True)
    assert not wired.pending(10)
    wired.complete(SUPERVISOR, 10)
    assert wired.pending(10)
    assert wired.outputs[SUPERVISOR]


def test_a_level_that_went_away_before_completion_does_not_interrupt_again(wired: Wired) -> None:
    wired.priority(10, 1)
    wired.enable(SUPERVISOR, 10)
    wired.plic.set_level(10, True)
    wired.claim(SUPERVISOR)
    wired.plic.set_level(10, False)
    wired.complete(SUPERVISOR, 10)
    assert not wired.pending(10)
    assert not wired.outputs[SUPERVISOR]


def test_a_request_that_was_passed_on_stays_when_the_level_goes(wired: Wired) -> None:
    wired.plic.set_level(40, True)
    wired.plic.set_level(40, False)
    assert wired.pending(40)


def test_the_highest_priority_comes_first_and_of_equals_the_lowest_number(wired: Wired) -> None:
    for source, priority in ((3, 2), (33, 5), (64, 5), (95, 1)):
        wired.priority(source, priority)
        wired.plic.set_level(source, True)
    wired.enable(MACHINE, 3, 33, 64, 95)
    assert [wired.claim(MACHINE) for _ in range(5)] == [33, 64, 3, 95, 0]


def test_the_threshold_masks_priorities_up_to_itself(wired: Wired) -> None:
    wired.priority(5, 3)
    wired.enable(MACHINE, 5)
    wired.threshold(MACHINE, 3)
    wired.plic.set_level(5, True)
    assert not wired.outputs[MACHINE]
    wired.threshold(MACHINE, 2)
    assert wired.outputs[MACHINE]


def test_a_claim_does_not_look_at_the_threshold(wired: Wired) -> None:
    wired.priority(5, 3)
    wired.enable(MACHINE, 5)
    wired.threshold(MACHINE, 7)
    wired.plic.set_level(5, True)
    assert wired.claim(MACHINE) == 5


def test_priority_zero_never_interrupts(wired: Wired) -> None:
    wired.enable(MACHINE, 5)
    wired.plic.set_level(5, True)
    assert not wired.outputs[MACHINE]
    assert wired.claim(MACHINE) == 0


def test_a_completion_by_a_context_that_does_not_enable_the_source_is_ignored(wired: Wired) -> None:
    wired.priority(5, 1)
    wired.enable(MACHINE, 5)
    wired.plic.set_level(5, True)
    wired.claim(MACHINE)
    wired.complete(SUPERVISOR, 5)
    assert not wired.pending(5)
    wired.complete(MACHINE, 5)
    assert wired.pending(5)


def test_completing_what_does_not_exist_changes_nothing(wired: Wired) -> None:
    before = wired.plic.save()
    for source in (0, 96, 0xFFFFFFFF):
        wired.complete(MACHINE, source)
    assert wired.plic.save() == before


def test_registers_keep_only_the_bits_they_have(wired: Wired) -> None:
    wired.priority(7, 0xFFFFFFFF)
    wired.threshold(SUPERVISOR, 0xFFFFFFFF)
    wired.plic.write(0x2000, 4, 0xFFFFFFFF)
    wired.plic.write(0, 4, 7)
    assert wired.plic.read(4 * 7, 4) == 7
    assert wired.plic.read(0x201000, 4) == 7
    assert wired.plic.read(0x2000, 4) == 0xFFFFFFFE
    assert wired.plic.read(0, 4) == 0


def test_pending_bits_cannot_be_written(wired: Wired) -> None:
    wired.plic.write(0x1000, 4, 0xFFFFFFFF)
    assert wired.plic.read(0x1000, 4) == 0


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 2), (0, 8), (2, 4), (0x200004, 8)])
def test_only_whole_registers_are_accessed(wired: Wired, offset: int, size: int) -> None:
    with pytest.raises(AccessRefused):
        wired.plic.read(offset, size)
    with pytest.raises(AccessRefused):
        wired.plic.write(offset, size, 0)


def test_offsets_without_a_register_read_as_zero(wired: Wired) -> None:
    for offset in (0x0FFC, 0x1FFC, 0x2000 + 0x80 * 2, 0x200008, 0x202000, 0x5FFFFC):
        wired.plic.write(offset, 4, 0xFFFFFFFF)
        assert wired.plic.read(offset, 4) == 0


def test_a_restored_plic_goes_on_where_it_was_saved(wired: Wired) -> None:
    wired.priority(5, 1)
    wired.priority(70, 4)
    wired.enable(MACHINE, 5, 70)
    wired.plic.set_level(5, True)
    wired.plic.set_level(70, True)
    wired.claim(MACHINE)
    other = Wired()
    other.plic.restore(wired.plic.save())
    assert other.plic.save() == wired.plic.save()
    assert other.outputs[MACHINE]
    assert other.claim(MACHINE) == 5
    other.complete(MACHINE, 70)
    assert other.pending(70)


def test_a_state_of_another_shape_is_refused(wired: Wired) -> None:
    state = wired.plic.save()
    state["enable"] = [0]
    with pytest.raises(ValueError, match="enable"):
        wired.plic.restore(state)


def test_a_reset_keeps_the_levels_and_forgets_everything_else(wired: Wired) -> None:
    wired.priority(5, 1)
    wired.enable(MACHINE, 5)
    wired.plic.set_level(5, True)
    wired.claim(MACHINE)
    wired.plic.reset()
    assert wired.outputs == [False, False]
    assert wired.plic.read(4 * 5, 4) == 0
    wired.priority(5, 1)
    wired.enable(MACHINE, 5)
    assert wired.claim(MACHINE) == 5
