"""`Engine.watch`: a hart that has stored to the watched doubleword comes back for it, by whatever instruction."""

from __future__ import annotations

import pytest

from celaje.engine.protocol import Interrupted, MmioWrite, Watched
from tests.engine.translate.assembly import BASE, DONE, Guest

WATCHED = BASE + 0x108  # on the page of the code that stores to it

STORES = (
    "sd a0, 8(t0)",
    "sw a0, 8(t0)",
    "sw a0, 12(t0)",
    "sh a0, 14(t0)",
    "sb a0, 15(t0)",
    "sd a0, 1(t0)",  # misaligned, its last byte is the first that counts
    "sd a0, 15(t0)",
    "addi t1, t0, 8; amoadd.w a1, a0, (t1)",
    "addi t1, t0, 8; lr.d a1, (t1); sc.d a1, a0, (t1)",
    "cbo.zero 0(t0)",
)
OTHERS = ("sd a0, 0(t0)", "sd a0, 16(t0)", "sb a0, 7(t0)", "ld a0, 8(t0)", "sw a0, -4(t0)")


def guest(instruction: str) -> Guest:
    """The instruction with t0 at 8 bytes before the doubleword, enough others that an exit is due, and the end."""
    made = Guest(f"""
        la t0, place; li a0, 7
        {instruction}
        li t2, 20000
        wait: addi t2, t2, -1; bnez t2, wait
        {DONE}
        .org {BASE + 0x100:#x}
        place: .dword 1, 2, 3
    """)
    made.engine.watch(WATCHED)
    return made


@pytest.mark.parametrize("instruction", STORES)
def test_a_store_that_touches_it_is_done_and_told_once(instruction: str) -> None:
    with guest(instruction) as made:
        before = made.word(WATCHED)
        assert made.run() == Watched()
        assert made.word(WATCHED) != before or "cbo" in instruction
        assert made.result() == 7


@pytest.mark.parametrize("instruction", OTHERS)
def test_what_only_comes_near_is_not_told(instruction: str) -> None:
    with guest(instruction) as made:
        assert isinstance(made.run(), MmioWrite)


def test_an_interruption_and_a_store_are_both_told() -> None:
    with guest("sd a0, 8(t0); interrupted: j interrupted") as made:
        made.hart.interrupt()
        assert [made.run(), made.run()] == [Interrupted(), Watched()]
        made.hart.interrupt()
        assert made.run() == Interrupted()


def test_what_is_no_doubleword_in_memory_cannot_be_watched() -> None:
    with Guest() as made:
        for address in (BASE + 4, BASE - 8, BASE + made.memory.size):
            with pytest.raises(ValueError, match="no doubleword"):
                made.engine.watch(address)
