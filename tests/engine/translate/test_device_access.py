"""Accesses that are no plain ones: devices, the end of memory, two pages at once."""

from __future__ import annotations

import pytest

from celaje.engine.memory import PAGE_SIZE, GuestMemory
from celaje.engine.protocol import Interrupted, MmioRead, MmioWrite
from tests.engine.translate.assembly import BASE, DEVICES, DONE, Guest, Trap
from tests.engine.translate.page_tables import ALL, FRAMES, VIRTUAL, Supervisor

LOAD_PAGE, STORE_PAGE, LOAD_ACCESS, STORE_ACCESS, FETCH_ACCESS = 13, 15, 5, 7, 1

# ---- devices

LOADS = {
    "lb": (1, True), "lh": (2, True), "lw": (4, True),
    "lbu": (1, False), "lhu": (2, False), "lwu": (4, False), "ld": (8, False),
}


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


def test_between_two_device_accesses_in_a_straight_line_a_hart_can_be_interrupted() -> None:
    store = "sd t0, 0(t0)"
    with Guest(f"li t0, {DEVICES}; {store}; ld a0, 8(t0); {store}") as guest:
        assert guest.run() == MmioWrite(DEVICES, 8, DEVICES)
        guest.hart.interrupt()
        assert guest.run() == Interrupted()
        assert guest.run() == MmioRead(DEVICES + 8, 8)
        guest.hart.complete_read(5)
        guest.hart.interrupt()
        assert guest.run() == Interrupted()
        assert guest.x("a0") == 5
        assert guest.run() == MmioWrite(DEVICES, 8, DEVICES)


def test_an_interrupt_that_a_device_access_raised_is_taken_right_after_it() -> None:
    with Guest(
        f"""
        la t1, handler; csrw mtvec, t1
        csrs mstatus, s1
        li t0, {DEVICES}
        sd t0, 0(t0)
    after:
        nop
        {DONE}
        .align 4
    handler:
        csrr a0, mepc
        {DONE}
    """
    ) as guest:
        guest.hart.set("mie", 1 << 11)
        guest.hart.set("x", 1 << 3, 9)
        assert guest.run() == MmioWrite(DEVICES, 8, DEVICES)
        guest.hart.set_line(11, True)
        assert guest.result() == guest.labels["after"]


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
            first = guest.memory.read(FRAMES + 6 * PAGE_SIZE - before, before)
            assert first + guest.memory.read(FRAMES, size - before) == 0xF1F2F3F4F5F6F7F8.to_bytes(8, "little")[:size]
            assert guest.memory.read(FRAMES + size - before, 8) == bytes(8)


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

    try:
        made.append(GuestMemory(BASE + PAGE_SIZE, PAGE_SIZE))
        with pytest.raises(ValueError, match="overlaps"):
            guest.engine.add_memory(made[0])
        for number in range(8):
            made.append(GuestMemory(number * 2 * PAGE_SIZE, PAGE_SIZE))
            if number < 7:
                guest.engine.add_memory(made[-1])
        with pytest.raises(ValueError, match="at most 8"):
            guest.engine.add_memory(made[-1])
    finally:
        guest.close()
        for memory in made:
            memory.close()
