"""The software MMU: translation, permissions, protection, devices, the dirty log."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest

from celaje.engine.memory import PAGE_SIZE, GuestMemory
from celaje.engine.protocol import MmioRead, MmioWrite
from tests.engine.translate.assembly import BASE, DEVICES, DONE, Guest, Trap
from tests.engine.translate.page_tables import ALL, CODE, DATA, SCHEMES, A, D, G, PageTables, R, U, V, W, X

SUM, MXR, MPRV = 1 << 18, 1 << 19, 1 << 17
MPP_SUPERVISOR, MPP_MACHINE = 1 << 11, 3 << 11
TABLES = BASE + 0x100000
FRAMES = BASE + 0x200000  # pages that tests map somewhere
VIRTUAL = 0x40_0000_0000 >> 2  # far from what is mapped to itself
LOAD_PAGE, STORE_PAGE, FETCH_PAGE, LOAD_ACCESS, STORE_ACCESS, FETCH_ACCESS = 13, 15, 12, 5, 7, 1


class Supervisor(Guest):
    """A hart in supervisor mode with BASE's gigabyte and the devices mapped to themselves; traps end the program."""

    def __init__(self, text: str, levels: int = 3, mode: int = 1, flags: int = ALL, **values: int) -> None:
        super().__init__(text, **values)
        self.tables = PageTables(self, TABLES, levels)
        self.tables.map(BASE, BASE, flags, level=2)
        self.tables.map(DEVICES, DEVICES, flags)
        self.load_trap_handler()
        self.open_protection()
        self.hart.set("mode", mode)
        self.hart.set("satp", self.tables.satp)


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
            offset = chance.randrange(0, 4089) & (~0 if number + 1 < 0 else ~7)
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


@pytest.mark.parametrize(("code", "bits"), [("ld a0, 0(t0)", A), ("sd a0, 0(t0)", A | D), ("jr t0", A), ("cbo.zero 0(t0)", A | D)])
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


# ---- protection of physical memory


@pytest.mark.parametrize("level", ["supervisor", "machine, locked"])
def test_protection_may_end_inside_a_page(level: str) -> None:
    """Entry 0 forbids 16 bytes at FRAMES + 64; both sides of it stay open, also to accesses that touch it partly."""
    locked = 0x80 if level != "supervisor" else 0
    offsets = [(48, 8, True), (56, 8, True), (60, 8, False), (64, 1, False), (79, 1, False), (80, 8, True), (57, 8, False)]
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
        guest.load("li a0, 1; c.addi a0, 1; addi a0, a0, 1; j on; addi a0, a0, 100\non: addi a0, a0, 1; c.addi a0, 1", FRAMES)
        end = FRAMES + 4 + 2 + 4 + 4 + 4 + 4
        guest.load_trap_handler()
        guest.hart.set("pmpaddr0", FRAMES >> 2)
        guest.hart.set("pmpaddr1", end >> 2)
        guest.put(end & ~3, guest.word(end & ~3, 4), 4)
        guest.hart.set("pmpcfg0", 0x0C08)  # from the first to the second address: execute
        guest.hart.set("pc", FRAMES)
        guest.hart.set("mode", 1)
        trap = guest.trap()
        assert trap.cause == FETCH_ACCESS
        assert trap.value & ~3 == end & ~3
        assert guest.x("a1") == 0


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


# ---- the end of memory, and misaligned accesses

END = BASE + (4 << 20)


@pytest.mark.parametrize(("code", "cause"), [("ld a1, 0(t0)", LOAD_ACCESS), ("sd a1, 0(t0)", STORE_ACCESS)])
def test_an_access_over_the_end_of_memory_faults_and_leaves_no_trace(code: str, cause: int) -> None:
    with Guest() as guest:
        for address in range(END - 7, END):
            guest.load(f"li t0, {address}; li a1, -1; {code}")
            guest.load_trap_handler()
            guest.put(END - 8, 0x1122334455667788)
            guest.hart.set("pc", BASE)
            trap = guest.trap()
            assert (trap.cause, trap.value) == (cause, address)
            assert guest.word(END - 8) == 0x1122334455667788
        guest.load(f"li t0, {END - 8}; ld a0, 0(t0); sd a0, 0(t0); {DONE}")
        guest.hart.set("pc", BASE)
        assert guest.result() == 0x1122334455667788


@pytest.mark.parametrize("missing", [0, 1])
@pytest.mark.parametrize(("code", "cause"), [("ld a1, 0(t0)", LOAD_PAGE), ("sd s1, 0(t0)", STORE_PAGE)])
def test_an_access_across_pages_faults_at_the_page_that_is_missing(code: str, cause: int, missing: int) -> None:
    edge = VIRTUAL + PAGE_SIZE
    with Supervisor(f"li s1, -1; li t0, {edge - 3}; {code}") as guest:
        guest.tables.map(VIRTUAL + (1 - missing) * PAGE_SIZE, FRAMES + (1 - missing) * PAGE_SIZE)
        trap = guest.trap()
        assert (trap.cause, trap.value) == (cause, edge if missing else edge - 3)
        assert guest.x("a1") == 0
        assert guest.memory.read(FRAMES, 2 * PAGE_SIZE) == bytes(2 * PAGE_SIZE)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_misaligned_accesses_across_pages_reach_two_frames_far_apart(size: int) -> None:
    name = {2: "h", 4: "w", 8: "d"}[size]
    edge = VIRTUAL + PAGE_SIZE
    unsigned = "u" if size < 8 else ""
    for before in range(1, size):
        with Supervisor(f"li t0, {edge - before}; l{name}{unsigned} a0, 0(t0); s{name} s1, 0(t0); {DONE}") as guest:
            guest.tables.map(VIRTUAL, FRAMES + 5 * PAGE_SIZE)
            guest.tables.map(edge, FRAMES)
            old = bytes(range(1, 1 + size))
            guest.memory.write(FRAMES + 6 * PAGE_SIZE - before, old[:before])
            guest.memory.write(FRAMES, old[before:])
            guest.hart.set("x", 0xF1F2F3F4F5F6F7F8, 9)
            assert guest.result() == int.from_bytes(old, "little")
            stored = guest.memory.read(FRAMES + 6 * PAGE_SIZE - before, before) + guest.memory.read(FRAMES, size - before)
            assert stored == 0xF1F2F3F4F5F6F7F8.to_bytes(8, "little")[:size]
            assert guest.memory.read(FRAMES + size - before, 8) == bytes(8)


# ---- devices

LOADS = {"lb": (1, True), "lbu": (1, False), "lh": (2, True), "lhu": (2, False), "lw": (4, True), "lwu": (4, False), "ld": (8, False)}


@pytest.mark.parametrize("code", LOADS)
def test_a_load_from_a_device_is_answered(code: str) -> None:
    size, signed = LOADS[code]
    answer = 0x8182838485868788
    with Guest(f"li t0, {DEVICES}; {code} a0, 24(t0); addi s0, s0, 1; {DONE}") as guest:
        assert guest.run() == MmioRead(DEVICES + 24, size)
        guest.hart.complete_read(answer)
        value = answer & (1 << 8 * size) - 1
        if signed and value >> 8 * size - 1:
            value += (1 << 64) - (1 << 8 * size)
        assert guest.result() == value
        assert guest.x("s0") == 1


@pytest.mark.parametrize(("code", "size"), [("sb", 1), ("sh", 2), ("sw", 4), ("sd", 8)])
def test_a_store_to_a_device_says_what_it_stores_once(code: str, size: int) -> None:
    value = 0xF1F2F3F4F5F6F7F8
    with Guest(f"li t0, {DEVICES}; li a0, {value}; {code} a0, 32(t0); addi s0, s0, 1; {DONE}") as guest:
        assert guest.run() == MmioWrite(DEVICES + 32, size, value & (1 << 8 * size) - 1)
        assert guest.result() == value
        assert guest.x("s0") == 1


@pytest.mark.parametrize(
    ("code", "cause"), [("lw a0, 8(t0)", LOAD_ACCESS), ("sw a0, 8(t0)", STORE_ACCESS), ("fld f1, 8(t0)", LOAD_ACCESS)]
)
def test_a_refused_access_is_an_access_fault_at_its_instruction(code: str, cause: int) -> None:
    with Guest(f"li t0, {DEVICES}; li a0, 5; at: {code}; {DONE}") as guest:
        guest.load_trap_handler()
        guest.hart.set("fs", 3)
        assert isinstance(guest.run(), MmioRead | MmioWrite)
        guest.hart.fail_access()
        assert guest.trap() == Trap(cause, DEVICES + 8, guest.labels["at"])


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("lw a0, 1(t0)", LOAD_ACCESS),
        ("sd a0, 4(t0)", STORE_ACCESS),
        ("amoadd.w a0, a0, (t0)", STORE_ACCESS),
        ("lr.w a0, (t0)", LOAD_ACCESS),
        ("sc.w a0, a0, (t0)", STORE_ACCESS),
        ("cbo.zero 0(t0)", STORE_ACCESS),
        ("jr t0", FETCH_ACCESS),
    ],
)
def test_what_no_device_takes_is_an_access_fault(code: str, cause: int) -> None:
    with Guest(f"li t0, {DEVICES}; {code}") as guest:
        guest.load_trap_handler()
        trap = guest.trap()
        assert trap.cause == cause
        assert trap.value // 8 == DEVICES // 8


def test_an_access_half_in_memory_half_at_a_device_is_refused() -> None:
    with Supervisor(f"li t0, {VIRTUAL + PAGE_SIZE - 4}; sd a0, 0(t0)") as guest:
        guest.tables.map(VIRTUAL, FRAMES)
        guest.tables.map(VIRTUAL + PAGE_SIZE, DEVICES)
        assert guest.trap() == Trap(STORE_ACCESS, VIRTUAL + PAGE_SIZE - 4, guest.x("t5"))


def test_an_answer_is_for_no_other_access_than_the_one_that_asked() -> None:
    """While Python answers, the page becomes memory: the load reads that, and the next device is asked itself."""
    with Supervisor(f"li t0, {VIRTUAL}; li t1, {DEVICES}; ld a1, 0(t0); ld a0, 16(t1); {DONE}") as guest:
        entry = guest.tables.map(VIRTUAL, DEVICES)
        assert guest.run() == MmioRead(DEVICES, 8)
        guest.hart.complete_read(1)
        guest.put(FRAMES, 5)
        guest.put(entry, FRAMES >> 2 | ALL)
        guest.hart.flush_translations()
        assert guest.run() == MmioRead(DEVICES + 16, 8)
        assert guest.x("a1") == 5


@pytest.mark.parametrize("how", ["pc", "restore"])
def test_a_hart_that_is_started_anew_in_the_middle_of_a_device_access_owes_nothing(how: str) -> None:
    with Guest(f"li t0, {DEVICES}; sd t0, 0(t0); sd t0, 8(t0)") as guest:
        state = guest.hart.save()
        assert guest.run() == MmioWrite(DEVICES, 8, DEVICES)
        if how == "pc":
            guest.hart.set("pc", BASE)
        else:
            guest.hart.restore(state)
        assert guest.run() == MmioWrite(DEVICES, 8, DEVICES)
        assert guest.run() == MmioWrite(DEVICES + 8, 8, DEVICES)


# ---- the dirty log


def pages_of(log: list[bytes], first: int, count: int) -> list[int]:
    start = (first - BASE) // PAGE_SIZE
    return [number for number in range(count) if log[0][start + number]]


@pytest.mark.parametrize(
    "store",
    ["sb t1, 0(t0)", "sd t1, 0(t0)", "sd t1, 3(t0)", "amoadd.w t2, t1, (t0)", "lr.d t2, (t0); sc.d t2, t1, (t0)", "cbo.zero 0(t0)",
     "fsd f1, 0(t0)"],
)
def test_each_kind_of_store_marks_its_page_and_no_other_one(store: str) -> None:
    written = [3, 17, 40, 41]
    with Guest("nop") as guest:
        guest.hart.set("fs", 3)
        guest.engine.start_dirty_log()
        for _ in range(2):
            code = "\n".join(f"li t0, {FRAMES + n * PAGE_SIZE + 64}; ld t3, 0(t0); {store}" for n in written)
            guest.load(f"{code}\n{DONE}")
            guest.hart.set("pc", BASE)
            guest.result()
            assert pages_of(guest.engine.take_dirty_log(), FRAMES, 100) == written
            assert pages_of(guest.engine.take_dirty_log(), FRAMES, 100) == []


def test_a_store_across_pages_marks_both() -> None:
    with Guest(f"li t0, {FRAMES + 8 * PAGE_SIZE - 1}; sh t0, 0(t0); {DONE}") as guest:
        guest.engine.start_dirty_log()
        guest.result()
        assert pages_of(guest.engine.take_dirty_log(), FRAMES, 100) == [7, 8]


def test_tables_whose_entries_are_marked_are_dirty_too() -> None:
    with Supervisor(f"li t0, {VIRTUAL}; sd a0, 0(t0); {DONE}") as guest:
        entry = guest.tables.map(VIRTUAL, FRAMES, V | R | W)
        guest.engine.start_dirty_log()
        guest.result()
        log = guest.engine.take_dirty_log()
        assert pages_of(log, TABLES, 16) == [(entry - TABLES) // PAGE_SIZE]


def test_the_log_misses_nothing_while_harts_and_devices_write() -> None:
    """A copy is kept by the log alone, as a migration keeps one; in the end it is the memory."""
    pages = 64
    with Guest(
        f"""
        csrr s0, mhartid
        slli s0, s0, 3
        li s1, {FRAMES}
        add s1, s1, s0
        la s2, stop
        li s3, {pages}
        li a0, 1
    loop:
        mv t0, s1
        mv t1, s3
    next:
        sd a0, 0(t0)
        li t2, {PAGE_SIZE}
        add t0, t0, t2
        addi t1, t1, -1
        bnez t1, next
        addi a0, a0, 1
        ld t2, 0(s2)
        beqz t2, loop
        {DONE}
        .align 4096
    stop: .dword 0
    """,
        harts=2,
    ) as guest:
        guest.engine.start_dirty_log()
        copy = bytearray(guest.memory.read(FRAMES, pages * PAGE_SIZE))
        threads = [threading.Thread(target=guest.run, args=(index,)) for index in range(2)]
        stop = threading.Event()

        def device() -> None:
            count = 1
            while not stop.is_set():
                for page in range(pages):
                    guest.put(FRAMES + page * PAGE_SIZE + 64, count)
                count += 1

        threads.append(threading.Thread(target=device))
        for thread in threads:
            thread.start()

        def take() -> None:
            log = guest.engine.take_dirty_log()
            for page in pages_of(log, FRAMES, pages):
                at = page * PAGE_SIZE
                copy[at : at + PAGE_SIZE] = guest.memory.read(FRAMES + at, PAGE_SIZE)

        for _ in range(80):
            take()
        stop.set()
        guest.put(guest.labels["stop"], 1)
        for thread in threads:
            thread.join()
        take()
        assert bytes(copy) == guest.memory.read(FRAMES, pages * PAGE_SIZE)
        assert guest.word(FRAMES) > 1


# ---- several memories


def test_memories_lie_beside_each_other_and_end_exactly() -> None:
    guest = Guest()
    other = GuestMemory(BASE + (8 << 20), 2 * PAGE_SIZE)
    guest.engine.add_memory(other)
    try:
        last = other.base + other.size - 8
        guest.load(
            f"""
            li t0, {other.base}
            li t1, {last}
            li a0, 9
            sd a0, 0(t0)
            sd a0, 0(t1)
            fence.i
            li t2, {DEVICES}
            ld a0, 8(t1)
        """
        )
        guest.load_trap_handler()
        assert guest.run() == MmioRead(other.base + other.size, 8)
        assert other.read(other.base, 8) == other.read(last, 8) == (9).to_bytes(8, "little")
    finally:
        guest.close()
        other.close()


def test_memories_may_not_overlap_nor_be_too_many() -> None:
    guest = Guest()
    made: list[GuestMemory] = []

    def more() -> Iterator[GuestMemory]:
        for number in range(8):
            made.append(GuestMemory(number * 2 * PAGE_SIZE, PAGE_SIZE))
            yield made[-1]

    try:
        made.append(GuestMemory(BASE + PAGE_SIZE, PAGE_SIZE))
        with pytest.raises(ValueError, match="overlaps"):
            guest.engine.add_memory(made[0])
        with pytest.raises(ValueError, match="at most 8"):
            for memory in more():
                guest.engine.add_memory(memory)
        assert len(made) == 9
    finally:
        guest.close()
        for memory in made:
            memory.close()
