"""Routines as LLVM functions, and what they and handlers share beyond values: the clock, counters, translation, status.

A routine is called, gives results and goes nowhere by itself. What only an instruction can do (jump, trap, touch
virtual memory) is `handlers.py`'s.
"""

from __future__ import annotations

from typing import Any

from celaje.engine.translate import host_float
from celaje.engine.translate.memory import (
    forget_address_space,
    forget_instructions,
    forget_page,
    forget_translations,
    memory_at,
)
from celaje.engine.translate.reading import LlvmModule, Reading
from celaje.isa.semantics import Routine, Value, routine


@routine(parameters=(), results=(64,))
def clock_now(h: Any) -> None:
    """Ticks of the guest's 10 MHz clock: the host's monotonic clock with an offset."""
    h.line(f"%clock = load ptr, ptr {h.address_of('clock_gettime')}")
    h.line(f"call i32 %clock(i32 1, ptr {h.address_of('timespec')})")
    seconds, nanoseconds = h.read("timespec", 0), h.read("timespec", 1)
    h.give(seconds * 10_000_000 + nanoseconds.divided_unsigned(100) + h.clock_offset)


@routine(parameters=(), results=())
def use_rounding(h: Any) -> None:
    """Set the host's rounding mode to frm's, where the host has it, and `float_ready`."""
    rounding = h.frm.trunc(3)
    known = rounding.below(host_float.HOST_MODES)
    h.float_ready = (known & h.fs.ne(0)).zext(8)
    with h.when(known):
        host_float.load_guest_rounding(h, rounding)
    h.give()


class MachineReading(Reading):
    """What routines and handlers share beyond values: the clock, counters, translation, floating-point status."""

    def block_address(self) -> Value:
        """The address of the hart's block."""
        return self.emit(64, "ptrtoint ptr %st to i64")

    def clock(self) -> Value:
        return self.call(clock_now)[0]

    def retired(self) -> Value:
        return self.read("retired_base") - self.read("remaining")

    def translation_changed(self) -> None:
        self.write("context_stale", 1)

    def translation_root_changed(self) -> None:
        self.call(forget_address_space)

    def flush_translations(self, address: Value, all_addresses: Value) -> None:
        with self.when(all_addresses):
            self.call(forget_translations)
        with self.otherwise():
            self.call(forget_page, address)

    def fence_instructions(self) -> None:
        self.call(forget_instructions)

    def physical_load(self, address: Value, size: int) -> tuple[Value, Value]:
        host = self.call(memory_at, address)[0]
        value = self.variable(0, 8 * size)
        present = host.ne(0)
        with self.when(present):
            pointer = self.pointer(host)
            value.set(self.emit(8 * size, f"load atomic i{8 * size}, ptr {pointer} acquire, align {size}"))
        return value.get(), present

    def physical_set_bits(self, address: Value, expected: Value, bits: Value) -> Value:
        host, dirty, _ = self.call(memory_at, address)
        self.host_store(dirty, self.constant(1, 8))
        kind = f"i{bits.width}"
        new = expected | bits
        pair = self.emit(
            -1,
            f"cmpxchg ptr {self.pointer(host)}, {kind} {expected.text}, {kind} {new.text} seq_cst seq_cst,"
            f" align {bits.width // 8}",
        )
        return self.emit(1, f"extractvalue {{{kind}, i1}} {pair.text}, 1")

    def accrue(self, flags: Value | int) -> None:
        bits = flags.zext(8) if isinstance(flags, Value) else self.constant(flags, 8)
        self.write("fflags", self.read("fflags") | bits)
        self.write("fs", 3)

    def float_flags(self) -> Value:
        return self.read("fflags") | host_float.host_flags(self)

    def set_float_flags(self, flags: Value) -> None:
        self.write("fflags", flags & 31)
        host_float.clear_host_flags(self)

    def rounding_changed(self) -> None:
        self.call(use_rounding)

    # What only instructions do. A routine that comes here is in error.

    def _only_in_instructions(self, *_: Any, **__: Any) -> Any:
        raise TypeError("only an instruction can do this, not a routine")

    operand = set_operand = number_of = branch = jump = jump_to = trap = load = store = atomic = _only_in_instructions
    load_reserved = store_conditional = zero_block = check_block = fence = wait = _only_in_instructions
    hypercall = system_call = float_rounding = float_enabled = float_operation = give = _only_in_instructions
    here = following = instruction_bits = property(_only_in_instructions)


class RoutineReading(MachineReading):
    """Renders one routine as a function."""

    def __init__(self, module: LlvmModule, routine: Routine) -> None:
        super().__init__(module)
        self._routine = routine

    def give(self, *results: Value | int) -> None:
        widths = self._routine.results
        if len(results) != len(widths):
            raise TypeError(f"{self._routine.name} gives {len(widths)} results, not {len(results)}")
        if not widths:
            self.end("ret void")
            return
        kind = "{" + ", ".join(f"i{width}" for width in widths) + "}"
        whole = "undef"
        for index, (width, result) in enumerate(zip(widths, results, strict=True)):
            value = result if isinstance(result, Value) else self.constant(result, width)
            if value.width != width:
                raise TypeError(f"{self._routine.name} gives {width} bits at {index}, not {value.width}")
            whole = self.emit(-1, f"insertvalue {kind} {whole}, i{width} {value.text}, {index}").text
        self.end(f"ret {kind} {whole}")


def render_routine(module: LlvmModule, routine: Routine) -> str:
    """A routine as the text of an LLVM function."""
    reading = RoutineReading(module, routine)
    parameters = [Value(reading, width, f"%a{index}") for index, width in enumerate(routine.parameters)]
    routine.function(reading, *parameters)
    if not reading.ended:
        reading.end("unreachable")
    kind = "{" + ", ".join(f"i{width}" for width in routine.results) + "}" if routine.results else "void"
    texts = ", ".join(["ptr %st", *(f"i{width} %a{index}" for index, width in enumerate(routine.parameters))])
    lines = [f"define internal fastcc {kind} @{routine.name}({texts}) noinline #0 {{"]
    return "\n".join([*lines, *reading.body(), "}"])
