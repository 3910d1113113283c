"""Control registers as programs look for what a machine has."""

from __future__ import annotations

import random

import pytest

from tests.engine.translate.assembly import DONE, TRAPPED, Guest

SIE, SPIE, SPP, FS, SUM, MXR = 1 << 1, 1 << 5, 1 << 8, 3 << 13, 1 << 18, 1 << 19
WRITABLE = SIE | SPIE | SPP | FS | SUM | MXR
UXL_64 = 2 << 32
MASK = (1 << 64) - 1


def test_a_program_that_looks_for_breakpoints_finds_none() -> None:
    with Guest(
        f"""
        la t0, trapped
        csrw mtvec, t0
        csrw tselect, zero
        csrr a1, tselect
        li t1, {2 << 60 | 1 << 6 | 1 << 2}  # break on machine mode's fetches
        csrw tdata1, t1
        la t2, here
        csrw tdata2, t2
    here:
        csrr a2, tdata1
        li t1, 5
        csrw tselect, t1
        csrr a3, tselect
        csrr a4, tinfo
        li a0, 1
        {DONE}
        .align 4
    trapped:
        {TRAPPED}
        """
    ) as guest:
        assert guest.result() == 1
        assert [guest.x(name) for name in ("a1", "a2", "a3", "a4")] == [0, 0, 0, 1]


def test_breakpoints_are_machine_modes_alone() -> None:
    with Guest("csrr a0, tselect") as guest:
        guest.load_trap_handler()
        guest.open_protection()
        guest.hart.set("mode", 1)
        assert guest.trap().cause == 2


@pytest.mark.parametrize("mode", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_bits_of_sstatus_are_set_and_cleared_one_by_one_and_together(mode: int, seed: int) -> None:
    """SIE by itself has a way of its own; with other bits, in any order and by each instruction, it ends the same."""
    chance = random.Random(seed)
    lines, expected, status = [], [], 0
    for _ in range(60):
        operand = chance.choice([0, SIE, SIE, SIE, SPIE, SIE | SPIE, SIE | SUM, FS, SUM | MXR, MASK, 5 | SIE])
        clears, immediate = chance.randrange(2), operand < 32 and chance.randrange(2)
        name = f"csrr{'sc'[clears]}{'i' if immediate else ''}"
        lines.append(f"li t0, {operand}; {name} t1, sstatus, {operand if immediate else 't0'}; sd t1, 0(s0)")
        lines.append("addi s0, s0, 8")
        expected.append(status | UXL_64 | ((status & FS == FS) << 63))
        status = status & ~operand if clears else status | operand & WRITABLE
    changes = "\n".join(lines)
    with Guest(
        f"""
        la s0, table
        {changes}
        csrr a0, sstatus
        {DONE}
        .align 8
    table:
        .space 480
        """
    ) as guest:
        guest.open_protection()
        guest.hart.set("mode", mode)
        assert guest.result() == status | UXL_64 | ((status & FS == FS) << 63)
        table = [guest.word(guest.labels["table"] + 8 * index) for index in range(60)]
        assert [hex(value) for value in table] == [hex(value) for value in expected]


def test_sstatus_is_not_the_users_to_change() -> None:
    for code in ("csrsi sstatus, 2", "csrci sstatus, 2", "csrs sstatus, t0", "csrr t0, sstatus"):
        name, _, rest = code.partition(" ")
        full = {"csrsi": "csrrsi zero, ", "csrci": "csrrci zero, "}.get(name, f"{name} ") + rest
        with Guest(full) as guest:
            guest.load_trap_handler()
            guest.open_protection()
            guest.hart.set("mode", 0)
            assert guest.trap().cause == 2
