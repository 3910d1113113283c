"""Protection of physical memory: regions that end inside a page, page tables, code."""

from __future__ import annotations

import pytest

from celaje.engine.memory import PAGE_SIZE
from tests.engine.translate.assembly import BASE, DONE, TRAPPED, Guest, Trap
from tests.engine.translate.page_tables import FRAMES, VIRTUAL, A, D, R, Supervisor, V, W

LOAD_ACCESS, STORE_ACCESS, FETCH_ACCESS = 5, 7, 1

@pytest.mark.parametrize("level", ["supervisor", "machine, locked"])
def test_protection_may_end_inside_a_page(level: str) -> None:
    """Entry 0 forbids 16 bytes at FRAMES + 64; both sides of it stay open, also to accesses that touch it partly."""
    locked = 0x80 if level != "supervisor" else 0
    offsets = [(48, 8, True), (56, 8, True), (57, 8, False), (60, 8, False), (64, 1, False), (79, 1, False)]
    offsets += [(80, 8, True)]
    loads = {1: "lb", 8: "ld"}
    stores = {1: "sb", 8: "sd"}
    with Guest() as guest:
        for kinds, cause in ((loads, LOAD_ACCESS), (stores, STORE_ACCESS)):
            for offset, size, is_open in offsets:
                guest.load(f"li t0, {FRAMES}; ld a1, 0(t0); sd a1, 8(t0); {kinds[size]} a1, {offset}(t0); {DONE}")
                guest.load_trap_handler()
                guest.hart.set("pmpaddr0", FRAMES + 64 >> 2 | 1)  # 16 bytes
                guest.hart.set("pmpaddr1", (1 << 54) - 1)
                guest.hart.set("pmpcfg0", 0x1F00 | 0x18 | locked)
                guest.hart.set("pc", BASE)
                guest.hart.set("mode", 3 if locked else 1)
                if is_open:
                    guest.result()
                else:
                    assert guest.trap() == Trap(cause, FRAMES + offset, guest.x("t5")), (offset, size)


def test_an_access_across_pages_is_protected_on_both_sides() -> None:
    edge = FRAMES + PAGE_SIZE
    with Guest() as guest:
        for forbidden, address, fault in (
            (edge - 8 + 4, edge - 6, edge - 6),  # what is in the first page is only partly open
            (edge + 4, edge - 2, edge),  # of the second page's bytes the last two are not
        ):
            for code, cause in (("ld a1, 0(t0)", LOAD_ACCESS), ("sd a1, 0(t0)", STORE_ACCESS)):
                guest.load(f"li t0, {address}; {code}; {DONE}")
                guest.load_trap_handler()
                guest.hart.set("pmpaddr0", forbidden >> 2)
                guest.hart.set("pmpaddr1", (1 << 54) - 1)
                guest.hart.set("pmpcfg0", 0x1F10)
                guest.hart.set("pc", BASE)
                guest.hart.set("mode", 1)
                assert guest.trap() == Trap(cause, fault, guest.x("t5"))


def test_code_stops_at_the_end_of_its_protection_within_a_page() -> None:
    with Guest() as guest:
        guest.load(
            """
            li a0, 1
            c.addi a0, 1
            addi a0, a0, 1
            j on
            addi a0, a0, 100
        on: addi a0, a0, 1
            c.addi a0, 1
            addi a0, a0, 1
            """,
            FRAMES,
        )
        end = guest.labels["on"] + 6
        guest.load_trap_handler()
        guest.load(f"mv t3, a0; {TRAPPED}", guest.hart.get("mtvec"))
        guest.hart.set("pmpaddr0", FRAMES >> 2)
        guest.hart.set("pmpaddr1", end >> 2)
        guest.hart.set("pmpcfg0", 0x0C08)  # from the first to the second address: execute
        guest.hart.set("pc", FRAMES)
        guest.hart.set("mode", 1)
        trap = guest.trap()
        assert trap == Trap(FETCH_ACCESS, end, end)
        assert guest.x("t3") == 5


def test_page_tables_are_protected_as_the_supervisors_loads() -> None:
    with Supervisor(f"li t0, {VIRTUAL}; ld a0, 0(t0)") as guest:
        entry = guest.tables.map(VIRTUAL, FRAMES)
        guest.hart.set("pmpaddr0", entry >> 2)
        guest.hart.set("pmpaddr1", (1 << 54) - 1)
        guest.hart.set("pmpcfg0", 0x1F10)
        assert guest.trap() == Trap(LOAD_ACCESS, VIRTUAL, guest.x("t5"))


def test_an_entry_that_may_not_be_written_cannot_be_marked() -> None:
    with Supervisor(f"li t0, {VIRTUAL}; sd a0, 0(t0)") as guest:
        entry = guest.tables.map(VIRTUAL, FRAMES, V | R | W | A)
        guest.hart.set("pmpaddr0", entry >> 2)
        guest.hart.set("pmpaddr1", (1 << 54) - 1)
        guest.hart.set("pmpcfg0", 0x1F11)
        assert guest.trap() == Trap(STORE_ACCESS, VIRTUAL, guest.x("t5"))
        assert guest.word(entry) & D == 0
