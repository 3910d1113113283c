"""A hart's state from outside: registers, counters, saving and going on; the host's own floating-point state."""

from __future__ import annotations

import ctypes
import ctypes.util
import random
import threading

import pytest

from celaje.engine.protocol import Fault, Hypercall, Interrupted, MmioRead, MmioWrite, SystemCall
from celaje.isa.riscv.state import STATE
from tests.engine.translate.assembly import BASE, DEVICES, DONE, Guest, assemble
from tests.engine.translate.page_tables import ALL, PageTables

MASK = (1 << 64) - 1

# ---- counts


COUNTED = {
    "nop": 1,
    "li a0, 0x12345678": 2,
    "c.addi a0, 1": 1,
    "beqz zero, one; one: nop": 2,
    "bnez zero, one; one: nop": 2,
    "j one; nop; one: nop": 2,
    "lw a1, 0(t0)": 1,
    "sw a1, 0(t0)": 1,
    "sd a1, 3(t0)": 1,
    "amoadd.w a1, a1, (t0)": 1,
    "lr.w a1, (t0); sc.w a1, a1, (t0)": 2,
    "mul a1, a1, a1; div a1, a1, a1": 2,
    "fence rw, rw; fence.i": 2,
    "csrr a1, mscratch; csrw mscratch, a1": 2,
    "fadd.d f1, f2, f3; fadd.d f1, f2, f3, rmm": 2,
    "sfence.vma zero, zero": 1,
    "cbo.zero 0(t0)": 1,
    "call one; one: nop": 2,
    "la t1, one; jr t1; nop; one: nop": 4,
    "la t1, one; csrw mepc, t1; mret; nop; one: nop": 5,
}


@pytest.mark.parametrize("line", COUNTED)
def test_each_instruction_is_counted_once_whatever_its_kind(line: str) -> None:
    counted = f"csrr s0, minstret; {line}; csrr s1, minstret"
    with Guest(f"la t0, data; {counted}; {DONE}; .align 64; data: .space 64") as guest:
        guest.hart.set("fs", 3)
        for _ in range(2):  # when it is decoded, and when it is known
            guest.hart.set("pc", BASE)
            guest.hart.set("mstatus", 3 << 11)
            guest.result()
            assert guest.x("s1") - guest.x("s0") == COUNTED[line] + 1


def test_an_instruction_across_two_pages_is_counted_once() -> None:
    with Guest(f"li t0, {BASE + 0xFFA}; jr t0") as guest:
        guest.load(f"csrr s0, minstret; addi a0, a0, 1; csrr s1, minstret; {DONE}", BASE + 0xFFA)
        guest.result()
        assert guest.x("s1") - guest.x("s0") == 2


def instruction_count(text: str) -> int:
    return len(assemble(text).image()) // 4


def test_loops_are_counted_to_the_last_instruction() -> None:
    with Guest(
        f"li t0, 100000; csrr s0, minstret; csrr s2, mcycle\nloop: addi t0, t0, -1; bnez t0, loop\n"
        f"csrr s1, minstret; csrr s3, mcycle; {DONE}"
    ) as guest:
        guest.result()
        assert guest.x("s1") - guest.x("s0") == 200_002
        assert guest.x("s3") - guest.x("s2") == 200_002


def test_traps_count_what_was_done_and_not_what_trapped() -> None:
    with Guest(
        f"""
        la t0, handler; csrw mtvec, t0
        csrr s0, minstret
        nop
        ecall
        .align 4
    handler:
        csrr s1, minstret
        {DONE}
    """
    ) as guest:
        guest.result()
        assert guest.x("s1") - guest.x("s0") == 2  # the reader itself and nop


def test_device_accesses_and_interruptions_do_not_change_the_count() -> None:
    counted = f"csrr s0, minstret; li t0, {DEVICES}; sd t0, 64(t0); ld t1, 64(t0); csrr s1, minstret"
    with Guest(f"{counted}; {DONE}") as guest:
        assert isinstance(guest.run(), MmioWrite)
        guest.hart.interrupt()
        assert guest.run() == Interrupted()
        assert guest.run() == MmioRead(DEVICES + 64, 8)
        guest.hart.complete_read(1)
        guest.result()
        assert guest.x("s1") - guest.x("s0") == 4


@pytest.mark.parametrize("name", ["mcycle", "minstret"])
def test_counters_are_written_and_count_on(name: str) -> None:
    with Guest(f"li t0, 1000; csrw {name}, t0; csrr s0, {name}; nop; csrr s1, {name}; {DONE}") as guest:
        guest.result()
        assert (guest.x("s0"), guest.x("s1")) == (1000, 1002)
        guest.hart.set(name, 5_000_000_000)
        assert guest.hart.get(name) == 5_000_000_000
        guest.load(f"csrr s0, {name}; {DONE}")
        guest.hart.set("pc", BASE)
        guest.result()
        assert guest.x("s0") == 5_000_000_000


@pytest.mark.parametrize(("name", "bit"), [("mcycle", 1), ("minstret", 4)])
def test_a_counter_that_is_inhibited_stands_still_and_then_goes_on(name: str, bit: int) -> None:
    other = {"mcycle": "minstret", "minstret": "mcycle"}[name]
    with Guest(
        f"""
        csrw mcountinhibit, s8
        csrr s0, {name}
        csrr s2, {other}
        nop; nop; nop
        csrr s1, {name}
        csrr s3, {other}
        csrw mcountinhibit, zero
        csrr s4, {name}
        nop
        csrr s5, {name}
        {DONE}
    """
    ) as guest:
        guest.hart.set("x", bit, 24)
        guest.result()
        assert guest.x("s1") == guest.x("s0")
        assert guest.x("s3") - guest.x("s2") == 5
        assert guest.x("s4") - guest.x("s1") in (0, 1)
        assert guest.x("s5") - guest.x("s4") == 2


def test_the_engine_counts_the_instructions_of_all_harts() -> None:
    with Guest(f"li t0, 1000\nloop: addi t0, t0, -1; bnez t0, loop; {DONE}", harts=2) as guest:
        guest.run_all()
        count = guest.engine.statistics()["instructions"]
        assert count == 2 * (1 + 2000 + instruction_count(f"li t6, {DEVICES}"))


def test_the_clock_is_what_the_guest_reads() -> None:
    with Guest(f"csrr a0, time; {DONE}") as guest:
        for ticks in (0, 123_456_789_000, (1 << 63) + 5):
            guest.engine.set_time(ticks)
            guest.hart.set("pc", BASE)
            read = guest.result()
            assert ticks <= read <= guest.engine.time() < ticks + 600_000_000


# ---- set and get


def test_every_field_gives_back_what_it_was_set_to() -> None:
    with Guest() as guest:
        chance = random.Random(1)
        for field in STATE:
            if field.name in ("pending", "flat", "mode"):
                continue
            for index in range(field.count):
                value = chance.getrandbits(field.width)
                guest.hart.set(field.name, value, index)
                expected = 0 if (field.name, index) == ("x", 0) else value
                assert guest.hart.get(field.name, index) == expected, field.name


def test_control_registers_are_set_by_name_as_machine_mode_would() -> None:
    with Guest() as guest:
        hart = guest.hart
        hart.set("sstatus", 1 << 18 | 1 << 1)
        assert hart.get("sstatus") & (1 << 18 | 1 << 1 | 1 << 8) == 1 << 18 | 1 << 1
        hart.set("pmpcfg0", 0x1F)
        assert hart.get("pmp_active") == 1
        assert hart.get("misa") >> 62 == 2
        hart.set("mtvec", 0x8000_0001)
        assert hart.get("mtvec") == 0x8000_0001
        assert hart.get("mode") == 3


@pytest.mark.parametrize(
    ("name", "value"), [("x", 1 << 64), ("mode", 256), ("pc", -1), ("satp", 1 << 64), ("sstatus", 1 << 64)]
)
def test_values_that_do_not_fit_are_refused(name: str, value: int) -> None:
    with Guest() as guest, pytest.raises(ValueError, match=name):
        guest.hart.set(name, value)


def test_names_that_a_hart_lacks_are_refused() -> None:
    with Guest() as guest:
        with pytest.raises(KeyError):
            guest.hart.get("eflags")
        with pytest.raises(KeyError):
            guest.hart.set("eflags", 1)
        with pytest.raises(KeyError):
            guest.hart.get("cycleh")  # 32-bit harts have it
        with pytest.raises(ValueError, match="cycle"):
            guest.hart.set("cycle", 1)
        with pytest.raises(IndexError):
            guest.hart.get("x", 32)


# ---- save and restore

LONG = """
    li s1, 300000
    li s2, 3
    fcvt.d.w f1, s2
    csrrwi zero, frm, 1
work:
    fcvt.d.l f2, s1
    fdiv.d f3, f2, f1
    fadd.d f4, f4, f3
    ld t0, 0(s0)
    add t0, t0, s1
    sd t0, 0(s0)
    addi s1, s1, -1
    bnez s1, work
    fmv.x.d a0, f4
    csrr a1, fcsr
    csrr a2, instret
    ecall
"""


def long_guest() -> Guest:
    """A program in supervisor mode behind page tables and protection, whose ecall ends it."""
    guest = Guest(LONG)
    tables = PageTables(guest, BASE + 0x100000)
    tables.map(BASE, BASE, ALL, level=2)
    hart = guest.hart
    guest.open_protection()
    hart.set("satp", tables.satp)
    hart.set("sbi", 1)
    hart.set("mcounteren", 4)
    hart.set("fs", 1)
    hart.set("x", BASE + 0x80000, 8)
    hart.set("mode", 1)
    return guest


def test_a_machine_that_is_saved_and_restored_again_and_again_ends_as_one_that_never_was() -> None:
    cut = long_guest()
    with long_guest() as whole:
        assert whole.run() == Hypercall()
        hart = cut.hart
        moves = 0
        hart.interrupt()  # once before it begins, whatever the host is busy with
        while True:
            timer = threading.Timer(0.001, hart.interrupt)
            timer.start()
            came = hart.run()
            timer.join()
            if came == Hypercall():
                break
            state = hart.save()
            memory = cut.memory.read(BASE, cut.memory.size)
            moves += 1
            cut.close()
            cut = Guest()  # the machine that it moves to
            cut.memory.write(BASE, memory)
            hart = cut.hart
            hart.restore(state)
            assert hart.save() == state
        assert moves > 0
        for name in ("a0", "a1", "a2"):
            assert whole.x(name) == cut.x(name), name
        assert whole.word(BASE + 0x80000) == cut.word(BASE + 0x80000)
        assert [whole.hart.get("f", n) for n in range(32)] == [cut.hart.get("f", n) for n in range(32)]
        assert whole.hart.get("fflags") == cut.hart.get("fflags") == 1
        cut.close()


def test_a_hart_takes_the_state_of_another_that_has_run_before() -> None:
    with Guest(f"addi a0, a0, 1; csrr a1, minstret; {DONE}") as guest:
        guest.result()
        state = guest.hart.save()
        first = guest.hart.get("minstret")
        guest.hart.set("pc", BASE)
        guest.result()
        guest.hart.restore(state)
        assert guest.hart.get("minstret") == first
        assert guest.x("a0") == 1


@pytest.mark.parametrize("damage", ["missing", "unknown", "too many", "too wide", "negative"])
def test_a_state_that_is_not_whole_is_refused_and_changes_nothing(damage: str) -> None:
    with Guest() as guest:
        guest.hart.set("x", 5, 1)
        before = guest.hart.save()
        state = {name: list(values) for name, values in before.items()}
        state["x"][1] = 6
        if damage == "missing":
            del state["mepc"]
        elif damage == "unknown":
            state["mepd"] = [0]
        elif damage == "too many":
            state["mepc"] = [0, 0]
        elif damage == "too wide":
            state["mode"] = [256]
        else:
            state["mepc"] = [-1]
        with pytest.raises(ValueError, match="mepc|mepd|mode"):
            guest.hart.restore(state)
        assert guest.hart.save() == before


# ---- the flat address space


def test_a_flat_hart_leaves_at_system_calls_and_faults() -> None:
    with Guest("li a7, 93; ecall; addi a0, a0, 1; ecall; lw a0, 0(zero)") as guest:
        guest.hart.set("flat", 1)
        assert guest.run() == SystemCall()
        guest.hart.set("x", 41, 10)
        assert guest.run() == SystemCall()
        assert guest.x("a0") == 42
        at = guest.hart.get("pc")
        assert guest.run() == Fault(5, 0)  # no device can be there
        assert guest.hart.get("pc") == at
        guest.put(at, 0x30200073, 4)  # mret, which is not for user mode
        guest.hart.flush_instructions()
        assert guest.run() == Fault(2, 0x30200073)


# ---- the host's floating-point state

_math = ctypes.CDLL(ctypes.util.find_library("m"))


def host_rounds_to_nearest() -> bool:
    one, three = float("1"), float("3")  # not constants, which would be divided when this is compiled
    exact = float.fromhex("0x1.5555555555555p-2")
    return _math.fegetround() == 0 and one / three == exact and -one / three == -exact


@pytest.mark.parametrize("mode", range(5))
def test_the_guests_rounding_does_not_leak_into_python(mode: int) -> None:
    with Guest(f"csrrwi zero, frm, {mode}; fdiv.d f3, f1, f2; fmv.x.d a0, f3; {DONE}") as guest:
        guest.hart.set("fs", 3)
        guest.hart.set("f", 0x3FF0000000000000, 1)
        guest.hart.set("f", 0x4008000000000000, 2)
        result = guest.result()
        assert host_rounds_to_nearest()
        assert result == (0x3FD5555555555556 if mode == 3 else 0x3FD5555555555555)


@pytest.mark.parametrize("name", ["fcsr", "sstatus", "frm"])
def test_setting_registers_from_outside_leaves_pythons_rounding_alone(name: str) -> None:
    with Guest() as guest:
        guest.hart.set("fs", 3)
        guest.hart.set("frm", 3)
        guest.hart.set(name, {"fcsr": 3 << 5, "sstatus": 3 << 13, "frm": 3}[name])
        assert host_rounds_to_nearest()
        assert guest.hart.get("frm") == 3


def test_pythons_own_flags_are_not_the_guests() -> None:
    with Guest(f"csrr a0, fcsr; {DONE}") as guest:
        guest.hart.set("fs", 3)
        assert 1.0 / float("3") != 0  # inexact, in the host's register
        assert guest.hart.get("fcsr") == 0
        assert guest.result() == 0
        guest.hart.set("fcsr", 0x1F)
        assert guest.hart.get("fcsr") == guest.hart.get("fflags") == 0x1F


def test_flags_outlive_every_way_out_of_the_guest() -> None:
    with Guest(f"fdiv.d f3, f1, f2; li t0, {DEVICES}; sd t0, 64(t0); csrr a0, fflags; {DONE}") as guest:
        guest.hart.set("fs", 3)
        guest.hart.set("f", 0x3FF0000000000000, 1)  # 1 / 0
        assert guest.run() == MmioWrite(DEVICES + 64, 8, DEVICES)
        assert guest.hart.get("fflags") == 8
        assert guest.hart.save()["fflags"] == [8]
        assert guest.result() == 8
