"""The software MMU: translation, permissions, fences, hostile page tables."""

from __future__ import annotations

import random

import pytest

from celaje.engine.memory import PAGE_SIZE
from tests.engine.translate.assembly import BASE, DEVICES, DONE, Guest, Trap
from tests.engine.translate.page_tables import (
    ALL,
    DATA,
    FRAMES,
    SCHEMES,
    TABLES,
    VIRTUAL,
    A,
    D,
    G,
    PageTables,
    R,
    Supervisor,
    U,
    V,
    W,
    X,
)

SUM, MXR, MPRV = 1 << 18, 1 << 19, 1 << 17
MPP_SUPERVISOR, MPP_MACHINE = 1 << 11, 3 << 11
LOAD_PAGE, STORE_PAGE, FETCH_PAGE, LOAD_ACCESS, FETCH_ACCESS = 13, 15, 12, 5, 1

# ---- the table of translations

def test_addresses_that_share_an_entry_do_not_share_memory() -> None:
    stride = 256 * PAGE_SIZE
    with Supervisor(
        f"""
        li s0, {VIRTUAL}
        li s1, {stride}
        add s2, s0, s1
        add s3, s2, s1
        li s4, 100
    loop:
        sd s4, 0(s0)
        ld t0, 0(s2)
        add a0, a0, t0
        sd t0, 0(s3)
        ld t1, 0(s0)
        add a0, a0, t1
        addi s4, s4, -1
        bnez s4, loop
        {DONE}
    """
    ) as guest:
        for number in range(3):
            guest.tables.map(VIRTUAL + number * stride, FRAMES + number * PAGE_SIZE)
        guest.put(FRAMES + PAGE_SIZE, 7)
        assert guest.result() == 100 * 7 + sum(range(1, 101))
        assert [guest.word(FRAMES + number * PAGE_SIZE) for number in range(3)] == [1, 7, 7]


def test_random_accesses_to_many_pages_read_what_was_written() -> None:
    """600 pages in no order, so that entries are evicted all the time, against a model of the memory."""
    chance = random.Random(5)
    frames = list(range(400))
    chance.shuffle(frames)
    with Supervisor(
        f"""
        la s0, table
    loop:
        ld t0, 0(s0)
        beqz t0, end
        ld t1, 8(s0)
        ld t2, 0(t0)
        sd t2, 16(s0)
        sd t1, 0(t0)
        addi s0, s0, 24
        j loop
    end:
        {DONE}
        .align 8
    table:
    """
    ) as guest:
        model: dict[int, int] = {}
        expected = []
        for number, frame in enumerate(frames):
            guest.tables.map(VIRTUAL + number * PAGE_SIZE, FRAMES + frame * PAGE_SIZE)
        for index in range(3000):
            number = chance.randrange(400)
            offset = chance.randrange(0, 4096, 8)
            value = chance.getrandbits(64)
            where = frames[number] * PAGE_SIZE + offset
            expected.append(model.get(where, 0))
            model[where] = value
            guest.put(guest.labels["table"] + 24 * index, VIRTUAL + number * PAGE_SIZE + offset)
            guest.put(guest.labels["table"] + 24 * index + 8, value)
        guest.result()
        assert [guest.word(guest.labels["table"] + 24 * index + 16) for index in range(3000)] == expected


@pytest.mark.parametrize("levels", sorted(SCHEMES))
def test_each_scheme_translates_at_each_level(levels: int) -> None:
    with Supervisor(f"{DONE}", levels) as guest:
        for level in range(levels):
            size = PAGE_SIZE << 9 * level
            base = 0x1_0000_0000 if level < 3 else 1 << 12 + 9 * level
            virtual = base * 3 if level < 2 else base * 5
            physical = FRAMES & -size
            guest.tables.map(virtual, physical, level=level)
            guest.put(FRAMES + 8, 1000 + level)
            guest.load(f"li t0, {virtual + (FRAMES - physical) + 8}; ld a0, 0(t0); {DONE}")
            guest.hart.set("pc", BASE)
            assert guest.result() == 1000 + level


@pytest.mark.parametrize(("levels", "address"), [(3, 1 << 38), (4, 1 << 47), (5, 1 << 56), (3, (1 << 64) - (1 << 40))])
def test_an_address_that_is_not_sign_extended_is_a_page_fault(levels: int, address: int) -> None:
    with Supervisor(f"li t0, {address}; ld a0, 8(t0)", levels) as guest:
        assert guest.trap().cause == LOAD_PAGE
        assert guest.x("t4") == address + 8


# ---- permissions

ACCESSES = {"load": ("ld a0, 0(t0)", LOAD_PAGE), "store": ("sd a0, 0(t0)", STORE_PAGE), "fetch": ("jr t0", FETCH_PAGE)}


def allowed(access: str, flags: int, user: bool, status: int) -> bool:
    """The specification's rule, for entries that are valid."""
    if flags & (R | W) == W or not flags & V:
        return False
    if bool(flags & U) != user and not (not user and flags & U and status & SUM and access != "fetch"):
        return False
    need = {"load": R | (X if status & MXR else 0), "store": W, "fetch": X}[access]
    return bool(flags & need)


@pytest.mark.parametrize("access", ACCESSES)
@pytest.mark.parametrize("user", [False, True], ids=["supervisor", "user"])
def test_each_permission_counts(access: str, user: bool) -> None:
    code, cause = ACCESSES[access]
    with Supervisor("nop", mode=0 if user else 1, flags=ALL | (U if user else 0)) as guest:
        for status in (0, SUM, MXR, SUM | MXR):
            for flags in range(32):
                if not flags & (R | X) and flags & V:
                    continue  # a pointer to another table
                guest.load(f"li t0, {VIRTUAL}; {code}; {DONE}")
                guest.tables.map(VIRTUAL, FRAMES, flags | A | D)
                guest.load(DONE, FRAMES)
                guest.hart.set("pc", BASE)
                guest.hart.set("mode", 0 if user else 1)
                guest.hart.set("mstatus", status)
                if allowed(access, flags, user, status):
                    guest.result()
                else:
                    assert guest.trap() == Trap(cause, VIRTUAL, guest.x("t5")), (status, flags)


def test_sum_mxr_and_mprv_hold_from_the_next_instruction_on() -> None:
    """Each change right before and after an access that depends on it, many times, so that everything is entered."""
    with Guest(
        f"""
        # machine mode; VIRTUAL is a user page that may only be executed, and says 77; there is no such physical address
        la t0, trapped
        csrw mtvec, t0
        li s0, {VIRTUAL}
        li s1, {SUM}
        li s2, {MXR}
        li s3, {MPRV}
        li s4, 30
        li t0, {MPP_SUPERVISOR}
    loop:
        csrs mstatus, t0
        csrs mstatus, s1
        csrs mstatus, s2
        csrs mstatus, s3
        ld t1, 0(s0)
        csrc mstatus, s3
        add a0, a0, t1
        li a1, 0
        csrs mstatus, s3
        csrc mstatus, s1
        ld t1, 0(s0)            # no SUM: a fault, which skips it and counts
        csrs mstatus, s1
        csrc mstatus, s2
        ld t1, 0(s0)            # no MXR: a fault
        csrs mstatus, s2
        ld t1, 0(s0)
        csrc mstatus, s3
        add a0, a0, t1
        add a0, a0, a1
        addi s4, s4, -1
        bnez s4, loop
        {DONE}
        .align 4
    trapped:
        csrr t3, mepc
        addi t3, t3, 4
        csrw mepc, t3
        csrr t3, mcause
        addi a1, a1, 1000
        add a1, a1, t3
        li t3, {MPP_MACHINE}
        csrr t4, mstatus        # what the trap cleared is put back: machine mode, MPRV with MPP of the supervisor
        csrs mstatus, t3
        la t3, back
        csrr t5, mepc
        csrw mscratch, t5
        csrw mepc, t3
        mret
    back:
        li t3, {MPP_MACHINE}
        csrc mstatus, t3
        csrs mstatus, t0
        csrs mstatus, s3
        csrr t5, mscratch
        jr t5
    """
    ) as guest:
        tables = PageTables(guest, TABLES)
        tables.map(VIRTUAL, FRAMES, V | X | U | A)
        guest.put(FRAMES, 77)
        guest.open_protection()
        guest.hart.set("satp", tables.satp)
        assert guest.result() == 30 * (2 * 77 + 2 * (1000 + LOAD_PAGE))


@pytest.mark.parametrize(("bit", "flags"), [(MXR, V | X | A), (SUM, V | R | U | A)], ids=["MXR", "SUM"])
def test_a_supervisor_gains_and_loses_a_page_with_a_bit_of_its_status(bit: int, flags: int) -> None:
    with Supervisor(
        f"""
        la t0, trapped
        csrw stvec, t0
        li s0, {VIRTUAL}
        li s1, {bit}
        li s4, 30
    loop:
        csrs sstatus, s1
        ld t1, 0(s0)
        add a0, a0, t1
        csrc sstatus, s1
        ld t1, 0(s0)            # a fault, which skips it and counts
        addi s4, s4, -1
        bnez s4, loop
        {DONE}
        .align 4
    trapped:
        csrr t3, sepc
        addi t3, t3, 4
        csrw sepc, t3
        csrr t3, scause
        addi a0, a0, 1000
        add a0, a0, t3
        sret
    """
    ) as guest:
        guest.tables.map(VIRTUAL, FRAMES, flags)
        guest.put(FRAMES, 77)
        guest.hart.set("medeleg", 1 << LOAD_PAGE)
        assert guest.result() == 30 * (77 + 1000 + LOAD_PAGE)


@pytest.mark.parametrize(
    ("code", "bits"), [("ld a0, 0(t0)", A), ("sd a0, 0(t0)", A | D), ("jr t0", A), ("cbo.zero 0(t0)", A | D)]
)
def test_accesses_mark_their_entries(code: str, bits: int) -> None:
    with Supervisor(f"li t0, {VIRTUAL}; {code}; {DONE}") as guest:
        entry = guest.tables.map(VIRTUAL, FRAMES, V | R | W | X)
        guest.load(DONE, FRAMES)
        guest.hart.set("menvcfg", 1 << 7)
        guest.result()
        assert guest.word(entry) & 0xFF == V | R | W | X | bits


def test_a_load_then_a_store_marks_accessed_then_dirty() -> None:
    with Supervisor(
        f"li t0, {VIRTUAL}; ld a0, 0(t0); ld s0, 0(s2); sd a0, 0(t0); ld s1, 0(s2); {DONE}"
    ) as guest:
        entry = guest.tables.map(VIRTUAL, FRAMES, V | R | W)
        guest.hart.set("x", entry, 18)
        guest.result()
        assert [guest.x(name) & (A | D) for name in ("s0", "s1")] == [A, A | D]


# ---- fences

def test_superpages_are_forgotten_by_the_address_of_any_page_in_them() -> None:
    size = PAGE_SIZE << 9
    with Supervisor(
        f"""
        li s0, {VIRTUAL + 0x5000}
        ld a0, 0(s0)
        ld a1, 0x7f8(s0)
        li t0, {VIRTUAL + 0x155000}
        sd s3, 0(s2)
        sfence.vma t0, zero     # another page of the same superpage
        ld a1, 0(s0)
        {DONE}
    """
    ) as guest:
        entry = guest.tables.map(VIRTUAL, BASE, level=1)
        guest.put(BASE + 0x5000, 1)
        guest.put(BASE + size + 0x5000, 2)
        guest.hart.set("x", entry, 18)
        guest.hart.set("x", guest.word(entry) + (size >> 2), 19)
        assert guest.result() == 1
        assert guest.x("a1") == 2


@pytest.mark.parametrize("fence", ["sfence.vma t0, zero", "sfence.vma zero, zero", "sinval.vma t0, zero"])
def test_a_page_is_another_after_its_fence(fence: str) -> None:
    with Supervisor(
        f"""
        li t0, {VIRTUAL}
        li s4, 20
    loop:
        ld t1, 0(t0)
        add a0, a0, t1
        sd s2, 0(t0)
        sd s3, 0(s1)
        {fence}
        ld t1, 0(t0)
        add a0, a0, t1
        ld t2, 0(s1)
        sub s3, s0, s3
        sd s3, 0(s1)
        {fence}
        sub s3, s0, s3
        addi s4, s4, -1
        bnez s4, loop
        {DONE}
    """
    ) as guest:
        entry = guest.tables.map(VIRTUAL, FRAMES)
        first = guest.word(entry)
        other = first + (PAGE_SIZE >> 2)
        guest.put(FRAMES, 1)
        guest.put(FRAMES + PAGE_SIZE, 100)
        for register, value in ((8, first + other), (9, entry), (18, 1), (19, other)):
            guest.hart.set("x", value, register)
        assert guest.result() == 20 * 101


def test_a_new_satp_forgets_private_pages_and_keeps_global_ones_right() -> None:
    with Supervisor(
        f"""
        li t0, {VIRTUAL}
        li t1, {VIRTUAL + 0x1000}
        li s4, 20
    loop:
        ld t2, 0(t0)
        add a0, a0, t2
        ld t2, 0(t1)
        add a0, a0, t2
        csrw satp, s1
        ld t2, 0(t0)
        add a0, a0, t2
        ld t2, 0(t1)
        add a0, a0, t2
        csrw satp, s0
        addi s4, s4, -1
        bnez s4, loop
        {DONE}
    """,
        flags=ALL | G,
    ) as guest:
        other = PageTables(guest, TABLES + 0x20000)
        other.map(BASE, BASE, ALL | G, level=2)
        other.map(DEVICES, DEVICES, ALL | G)
        for number, tables in enumerate((guest.tables, other)):
            tables.map(VIRTUAL, FRAMES + number * PAGE_SIZE, DATA)
            tables.map(VIRTUAL + PAGE_SIZE, FRAMES + 2 * PAGE_SIZE, DATA | G)
        for number, value in enumerate((1, 10, 100)):
            guest.put(FRAMES + number * PAGE_SIZE, value)
        guest.hart.set("x", guest.tables.satp_of(1), 8)
        guest.hart.set("x", other.satp_of(2), 9)
        guest.hart.set("satp", guest.tables.satp_of(1))
        assert guest.result() == 20 * (1 + 100 + 10 + 100)


# ---- hostile page tables

@pytest.mark.parametrize(
    "pointer",
    [0, BASE - PAGE_SIZE, BASE + (4 << 20), (1 << 56) - PAGE_SIZE, DEVICES, 1 << 40],
    ids=["zero", "below memory", "after memory", "highest", "a device", "nowhere"],
)
def test_tables_outside_memory_are_an_access_fault(pointer: int) -> None:
    with Supervisor(f"li t0, {VIRTUAL}; ld a0, 0(t0)") as guest:
        guest.tables.map(VIRTUAL, FRAMES)
        guest.put(guest.tables.entry(VIRTUAL, level=1), pointer >> 2 | V)
        assert guest.trap() == Trap(LOAD_ACCESS, VIRTUAL, guest.x("t5"))
    with Supervisor("nop") as guest:
        guest.hart.set("satp", 8 << 60 | pointer >> 12)
        trap = guest.trap()
        assert trap == Trap(FETCH_ACCESS, BASE, BASE)


def test_tables_at_the_very_end_of_memory_are_read_and_marked_there() -> None:
    with Supervisor(f"li t0, {VIRTUAL | 0x1FF000}; sd a0, 0(t0); {DONE}") as guest:
        last = BASE + (4 << 20) - PAGE_SIZE
        guest.memory.write(last - PAGE_SIZE, guest.memory.read(last, PAGE_SIZE))  # the handler
        guest.hart.set("mtvec", last - PAGE_SIZE)
        guest.put(guest.tables.entry(VIRTUAL, level=1), last >> 2 | V)
        guest.put(last + 511 * 8, FRAMES >> 2 | V | R | W)
        guest.result()
        assert guest.word(last + 511 * 8) & (A | D) == A | D


def test_a_table_that_points_to_itself_ends() -> None:
    with Supervisor(f"li t0, {VIRTUAL}; ld a0, 0(t0)") as guest:
        root = guest.tables.root
        guest.put(root + (VIRTUAL >> 30 & 511) * 8, root >> 2 | V)
        guest.put(root, root >> 2 | V)
        assert guest.trap().cause == LOAD_PAGE


@pytest.mark.parametrize("flags", [ALL | U | 1 << 54, ALL | 1 << 61, ALL | 1 << 63], ids=["reserved", "PBMT", "N"])
def test_reserved_bits_of_an_entry_are_a_page_fault(flags: int) -> None:
    with Supervisor(f"li t0, {VIRTUAL}; ld a0, 0(t0)") as guest:
        guest.tables.map(VIRTUAL, FRAMES, flags)
        assert guest.trap() == Trap(LOAD_PAGE, VIRTUAL, guest.x("t5"))


def test_a_superpage_that_is_not_aligned_is_a_page_fault() -> None:
    with Supervisor(f"li t0, {VIRTUAL}; ld a0, 0(t0)") as guest:
        guest.tables.map(VIRTUAL, FRAMES + PAGE_SIZE, level=1)
        assert guest.trap() == Trap(LOAD_PAGE, VIRTUAL, guest.x("t5"))


SECOND = 512 * PAGE_SIZE  # pages so far apart share an entry, and make each other give way


@pytest.mark.parametrize("fence", ["sfence.vma s0, zero", "sfence.vma zero, zero", "csrw satp, s5"])
def test_a_page_that_gave_way_to_another_is_another_after_its_fence(fence: str) -> None:
    """Entered for loads and stores, pushed aside by two others, moved to another frame: neither way leads back."""
    with Supervisor(
        f"""
        li s0, {VIRTUAL}
        li s1, {SECOND}
        add s2, s0, s1
        add s3, s2, s1
        csrr s5, satp
        ld a1, 0(s0)
        sd a1, 8(s0)
        ld t0, 0(s2)
        ld t0, 0(s3)
        ld a2, 0(s0)
        ld t0, 0(s2)
        la t0, entry
        ld t1, 0(t0)
        ld t2, 8(t0)
        sd t2, 0(t1)
        {fence}
        ld a3, 0(s0)
        ld t0, 0(s3)
        sd a3, 8(s0)
        ld a0, 0(s0)
        {DONE}
        .align 8
    entry: .dword 0
        .dword 0
    """
    ) as guest:
        at = guest.tables.map(VIRTUAL, FRAMES)
        for number in (1, 2):
            guest.tables.map(VIRTUAL + number * SECOND, FRAMES + number * PAGE_SIZE)
        guest.put(guest.labels["entry"], at)
        guest.put(guest.labels["entry"] + 8, FRAMES + 3 * PAGE_SIZE >> 2 | ALL)
        guest.put(FRAMES, 11)
        guest.put(FRAMES + 3 * PAGE_SIZE, 22)
        assert guest.result() == 22
        assert [guest.x(name) for name in ("a1", "a2", "a3")] == [11, 11, 22]
        assert (guest.word(FRAMES + 8), guest.word(FRAMES + 3 * PAGE_SIZE + 8)) == (11, 22)


def test_superpages_in_many_regions_are_each_forgotten_by_an_address_in_them() -> None:
    """More regions than are kept apart, pages between them, and each superpage moved after all were entered."""
    count, stride = 7, 1 << 35
    addresses = [VIRTUAL + number * stride for number in range(count)]
    with Supervisor(
        f"""
        la s0, table
        li s1, {count}
        mv s2, s0
    enter:
        ld t0, 0(s2)
        ld t1, 0(t0)
        add a0, a0, t1
        addi s2, s2, 24
        addi s1, s1, -1
        bnez s1, enter
        li s1, {count}
        mv s2, s0
    move:
        ld t0, 0(s2)
        ld t1, 8(s2)
        ld t2, 16(s2)
        sd t2, 0(t1)
        li t3, {5 * PAGE_SIZE}
        add t3, t3, t0
        sfence.vma t3, zero
        ld t1, 0(t0)
        add a0, a0, t1
        addi s2, s2, 24
        addi s1, s1, -1
        bnez s1, move
        {DONE}
        .align 8
    table: .space {24 * count}
    """,
        levels=4,
    ) as guest:
        for number, address in enumerate(addresses):
            at = guest.tables.map(address, BASE + 0x200000, level=1)
            row = guest.labels["table"] + 24 * number
            guest.put(row, address)
            guest.put(row + 8, at)
            guest.put(row + 16, BASE >> 2 | ALL)
        guest.put(BASE + 0x200000, 1000)
        first = guest.word(BASE)
        assert guest.result() == (count * (1000 + first)) % (1 << 64)
