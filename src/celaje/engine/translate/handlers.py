"""Handlers: for each instruction the host code that does it, goes to the next operation and stays in registers.

A handler is a function `(st, op, tlb, remaining)`: the hart's block, the operation in hand, the context in use, and the
instructions left until the next look at the world. It ends in a tail call of the next operation's handler. LLVM's
`preserve_nonecc` keeps the four in host registers and `musttail` makes the call a jump, so a hart runs without a stack
frame (docs/engine.md tells the whole story).

The semantic function of an instruction is rendered twice where it can leave the straight path:

* fast: what happens nearly always; a memory access compares one tag, a floating-point instruction one byte. Where that
  fails, it tail-calls the full handler with the same operation, so the fast one has nothing to save and no frame.
* full: everything, with calls out of line, traps and exits.

An instruction whose fast rendering would need what only the full one has (a trap, a control register) is rendered only
in full.
"""

from __future__ import annotations

from collections.abc import Mapping

from celaje.engine.translate import host_float
from celaje.engine.translate.decoding import code_written
from celaje.engine.translate.layout import (
    ADDEND,
    DATA_ENTRIES,
    EXIT_HYPERCALL,
    EXIT_SYSTEM_CALL,
    FETCH_ENTRIES,
    FETCH_PART,
    OPERATION,
    OPERATION_IMMEDIATE,
    OPERATION_RD,
    OPERATION_RS1,
    OPERATION_RS2,
    PAGE_OPERATIONS,
    PAGE_SOURCE,
    PAGE_STRIDE,
    TAG_READ,
    TAG_WRITE,
    F,
)
from celaje.engine.translate.memory import (
    FAILED,
    check_slowly,
    load_slowly,
    resolve_atomic,
    store_slowly,
    zero_slowly,
)
from celaje.engine.translate.reading import LlvmModule
from celaje.engine.translate.routines import MachineReading, use_rounding
from celaje.isa.riscv import float as riscv_float
from celaje.isa.riscv.privilege import LOAD, LOAD_MISALIGNED, STORE, STORE_MISALIGNED
from celaje.isa.semantics import Routine, Value
from celaje.isa.table import Instruction

CONVENTION = "preserve_nonecc"
PARAMETERS = "ptr %st, ptr %op, ptr %tlb, i64 %rem"
ATTRIBUTES = f"nounwind {host_float.FUNCTION_ATTRIBUTES} \"no-builtins\" \"no-jump-tables\"=\"false\""

ATOMIC_NAMES = {
    "swap": "xchg",
    "add": "add",
    "xor": "xor",
    "and": "and",
    "or": "or",
    "min": "min",
    "max": "max",
    "minu": "umin",
    "maxu": "umax",
}
FLOAT_REGISTERS = ("frd", "frs1", "frs2", "frs3")


class NeedsFull(Exception):
    """The fast rendering of an instruction came upon what only the full one can do."""


class HandlerReading(MachineReading):
    """Renders handlers: one instruction, or two that follow each other."""

    def __init__(self, module: LlvmModule, *, full: bool) -> None:
        super().__init__(module)
        self._full = full
        self._op = "%op"
        self._rem = "%rem"
        self._instruction: Instruction | None = None
        self._length = 4
        self._constants: dict[str, int] = {}
        self._same = False  # rd is also rs1
        self._full_name = ""
        self._in_page: bool | None = None
        self._backward = False
        self._system = False
        # What earlier parts of a sequence have seen to: floating point is ready, FS is dirty.
        self._float_ready = False
        self._float_dirty = False

    def begin(
        self,
        instruction: Instruction,
        length: int,
        full_name: str,
        constants: Mapping[str, int] | None = None,
        *,
        same: bool = False,
        in_page: bool | None = None,
        backward: bool = False,
    ) -> None:
        """Be about this instruction from now on. `constants`: operands' values that the variant is for."""
        self._instruction = instruction
        self._length = length
        self._full_name = full_name
        self._constants = dict(constants or {})
        self._same = same
        self._in_page = in_page
        self._backward = backward
        if self._full:
            self.write("pc", self.here)
            self.line(f"store i64 {self._rem}, ptr {self.address_of('remaining')}")

    # ---- going on

    def tail(self, handler: str, op: str | None = None, tlb: str = "%tlb", rem: str | None = None) -> None:
        """End the handler by becoming another."""
        arguments = f"ptr %st, ptr {op or self._op}, ptr {tlb}, i64 {rem or self._rem}"
        self.line(f"musttail call {CONVENTION} void {handler}({arguments})")
        self.end("ret void")

    def retire(self) -> str:
        """One instruction is done: the new count."""
        self._rem = self.emit(64, f"sub i64 {self._rem}, 1").text
        return self._rem

    def go_on(self) -> None:
        """Be about the next operation, in the same handler."""
        self.retire()
        self._op = self.next_operation()

    def next_operation(self) -> str:
        """The operation after this one."""
        return self.emit(-1, f"getelementptr i8, ptr {self._op}, i64 {self._length // 2 * OPERATION}").text

    def dispatch(self, op: str, tlb: str = "%tlb") -> None:
        """Go on with operation `op`."""
        handler = self.emit(-1, f"load ptr, ptr {op}").text
        self.tail(handler, op, tlb)

    def full_unless(self, condition: Value) -> None:
        """Leave the instruction to its full handler where the condition does not hold."""
        go_on, other = self.fresh()[1:], self.fresh()[1:]
        self.branch_to(condition, go_on, other, likely=True)
        self.label(other)
        self.tail(f"@{self._full_name}")
        self.label(go_on)

    def finish(self) -> None:
        """The instruction is done and goes on to the next."""
        if self._ended:
            return
        self.retire()
        following = self.next_operation()
        if self._system:
            self.tail("@resume_after", following)
        else:
            self.dispatch(following)

    def look_up_when_due(self, due: str, otherwise: str) -> None:
        """To handler `due` when the count has run out, else to `otherwise`."""
        now, later = self.fresh()[1:], self.fresh()[1:]
        self.branch_to(Value(self, 64, self._rem).less(0), now, later, likely=False)
        self.label(now)
        self.tail(due)
        self.label(later)
        self.tail(otherwise)

    # ---- operands

    def _record(self, offset: int, width: int) -> Value:
        pointer = self.emit(-1, f"getelementptr i8, ptr {self._op}, i64 {offset}").text
        return self.emit(width, f"load i{width}, ptr {pointer}")

    def _register_offset(self, name: str) -> Value:
        if name in ("rd", "frd"):
            return self._record(OPERATION_RD, 16).zext(64)
        if name == "frs3":
            return self._record(OPERATION_IMMEDIATE, 32).zext(64) & 0xFF
        if name in ("rs1", "frs1"):
            return self._register_offset("rd") if self._same else self._record(OPERATION_RS1, 8).zext(64)
        return self._record(OPERATION_RS2, 8).zext(64)

    def operand(self, name: str) -> Value:
        if self._instruction is None or name not in self._instruction.operands:
            raise AttributeError(f"the instruction has no operand {name}")
        if name in self._constants:
            return self.constant(self._constants[name], 64)
        if name in ("rs1", "rs2", *FLOAT_REGISTERS):
            base = F if name in FLOAT_REGISTERS else 0
            offset = self._register_offset(name) + base
            return self.emit(64, f"load i64, ptr {self.emit(-1, f'getelementptr i8, ptr %st, i64 {offset.text}').text}")
        immediate = self._record(OPERATION_IMMEDIATE, 32)
        if name in ("imm", "shamt", "csr"):
            return immediate.sext(64)
        if name == "rm":
            return (immediate >> 8).trunc(8) & 7
        if name == "pred":
            return (immediate >> 4).trunc(8)
        if name == "succ":
            return immediate.trunc(8) & 15
        raise AttributeError(f"no operand is called {name}")

    def number_of(self, name: str) -> Value:
        raw = self._record(OPERATION_RS1 if name in ("rs1", "uimm") else OPERATION_RS2, 8)
        return raw if name == "uimm" else raw >> 3

    def set_operand(self, name: str, value: Value) -> None:
        if self._constants.get("rd") == 0 and name == "rd":
            return
        offset = self._register_offset(name) + (F if name == "frd" else 0)
        pointer = self.emit(-1, f"getelementptr i8, ptr %st, i64 {offset.text}").text
        self.line(f"store i64 {value.text}, ptr {pointer}")
        if name == "frd" and not self._float_dirty:
            self.write("fs", 3)
            self._float_dirty = not self._full

    # ---- program flow

    @property
    def here(self) -> Value:
        return (self.emit(64, f"ptrtoint ptr {self._op} to i64") >> 3) + self.read("delta")

    @property
    def following(self) -> Value:
        return self.here + self._length

    @property
    def instruction_bits(self) -> Value:
        operation = self.emit(64, f"ptrtoint ptr {self._op} to i64")
        page = operation & ~(PAGE_STRIDE - 1)
        offset = (operation - page - PAGE_OPERATIONS) >> 3
        return self.host_load(page + PAGE_SOURCE + offset, 8 * self._length).zext(64)

    def branch(self, condition: Value) -> None:
        taken, straight = self.fresh()[1:], self.fresh()[1:]
        self.branch_to(condition, taken, straight)
        before = self._rem
        self.label(taken)
        self.jump()
        self._rem = before
        self.label(straight)
        self.retire()
        self.dispatch(self.next_operation())

    def jump(self) -> None:
        distance = self._record(OPERATION_IMMEDIATE, 32).sext(64)
        if not self._in_page:
            self.write("pc", self.here + distance)
            self.retire()
            self.look_up_when_due("@events", "@look_up")
            return
        self.retire()
        target = self.emit(-1, f"getelementptr i8, ptr {self._op}, i64 {distance.text}").text
        if self._backward:
            now, later = self.fresh()[1:], self.fresh()[1:]
            self.branch_to(Value(self, 64, self._rem).less(0), now, later, likely=False)
            self.label(now)
            self.tail("@poll", target)
            self.label(later)
        self.dispatch(target)

    def jump_to(self, target: Value) -> None:
        self.retire()
        if self._full:
            self.write("pc", target)
            self.tail("@resume")
            return
        now, later = self.fresh()[1:], self.fresh()[1:]
        self.branch_to(Value(self, 64, self._rem).less(0), now, later, likely=False)
        self.label(now)
        self.write("pc", target)
        self.tail("@events")
        self.label(later)
        self.enter(target)

    def enter(self, target: Value) -> None:
        """Go to a guest address: through its page's fetch entry, or out of line."""
        index = ((target >> 12) & (FETCH_ENTRIES - 1)) << 4
        entry = self.emit(-1, f"getelementptr i8, ptr %tlb, i64 {(index + FETCH_PART).text}").text
        tag = self.emit(64, f"load i64, ptr {entry}")
        page = target & ~4095
        hit, miss = self.fresh()[1:], self.fresh()[1:]
        self.branch_to(tag.eq(page), hit, miss, likely=True)
        self.label(miss)
        self.write("pc", target)
        self.tail("@fetch")
        self.label(hit)
        operations = self.emit(64, f"load i64, ptr {self.emit(-1, f'getelementptr i8, ptr {entry}, i64 8').text}")
        self.write("delta", page - (operations >> 3))
        operation = operations + ((target & 0xFFE) << 3)
        self.dispatch(self.pointer(operation))

    def trap(self, cause: Value | int, value: Value | int) -> None:
        self._require_full()
        self.write("trap_cause", cause)
        self.write("trap_value", value)
        self.tail("@deliver")

    def _require_full(self) -> None:
        if not self._full:
            raise NeedsFull

    def call(self, routine: Routine, *arguments: Value | int) -> tuple[Value, ...]:
        self._require_full()
        return super().call(routine, *arguments)

    def _deliver_unless(self, done: Value) -> None:
        """Go on only if an access out of line was done."""
        go_on, failed = self.fresh()[1:], self.fresh()[1:]
        self.branch_to(done, go_on, failed, likely=True)
        self.label(failed)
        self.tail("@deliver")
        self.label(go_on)

    # ---- memory

    def _fast(self, address: Value, size: int, tag_offset: int) -> Value:
        """The host address of an access whose page is entered; otherwise the full handler takes over."""
        index = (address >> 7) & ((DATA_ENTRIES - 1) << 5)
        entry = self.emit(-1, f"getelementptr i8, ptr %tlb, i64 {index.text}").text
        tag_at = self.emit(-1, f"getelementptr i8, ptr {entry}, i64 {tag_offset}").text
        tag = self.emit(64, f"load i64, ptr {tag_at}")
        hit, miss = self.fresh()[1:], self.fresh()[1:]
        # the low bits stay in the comparison, so that a misaligned address misses
        self.branch_to(tag.eq(address & (~4095 | (size - 1))), hit, miss, likely=True)
        self.label(miss)
        self.tail(f"@{self._full_name}")
        self.label(hit)
        addend = self.emit(64, f"load i64, ptr {self.emit(-1, f'getelementptr i8, ptr {entry}, i64 {ADDEND}').text}")
        return address + addend

    def load(self, address: Value, size: int) -> Value:
        if self._full:
            status, value = self.call(load_slowly, address, size)
            self._deliver_unless(status.ne(FAILED))
            return value.trunc(8 * size)
        pointer = self.pointer(self._fast(address, size, TAG_READ))
        return self.emit(8 * size, f"load atomic i{8 * size}, ptr {pointer} monotonic, align {size}")

    def store(self, address: Value, value: Value) -> None:
        size = value.width // 8
        if self._full:
            status = self.call(store_slowly, address, size, value.zext(64))[0]
            self._deliver_unless(status.ne(FAILED))
            return
        pointer = self.pointer(self._fast(address, size, TAG_WRITE))
        self.line(f"store atomic i{value.width} {value.text}, ptr {pointer} monotonic, align {size}")

    def _atomic_place(self, address: Value, size: int, access: int, cause: int) -> Value:
        if not self._full:
            return self._fast(address, size, TAG_READ if access == LOAD else TAG_WRITE)
        status, host = self.call(resolve_atomic, address, size, access, cause)
        self._deliver_unless(status.ne(FAILED))
        return host

    def _wrote(self, address: Value, size: int) -> None:
        if self._full:
            self.call(code_written, self.read("resolved_page"), address & 4095, size)

    def atomic(self, operation: str, address: Value, value: Value) -> Value:
        size, kind = value.width // 8, f"i{value.width}"
        pointer = self.pointer(self._atomic_place(address, size, STORE, STORE_MISALIGNED))
        name = ATOMIC_NAMES[operation]
        old = self.emit(value.width, f"atomicrmw {name} ptr {pointer}, {kind} {value.text} seq_cst, align {size}")
        self._wrote(address, size)
        return old

    def load_reserved(self, address: Value, size: int) -> Value:
        host = self._atomic_place(address, size, LOAD, LOAD_MISALIGNED)
        value = self.emit(8 * size, f"load atomic i{8 * size}, ptr {self.pointer(host)} seq_cst, align {size}")
        self.write("reservation", host)
        self.write("reserved_value", value.zext(64))
        return value

    def store_conditional(self, address: Value, value: Value) -> Value:
        size, kind = value.width // 8, f"i{value.width}"
        host = self._atomic_place(address, size, STORE, STORE_MISALIGNED)
        failed = self.variable(1, 1)
        held = self.read("reservation").eq(host)
        self.write("reservation", -1)
        with self.when(held):
            expected = self.read("reserved_value").trunc(value.width)
            pair = self.emit(
                -1,
                f"cmpxchg ptr {self.pointer(host)}, {kind} {expected.text}, {kind} {value.text} seq_cst seq_cst,"
                f" align {size}",
            )
            failed.set(self.emit(1, f"extractvalue {{{kind}, i1}} {pair.text}, 1").eq(0))
            self._wrote(address, size)
        return failed.get()

    def zero_block(self, address: Value, size: int) -> None:
        start = address & ~(size - 1)
        if self._full:
            status = self.call(zero_slowly, start, size)[0]
            # the fault shows the address as the instruction has it
            with self.when(status.eq(FAILED)):
                self.write("trap_value", address)
                self.tail("@deliver")
            return
        pointer = self.pointer(self._fast(start, 1, TAG_WRITE))
        self.line(f"store i{8 * size} 0, ptr {pointer}, align {size}")

    def check_block(self, address: Value, size: int) -> None:
        status = self.call(check_slowly, address & ~(size - 1), size)[0]
        with self.when(status.eq(FAILED)):
            self.write("trap_value", address)
            self.tail("@deliver")

    def fence(self, stores_before_loads: Value | None = None) -> None:
        if stores_before_loads is None:
            self.line("fence seq_cst")
            return
        self.line("fence acq_rel")
        with self.when(stores_before_loads):
            self.line("fence seq_cst")

    def fence_instructions(self) -> None:
        self._system = True
        super().fence_instructions()

    def flush_translations(self, address: Value, all_addresses: Value) -> None:
        self._system = True
        super().flush_translations(address, all_addresses)

    # ---- leaving

    def wait(self) -> None:
        self._require_full()
        self.write("pc", self.following)
        self.retire()
        self.tail("@sleep")

    def _leave(self, reason: int) -> None:
        self._require_full()
        self.write("pc", self.following)
        before = self._rem
        self.line(f"store i64 {self.retire()}, ptr {self.address_of('remaining')}")
        self._rem = before
        self.write("exit", reason)
        self.end("ret void")

    def hypercall(self) -> None:
        self._leave(EXIT_HYPERCALL)

    def system_call(self) -> None:
        self._leave(EXIT_SYSTEM_CALL)

    # ---- floating point

    def float_enabled(self) -> None:
        if self._full:
            riscv_float.float_enabled(self)
            return
        # One byte for both questions, whether or not this instruction rounds: a guest that has frm ask for ties away
        # pays for it in its loads too.
        if not self._float_ready:
            self.full_unless(self.read("float_ready").ne(0))
        self._float_ready = True

    def float_rounding(self) -> Value:
        if self._full:
            return riscv_float.float_rounding(self)
        rounding = self._constants.get("rm")
        if rounding is None:
            raise NeedsFull
        self.float_enabled()
        return self.constant(rounding, 3)

    def float_operation(self, operation: str, *operands: Value, rounding: Value | None = None) -> Value:
        static = self._constants.get("rm", riscv_float.DYNAMIC)
        if rounding is not None and static != riscv_float.DYNAMIC:
            if not host_float.needs_no_mode(operation, operands[0].width, static):
                raise NeedsFull
            return host_float.render(self, operation, operands, static)
        if rounding is None or not self._full:
            return host_float.render(self, operation, operands)
        result_width = _result_width(operation, operands[0].width)
        result = self.variable(0, result_width)
        with self.when(rounding.below(host_float.HOST_MODES)):
            host_float.load_guest_rounding(self, rounding)
            result.set(host_float.render(self, operation, operands))
            self.call(use_rounding)
        with self.otherwise():
            result.set(riscv_float.float_operation(self, operation, *operands, rounding=rounding))
        return result.get()

    def set_system(self) -> None:
        """What follows must look whether mode, translation or pending interrupts changed."""
        self._system = True


def _result_width(operation: str, width: int) -> int:
    """Bits of the result of one of `Semantics.float_operation`'s operations."""
    last = operation.rpartition("_")[2]
    return int(last) if last.isdigit() else width
