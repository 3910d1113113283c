"""Control registers as programs look for what a machine has."""

from __future__ import annotations

from tests.engine.translate.assembly import DONE, TRAPPED, Guest


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
