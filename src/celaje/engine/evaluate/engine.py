"""The reference evaluator: the engine that executes the tables as they are read, one instruction after the other.

It is slow and plain on purpose. Harts take turns under one lock, a few instructions at a time, so every memory access
is atomic and sequentially consistent. Nothing about code is remembered except what bits mean, so self-modifying code
needs no care. Interrupts are looked for at each turn's start, and right after whatever may have made one due.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Any

from celaje.engine.evaluate.memory import Leave, MemoryAccess
from celaje.engine.evaluate.reading import Library, Trap
from celaje.engine.memory import GuestMemory
from celaje.engine.protocol import Exit, Fault, Halt, Hypercall, Interrupted, Recalled, Shutdown, SystemCall, Watched
from celaje.isa.riscv import csr, trap
from celaje.isa.riscv.instructions import RISCV
from celaje.isa.riscv.privilege import ILLEGAL, INTERRUPTS, MTI, STI
from celaje.isa.riscv.saved_state import checked
from celaje.isa.riscv.state import FIELDS, MACHINE, STATE, USER
from celaje.isa.table import Decoded

TURN = 64  # instructions that a hart executes before it lets another have the lock
RECALL_RUNS = 8  # so many runs end in other exits before a hart that was recalled comes back for that
TICK = 100  # nanoseconds of one tick of the clock: 10 MHz
KNOWN_INSTRUCTIONS = 1 << 16  # decoded bit patterns kept before all are forgotten
SAME_TRAPS = 4  # identical traps without an instruction between, after which a hart cannot go on
SYSTEM_OPCODE = 0x73
NEVER = (1 << 64) - 1
LONGEST_SLEEP = 3600.0
# What csr.py writes as an instruction would, which is counted after its write.
COUNTERS = {"mcycle": "cycle_offset", "minstret": "instret_offset"}
ALL_MEMORY = 0x1F  # the pmpcfg of an entry that allows everything


class State:
    """A hart's registers: an attribute a field of `celaje.isa.riscv.state`, a list where the field is an array."""

    def __init__(self) -> None:
        for field in STATE:
            setattr(self, field.name, 0 if field.count == 1 else [0] * field.count)


class Meaning:
    """What instruction bits mean, as functions; shared by all harts."""

    def __init__(self, xlen: int) -> None:
        self.library = Library(xlen)
        self._decode = RISCV.decoder(xlen)
        self._mask = (1 << xlen) - 1
        self._known: dict[int, tuple[Callable[..., None], list[int], int] | None] = {}
        self._functions: dict[str, tuple[Callable[..., None], list[str]]] = {}

    def of(self, bits: int) -> tuple[Callable[..., None], list[int], int] | None:
        """(function, its operands, length in bytes), or None for bits that mean nothing."""
        if bits not in self._known:
            if len(self._known) >= KNOWN_INSTRUCTIONS:
                self._known.clear()
            decoded = self._decode(bits)
            self._known[bits] = None if decoded is None else self._bind(decoded)
        return self._known[bits]

    def _bind(self, decoded: Decoded) -> tuple[Callable[..., None], list[int], int]:
        entry = decoded.instruction
        name = entry.base or next(key for key, value in RISCV.instructions.items() if value is entry)
        if name not in self._functions:
            full = RISCV.instructions[name]
            self._functions[name] = self.library.instruction(full).function, list(full.operands)
        function, operands = self._functions[name]
        return function, [decoded.operands[operand] & self._mask for operand in operands], entry.length


@functools.cache
def meaning(xlen: int) -> Meaning:
    """The one of this register width; engines share it, since it holds nothing of theirs."""
    return Meaning(xlen)


class EvaluateHart(MemoryAccess):
    """One hart. Its public part is `celaje.engine.protocol.Hart`; the rest is what rendered functions call."""

    def __init__(self, engine: EvaluateEngine, index: int) -> None:
        self.index = index
        state: Any = State()  # its attributes come from a table
        state.mode = MACHINE
        state.mhartid = index
        state.reservation = state.stimecmp = state.mtimecmp = NEVER
        self.retired = 0
        super().__init__(state, engine.meaning.library, engine.memories)
        self._engine = engine
        self._meaning = engine.meaning
        self._csr_access = engine.meaning.library.routine(csr.csr_access).function
        self._take_trap = engine.meaning.library.routine(trap.take_trap).function
        self._update_pending = engine.meaning.library.routine(trap.update_pending).function
        self._choose_interrupt = engine.meaning.library.routine(trap.choose_interrupt).function
        self._woken = threading.Condition()
        self._stop = False
        self._look = True  # something changed that may have made an interrupt due
        self._waits = False
        self._recalled = 0  # runs until the hart comes back in any case; 0: it was not recalled
        self._exit: Exit | None = None
        self._last_trap: tuple[int, ...] = ()
        self._same_traps = 0

    # ---- the protocol

    def run(self) -> Exit:
        """Execute until something outside is needed."""
        if self._recalled:
            self._recalled -= 1
            if not self._recalled:
                return Recalled(False)
        while True:
            with self._engine.lock:
                left = self._turn()
            if left is not None:
                return left
            if self._recalled:
                self._recalled, idle, self._waits = 0, self._waits, False
                return Recalled(idle)
            if self._waits:
                self._waits = False
                if not self._sleep():
                    return Halt()

    def complete_read(self, value: int) -> None:
        """The value that the last MmioRead asked for."""
        self.complete(value)

    def fail_access(self) -> None:
        """Nothing answers at the last MMIO address."""
        self.fail()

    def interrupt(self) -> None:
        """Make `run` return Interrupted."""
        with self._woken:
            self._stop = True
            self._woken.notify_all()

    def recall(self) -> None:
        """Come back when idle, or after a whole turn, or instead of a later run where turns end in other exits."""
        self._recalled = self._recalled or RECALL_RUNS

    def set_line(self, line: int, level: bool) -> None:
        """Drive an interrupt line."""
        with self._woken:
            self.state.lines[line] = int(level)
            self._look = True
            self._woken.notify_all()

    def flush_translations(self) -> None:
        """Forget translations."""
        with self._engine.lock:
            self.translation_changed()

    def flush_instructions(self) -> None:
        """Nothing: instructions are fetched from memory each time."""

    def get(self, field: str, index: int = 0) -> int:
        """A state field, else a control register by name."""
        if field in FIELDS:
            value = getattr(self.state, field)
            return int(value if FIELDS[field].count == 1 else value[index])
        return self._control(field, csr.READ, 0)

    def set(self, field: str, value: int, index: int = 0) -> None:
        """Set a state field, else a control register by name."""
        width = FIELDS[field].width if field in FIELDS else self._engine.xlen
        if not 0 <= value < 1 << width:
            raise ValueError(f"{field} has {width} bits; {value:#x} does not fit")
        if field not in FIELDS:
            self._control(field, csr.WRITE, value)
        elif FIELDS[field].count == 1:
            setattr(self.state, field, value)
        elif (field, index) != ("x", 0):
            getattr(self.state, field)[index] = value
        if field == "flat" and value:
            self.state.mode = USER
            self.state.pmpaddr[0], self.state.pmpcfg[0] = (1 << 54) - 1, ALL_MEMORY
        if field in ("pmpcfg", "flat"):
            active = [number for number, entry in enumerate(self.state.pmpcfg) if entry & 0x18]
            self.state.pmp_active = max(active, default=-1) + 1
        if field == "pc":  # an instruction that was answered is not the next one any more
            self._asked = None
        with self._woken:  # mtimecmp may be set while the hart sleeps
            self._look = True
            self._woken.notify_all()
        if field != "mtimecmp":
            self.translation_changed()

    def _control(self, name: str, operation: int, value: int) -> int:
        """Access a control register as machine mode with floating point on would."""
        s = self.state
        mode, fs = s.mode, s.fs
        s.mode, s.fs = MACHINE, fs or 1
        old, refused = self._csr_access(s, self, csr.NUMBERS[name], operation, value)
        s.mode = mode
        if operation == csr.READ or name not in ("mstatus", "sstatus"):
            s.fs = fs
        if refused and operation == csr.READ:
            raise KeyError(name)
        if refused:
            raise ValueError(f"{name} cannot be written")
        if operation == csr.WRITE and name in COUNTERS:
            setattr(s, COUNTERS[name], (getattr(s, COUNTERS[name]) + 1) & NEVER)
        return int(old) & self._mask

    def save(self) -> dict[str, list[int]]:
        """Every field as a list; a reservation is no part of it."""
        values = {field.name: getattr(self.state, field.name) for field in STATE}
        values["reservation"] = NEVER
        for name in COUNTERS.values():  # counts go on from here in a hart that has retired nothing
            values[name] = (values[name] + self.retired) & NEVER
        return {name: list(value) if FIELDS[name].count > 1 else [value] for name, value in values.items()}

    def restore(self, state: dict[str, list[int]]) -> None:
        """Put back what `save` gave."""
        state = checked(state, self._engine.xlen)
        for name, values in state.items():
            setattr(self.state, name, list(values) if FIELDS[name].count > 1 else values[0])
        for name in COUNTERS.values():
            setattr(self.state, name, (state[name][0] - self.retired) & NEVER)
        self._asked = None
        self._look = True
        self.translation_changed()

    # ---- executing

    def _turn(self) -> Exit | None:
        """Up to TURN instructions; an exit where one is needed. The caller holds the engine's lock."""
        self._look = True
        for _ in range(TURN):
            if not self.awaits_device:
                if self._stop:
                    self._stop = False
                    return Interrupted()
                if self.watched:
                    self.watched = False
                    return Watched()
                if self._look:
                    self._look_for_interrupt()
            left = self._step()
            if left is not None:
                return left
            if self._waits:
                return None
        return None

    def _step(self) -> Exit | None:
        s = self.state
        bits = 0
        try:
            bits = self.fetch(s.pc)
            meaning = self._meaning.of(bits)
            if meaning is None:
                raise Trap(ILLEGAL, bits)
            function, operands, length = meaning
            function(s, self, s.pc, (s.pc + length) & self._mask, bits, *operands)
        except Trap as taken:
            self._asked = None
            return self._trapped(taken.cause, taken.value)
        except Leave as leave:
            return leave.exit
        self._asked = None
        self.retired += 1
        self._same_traps = 0
        if bits & 0x7F == SYSTEM_OPCODE:
            self._look = True
        left, self._exit = self._exit, None
        return left

    def _trapped(self, cause: int, value: int) -> Exit | None:
        s = self.state
        if s.flat:
            return Fault(cause, value)
        where = s.pc
        self._take_trap(s, self, 0, cause, value)
        self._look = True
        this = (where, cause, value, s.mode, s.pc)
        self._same_traps = self._same_traps + 1 if this == self._last_trap else 0
        self._last_trap = this
        if self._same_traps >= SAME_TRAPS:
            return Shutdown(f"hart {self.index}: the trap handler at {s.pc:#x} traps at once (cause {cause})")
        return None

    def _look_for_interrupt(self) -> None:
        s = self.state
        self._look = False
        self._update_pending(s, self)
        if s.pending & s.mie:
            due, number = self._choose_interrupt(s, self)
            if due:
                self._take_trap(s, self, 1, number, 0)
                self._same_traps = 0

    def _sleep(self) -> bool:
        """Until an interrupt is pending, or `run` must return; False where only the outside could bring one."""
        s = self.state
        with self._woken:
            while not self._stop and not self.watched:
                self._update_pending(s, self)
                if s.pending & s.mie:
                    return True
                if not s.mie & INTERRUPTS:
                    return False
                timers = [s.mtimecmp] if s.mie & 1 << MTI else []
                timers += [s.stimecmp] if s.mie & 1 << STI else []
                ticks = min(timers, default=NEVER) - self.clock()
                self._woken.wait(min(max(ticks * TICK / 1e9, 0.0), LONGEST_SLEEP))
        return True

    # ---- what rendered functions call besides memory

    def clock(self) -> int:
        return self._engine.time()

    def wait(self) -> None:
        self._waits = True

    def hypercall(self) -> None:
        self._exit = Hypercall()

    def system_call(self) -> None:
        self._exit = SystemCall()


class EvaluateEngine:
    """`celaje.engine.protocol.Engine` by evaluation; `xlen` is the register width, 32 or 64."""

    def __init__(self, hart_count: int, xlen: int = 64) -> None:
        self.xlen = xlen
        self.lock = threading.Lock()
        self.memories: list[GuestMemory] = []
        self.meaning = meaning(xlen)
        self._began = time.monotonic_ns()
        self.harts = [EvaluateHart(self, index) for index in range(hart_count)]

    def add_memory(self, memory: GuestMemory) -> None:
        """Make `memory` appear at its base."""
        for other in self.memories:
            if memory.base < other.base + other.size and other.base < memory.base + memory.size:
                raise ValueError(f"guest memory at {memory.base:#x} overlaps that at {other.base:#x}")
        self.memories.append(memory)

    def watch(self, address: int) -> None:
        """Have harts leave after stores to a doubleword."""
        if address % 8 or not any(memory.contains(address, 8) for memory in self.memories):
            raise ValueError(f"{address:#x} is no doubleword in a memory slot")
        for hart in self.harts:
            hart.watch = address

    def time(self) -> int:
        """Ticks of the guest's clock."""
        return ((time.monotonic_ns() - self._began) // TICK) & NEVER

    def set_time(self, ticks: int) -> None:
        """Let the clock read `ticks` now."""
        self._began = time.monotonic_ns() - ticks * TICK

    def start_dirty_log(self) -> None:
        """Every store marks its page anyway; from now on only new marks count."""
        self.take_dirty_log()

    def take_dirty_log(self) -> list[bytes]:
        """Pages changed since the last take."""
        with self.lock:
            logs = [bytes(memory.dirty) for memory in self.memories]
            for memory in self.memories:
                memory.dirty[:] = bytes(len(memory.dirty))
        return logs

    def trim(self) -> None:
        """Nothing is kept that memory could be saved on."""

    def statistics(self) -> dict[str, int | float]:
        """Counters."""
        return {
            "instructions": sum(hart.retired for hart in self.harts),
            "guest_seconds": 0.0,
            "tlb_misses": 0,
            "decoded_pages": 0,
            "decoded_bytes": 0,
        }

    def close(self) -> None:
        """Nothing is held."""
