"""The reference evaluator as the rest of celaje sees it: exits, interrupts, state, the dirty log."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from celaje.engine.evaluate.engine import EvaluateEngine, EvaluateHart
from celaje.engine.memory import GuestMemory
from celaje.engine.protocol import (
    Fault,
    Halt,
    Hypercall,
    Interrupted,
    MmioRead,
    MmioWrite,
    Recalled,
    Shutdown,
    SystemCall,
    Watched,
)
from celaje.isa.riscv.csr import REGISTERS
from celaje.isa.riscv.instructions import RISCV
from celaje.isa.riscv.privilege import LOAD_ACCESS, MEI, MIE, MSI, MTI, SSI, STORE_ACCESS

BASE, SIZE, DEVICE = 0x8000_0000, 0x10000, 0x1000_0000
NUMBERS = {register.name: number for number, register in REGISTERS.items()}
A0, A1, A2, T0 = 10, 11, 12, 5


class Bench:
    """An engine with some memory, and programs for its harts."""

    def __init__(self, hart_count: int = 1, xlen: int = 64) -> None:
        self.engine = EvaluateEngine(hart_count, xlen)
        self.memory = GuestMemory(BASE, SIZE)
        self.engine.add_memory(self.memory)
        self.hart: EvaluateHart = self.engine.harts[0]
        self.put(BASE)

    def put(self, address: int, *instructions: tuple[str, dict[str, int]]) -> None:
        """Write instructions, and let hart 0 begin there."""
        code = b""
        for key, operands in instructions:
            entry = RISCV.instructions[key]
            code += entry.encode(**operands).to_bytes(entry.length, "little")
        self.memory.write(address, code)
        self.hart.set("pc", address)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.engine.close()
    made.memory.close()


def i(key: str, **operands: int) -> tuple[str, dict[str, int]]:
    return key, operands


def csr(key: str, name: str, **operands: int) -> tuple[str, dict[str, int]]:
    return key, {"csr": NUMBERS[name], **operands}


HYPERCALL = (i("ecall"),)


def test_a_hart_begins_at_zero_in_machine_mode() -> None:
    hart = EvaluateEngine(2).harts[1]
    assert (hart.get("pc"), hart.get("mode"), hart.get("mhartid"), hart.index) == (0, 3, 1, 1)


def test_a_flat_hart_leaves_with_its_system_calls_and_faults(bench: Bench) -> None:
    bench.put(BASE, i("addi", rd=A0, rs1=0, imm=7), i("ecall"), i("ld", rd=A0, rs1=0, imm=16))
    bench.hart.set("flat", 1)
    bench.hart.set("mode", 0)
    assert bench.hart.run() == SystemCall()
    assert (bench.hart.get("x", A0), bench.hart.get("pc")) == (7, BASE + 8)
    assert bench.hart.run() == Fault(LOAD_ACCESS, 16)
    assert bench.hart.get("pc") == BASE + 8


def test_a_store_to_the_watched_doubleword_is_told(bench: Bench) -> None:
    bench.engine.watch(BASE + 0x108)
    bench.hart.set("sbi", 1)
    bench.hart.set("x", BASE + 0x100, A1)
    stores = [i("sd", rs1=A1, rs2=A1, imm=0), i("sb", rs1=A1, rs2=A1, imm=15), i("sd", rs1=A1, rs2=A1, imm=16)]
    bench.put(BASE, *stores, i("wfi"))
    assert bench.hart.run() == Watched()
    assert bench.hart.get("pc") == BASE + 8
    assert bench.hart.run() == Halt()
    with pytest.raises(ValueError, match="no doubleword"):
        bench.engine.watch(BASE + 4)


def test_a_load_from_a_device_is_finished_with_what_the_device_answers(bench: Bench) -> None:
    bench.hart.set("sbi", 1)
    bench.put(BASE, i("lb", rd=A0, rs1=A1, imm=1), i("wfi"))
    bench.hart.set("x", DEVICE, A1)
    assert bench.hart.run() == MmioRead(DEVICE + 1, 1)
    assert bench.hart.get("pc") == BASE
    bench.hart.complete_read(0x80)
    assert bench.hart.run() == Halt()
    assert bench.hart.get("x", A0) == (1 << 64) - 0x80


def test_the_same_device_register_can_be_read_twice_in_a_row(bench: Bench) -> None:
    bench.put(BASE, i("lw", rd=A0, rs1=A1, imm=0), i("lw", rd=A2, rs1=A1, imm=0), i("wfi"))
    bench.hart.set("x", DEVICE, A1)
    for value in (1, 2):
        assert bench.hart.run() == MmioRead(DEVICE, 4)
        bench.hart.complete_read(value)
    assert bench.hart.run() == Halt()
    assert (bench.hart.get("x", A0), bench.hart.get("x", A2)) == (1, 2)


def test_a_store_to_a_device_leaves_once(bench: Bench) -> None:
    bench.put(BASE, i("sh", rs1=A1, rs2=A0, imm=2), i("wfi"))
    bench.hart.set("x", DEVICE, A1)
    bench.hart.set("x", 0x12345678, A0)
    assert bench.hart.run() == MmioWrite(DEVICE + 2, 2, 0x5678)
    assert bench.hart.run() == Halt()


@pytest.mark.parametrize(("key", "cause"), [("lw", LOAD_ACCESS), ("sw", STORE_ACCESS)])
def test_an_access_that_nobody_answers_is_an_access_fault(bench: Bench, key: str, cause: int) -> None:
    bench.put(BASE + 0x100, i("wfi"))
    operands = {"rd": A0} if key == "lw" else {"rs2": A0}
    bench.put(BASE, i(key, rs1=A1, imm=0, **operands))
    bench.hart.set("mtvec", BASE + 0x100)
    bench.hart.set("x", DEVICE, A1)
    bench.hart.run()
    bench.hart.fail_access()
    assert bench.hart.run() == Halt()
    assert [bench.hart.get(name) for name in ("mcause", "mtval", "mepc")] == [cause, DEVICE, BASE]


def test_answers_without_a_question_are_refused(bench: Bench) -> None:
    with pytest.raises(ValueError, match="without an MmioRead"):
        bench.hart.complete_read(1)
    with pytest.raises(ValueError, match="without an access"):
        bench.hart.fail_access()


def test_no_interrupt_comes_between_a_device_and_the_load_that_asked_it(bench: Bench) -> None:
    bench.put(BASE + 0x100, i("wfi"))
    bench.put(BASE, i("lw", rd=A0, rs1=A1, imm=0), i("addi", rd=A2, rs1=0, imm=1))
    bench.hart.set("mtvec", BASE + 0x100)
    bench.hart.set("x", DEVICE, A1)
    bench.hart.set("mie", 1 << MEI)
    bench.hart.set("mstatus", MIE)
    assert bench.hart.run() == MmioRead(DEVICE, 4)
    bench.hart.set_line(MEI, True)
    bench.hart.complete_read(42)
    bench.hart.interrupt()
    assert bench.hart.run() == Interrupted()
    assert (bench.hart.get("x", A0), bench.hart.get("x", A2)) == (42, 0)
    assert bench.hart.get("pc") in (BASE + 4, BASE + 0x100)


def test_an_interrupt_line_enters_the_handler_of_its_number(bench: Bench) -> None:
    bench.put(BASE + 0x100 + 4 * MSI, i("jal", rd=0, imm=0))
    bench.put(BASE, i("jal", rd=0, imm=0))
    bench.hart.set("mtvec", BASE + 0x101)
    bench.hart.set("mie", 1 << MSI)
    bench.hart.set("mstatus", MIE)
    thread = threading.Thread(target=bench.hart.run)
    thread.start()
    bench.hart.set_line(MSI, True)
    while bench.hart.get("mcause") != 1 << 63 | MSI:
        time.sleep(0.001)
    bench.hart.interrupt()
    thread.join()
    assert bench.hart.get("mepc") == BASE


def test_a_waiting_hart_sleeps_until_a_line_rises(bench: Bench) -> None:
    bench.put(BASE, i("wfi"), i("addi", rd=A0, rs1=0, imm=1), csr("csrrw", "mie", rd=0, rs1=0), i("wfi"))
    bench.hart.set("mie", 1 << MEI)
    left: list[object] = []
    thread = threading.Thread(target=lambda: left.append(bench.hart.run()))
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive()
    assert bench.hart.get("x", A0) == 0
    bench.hart.set_line(MEI, True)
    thread.join()
    assert left == [Halt()]
    assert bench.hart.get("x", A0) == 1


def test_a_timer_ends_a_wait(bench: Bench) -> None:
    bench.put(BASE, i("wfi"), csr("csrrs", "time", rd=A0, rs1=0), csr("csrrw", "mie", rd=0, rs1=0), i("wfi"))
    bench.engine.set_time(1000)
    due = bench.engine.time() + 200_000
    bench.hart.set("mie", 1 << MTI)
    bench.hart.set("mtimecmp", due)
    assert bench.hart.run() == Halt()
    assert bench.hart.get("x", A0) >= due


def test_a_recalled_hart_comes_back_when_it_is_idle_or_else_soon(bench: Bench) -> None:
    bench.put(BASE, i("addi", rd=A0, rs1=A0, imm=1), i("wfi"), i("addi", rd=A0, rs1=A0, imm=1), i("jal", rd=0, imm=0))
    bench.hart.set("mie", 1 << MEI)
    bench.hart.recall()
    bench.hart.recall()
    assert bench.hart.run() == Recalled(idle=True)
    assert (bench.hart.get("x", A0), bench.hart.get("pc")) == (1, BASE + 8)
    bench.hart.recall()
    assert bench.hart.run() == Recalled(idle=False)
    assert (bench.hart.get("x", A0), bench.hart.get("pc")) == (2, BASE + 12)
    bench.hart.interrupt()
    assert bench.hart.run() == Interrupted()


def test_a_hart_that_stores_to_a_device_all_the_time_comes_back_for_a_recall_too(bench: Bench) -> None:
    bench.put(BASE, i("sw", rs1=A1, rs2=A0, imm=0), i("jal", rd=0, imm=-4))
    bench.hart.set("x", DEVICE, A1)
    for _ in range(100):
        bench.hart.recall()
        if (left := bench.hart.run()) != MmioWrite(DEVICE, 4, 0):
            break
    assert left == Recalled(idle=False)
    assert bench.hart.run() == MmioWrite(DEVICE, 4, 0)


def test_interrupt_ends_a_wait_and_a_run_that_has_not_begun(bench: Bench) -> None:
    bench.put(BASE, i("wfi"), i("jal", rd=0, imm=-4))
    bench.hart.set("mie", 1 << MEI)
    bench.hart.interrupt()
    assert bench.hart.run() == Interrupted()
    left: list[object] = []
    thread = threading.Thread(target=lambda: left.append(bench.hart.run()))
    thread.start()
    time.sleep(0.02)
    bench.hart.interrupt()
    thread.join()
    assert left == [Interrupted()]


def test_a_handler_that_traps_at_its_first_instruction_ends_the_machine(bench: Bench) -> None:
    bench.put(BASE)
    bench.memory.write(BASE, bytes(4))
    left = bench.hart.run()
    assert isinstance(left, Shutdown)
    assert "traps at once" in left.reason


def test_a_supervisor_call_under_our_own_sbi_is_a_hypercall(bench: Bench) -> None:
    bench.put(BASE, i("ecall"), i("ecall"))
    bench.hart.set("sbi", 1)
    bench.hart.set("mode", 1)
    bench.hart.set("pmpaddr0", (1 << 54) - 1)
    bench.hart.set("pmpcfg0", 0x1F)
    assert bench.hart.run() == Hypercall()
    assert bench.hart.get("pc") == BASE + 4


def test_code_that_changes_itself_is_executed_as_it_stands(bench: Bench) -> None:
    patch = RISCV.instructions["addi"].encode(rd=A0, rs1=0, imm=2)
    bench.put(
        BASE,
        i("sw", rs1=A1, rs2=A2, imm=4),
        i("addi", rd=A0, rs1=0, imm=1),
        i("wfi"),
    )
    bench.hart.set("x", BASE, A1)
    bench.hart.set("x", patch, A2)
    assert bench.hart.run() == Halt()
    assert bench.hart.get("x", A0) == 2


def test_an_instruction_may_lie_across_two_pages(bench: Bench) -> None:
    bench.put(BASE + 0xFFE, i("addi", rd=A0, rs1=0, imm=77), i("wfi"))
    assert bench.hart.run() == Halt()
    assert bench.hart.get("x", A0) == 77


def test_harts_add_to_one_counter_without_losing_any() -> None:
    bench = Bench(hart_count=3)
    bench.put(
        BASE,
        i("amoadd.d", rd=0, rs1=A1, rs2=A0),
        i("addi", rd=T0, rs1=T0, imm=-1),
        i("bne", rs1=T0, rs2=0, imm=-8),
        i("wfi"),
    )
    for hart in bench.engine.harts:
        for field, value, index in (("pc", BASE, 0), ("x", BASE + 0x800, A1), ("x", 1, A0), ("x", 500, T0)):
            hart.set(field, value, index)
    threads = [threading.Thread(target=hart.run) for hart in bench.engine.harts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int.from_bytes(bench.memory.read(BASE + 0x800, 8), "little") == 1500
    assert bench.engine.statistics()["instructions"] == 3 * (3 * 500 + 1)


def test_a_reservation_is_lost_to_another_harts_store() -> None:
    bench = Bench(hart_count=2)
    bench.put(BASE, i("lr.d", rd=A0, rs1=A1), i("ecall"), i("sc.d", rd=A0, rs1=A1, rs2=A1), i("ecall"))
    bench.hart.set("x", BASE + 0x800, A1)
    for field in ("flat", "fs"):
        bench.hart.set(field, 1)
    bench.hart.set("mode", 0)
    assert bench.hart.run() == SystemCall()
    other = bench.engine.harts[1]
    other.store(BASE + 0x800, 8, 5)
    assert bench.hart.run() == SystemCall()
    assert bench.hart.get("x", A0) == 1
    assert bench.memory.read(BASE + 0x800, 8) == (5).to_bytes(8, "little")


def test_saved_state_goes_on_elsewhere(bench: Bench) -> None:
    bench.put(BASE, i("addi", rd=A0, rs1=A0, imm=1), i("wfi"), i("addi", rd=A0, rs1=A0, imm=1), i("wfi"))
    bench.hart.set("x", 40, A0)
    assert bench.hart.run() == Halt()
    assert bench.hart.get("minstret") == 2
    other = Bench()
    other.memory.write(BASE, bench.memory.read(BASE, 16))
    other.hart.restore(bench.hart.save())
    assert other.hart.get("minstret") == 2
    assert other.hart.run() == Halt()
    assert other.hart.get("x", A0) == 42
    assert other.hart.get("minstret") == 4
    other.hart.set("minstret", 100)
    assert other.hart.get("minstret") == 100


def test_state_that_is_not_a_harts_is_refused(bench: Bench) -> None:
    saved = bench.hart.save()
    with pytest.raises(ValueError, match="missing or unknown: fcc"):
        bench.hart.restore({**saved, "fcc": [0]})
    with pytest.raises(ValueError, match="pc"):
        bench.hart.restore({name: value for name, value in saved.items() if name != "pc"})
    with pytest.raises(ValueError, match="x must be 32 values of 64 bits"):
        bench.hart.restore({**saved, "x": [0] * 31})
    with pytest.raises(ValueError, match="mode must be 1 values of 8 bits"):
        bench.hart.restore({**saved, "mode": [256]})


def test_control_registers_are_known_by_name(bench: Bench) -> None:
    bench.hart.set("fcsr", 0xE1 & 0x7F)
    assert (bench.hart.get("frm"), bench.hart.get("fflags")) == (3, 1)
    bench.hart.set("sie", 1 << SSI)
    assert bench.hart.get("mie") == 0  # nothing is delegated
    bench.hart.set("mideleg", 1 << SSI)
    bench.hart.set("sie", 1 << SSI)
    assert bench.hart.get("mie") == 1 << SSI
    assert bench.hart.get("misa") >> 62 == 2
    with pytest.raises(KeyError):
        bench.hart.get("eflags")
    with pytest.raises(KeyError):
        bench.hart.set("eflags", 1)
    with pytest.raises(ValueError, match="mhartid has 64 bits"):
        bench.hart.set("mhartid", 1 << 64)
    with pytest.raises(ValueError, match="mvendorid cannot be written"):
        bench.hart.set("mvendorid", 1)
    with pytest.raises(ValueError, match="mode has 8 bits"):
        bench.hart.set("mode", 256)


def test_pages_that_the_guest_changed_are_in_the_dirty_log(bench: Bench) -> None:
    bench.put(BASE, i("sd", rs1=A1, rs2=A0, imm=0), i("wfi"))
    bench.hart.set("x", BASE + 0x2FFC, A1)
    bench.engine.start_dirty_log()
    bench.hart.run()
    (log,) = bench.engine.take_dirty_log()
    assert [index for index, mark in enumerate(log) if mark] == [2, 3]
    assert not any(bench.engine.take_dirty_log()[0])


def test_memory_may_not_overlap(bench: Bench) -> None:
    with pytest.raises(ValueError, match="overlaps"):
        bench.engine.add_memory(GuestMemory(BASE + SIZE - 4096, 8192))


def test_32_bit_registers_wrap_at_32_bits() -> None:
    bench = Bench(xlen=32)
    bench.put(BASE, i("addi", rd=A0, rs1=A0, imm=1), i("auipc", rd=A1, imm=-4096), i("wfi"))
    bench.hart.set("x", 0xFFFF_FFFF, A0)
    assert bench.hart.run() == Halt()
    assert (bench.hart.get("x", A0), bench.hart.get("x", A1)) == (0, BASE + 4 - 4096)
