"""Control and status registers (Privileged ISA, 2; each register's own section is named beside it).

A register is one entry: its number, how it reads, and what a write may change. Which mode may touch it follows from
the number (2.1: bits 9:8 the lowest mode, bits 11:10 both set when it is read-only); further conditions stand in the
entry. `csr_access` is made out of the table and is what the instructions call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celaje.isa.riscv.pmp import LOCKED
from celaje.isa.riscv.pmp import READ as PMP_READ
from celaje.isa.riscv.pmp import WRITE as PMP_WRITE
from celaje.isa.riscv.privilege import (
    CBCFE,
    CBIE,
    CBZE,
    DELEGABLE_EXCEPTIONS,
    DELEGABLE_INTERRUPTS,
    FIOM,
    FS_BIT,
    INTERRUPTS,
    MPP,
    MPP_BIT,
    MSTATUS_WRITABLE,
    SEI,
    SIE,
    SSI,
    SSTATUS,
    SSTATUS_WRITABLE,
    STCE,
    STI,
    SXL_64,
    TVM,
    UXL_64,
)
from celaje.isa.riscv.state import MACHINE, PMP_ENTRIES, SUPERVISOR, USER
from celaje.isa.riscv.trap import update_pending
from celaje.isa.semantics import Semantics, Value, routine

READ, WRITE, SET, CLEAR = 0, 1, 2, 3  # what csr_access is asked to do

Reader = Callable[[Any], Value]
Writer = Callable[[Any, Value], None]
Condition = Callable[[Any], Value]


@dataclass(frozen=True)
class ControlRegister:
    """One register. `refused`: a condition under which every access is an illegal instruction. `modified`: what a set
    or clear starts from, where that is not what a read shows."""

    number: int
    name: str
    read: Reader
    write: Writer | None = None
    refused: Condition | None = None
    modified: Reader | None = None
    xlens: tuple[int, ...] = (32, 64)


REGISTERS: dict[int, ControlRegister] = {}


def _add(
    number: int,
    name: str,
    read: Reader,
    write: Writer | None = None,
    *,
    refused: Condition | None = None,
    modified: Reader | None = None,
    xlens: tuple[int, ...] = (32, 64),
) -> None:
    if number in REGISTERS:
        raise ValueError(f"control register {number:#x} is in the table twice")
    REGISTERS[number] = ControlRegister(number, name, read, write, refused, modified, xlens)


def _field(number: int, name: str, writable: int = -1, **extra: Any) -> None:
    """A register that is a state field, of which a write changes the bits in `writable`."""

    def write(h: Semantics, value: Value) -> None:
        h.write(name, (h.read(name) & ~writable) | (value & writable) if writable != -1 else value)

    _add(number, name, lambda h: h.read(name), write, **extra)


def _constant(number: int, name: str, value: int = 0, writable: bool = True, **extra: Any) -> None:
    """A register that always reads the same; writes, where the number allows them, change nothing."""
    _add(number, name, lambda h: h.constant(value, 64), (lambda h, v: None) if writable else None, **extra)


# ---- floating point (Unprivileged ISA, 20.2)


def _float_off(h: Semantics) -> Value:
    return h.fs.eq(0)


def _set_rounding(h: Semantics, value: Value) -> None:
    h.frm = value.trunc(8) & 7
    h.fs = 3
    h.rounding_changed()


def _set_flags(h: Semantics, value: Value) -> None:
    h.fs = 3
    h.set_float_flags(value.trunc(8) & 31)


def _set_fcsr(h: Semantics, value: Value) -> None:
    _set_flags(h, value)
    _set_rounding(h, value >> 5)


_add(0x001, "fflags", lambda h: h.float_flags().zext(64), _set_flags, refused=_float_off)
_add(0x002, "frm", lambda h: h.frm.zext(64), _set_rounding, refused=_float_off)
_add(
    0x003,
    "fcsr",
    lambda h: h.float_flags().zext(64) | (h.frm.zext(64) << 5),
    _set_fcsr,
    refused=_float_off,
)

# ---- counters (3.1.10 to 3.1.12; 10.1.5)


def _counter_hidden(bit: int) -> Condition:
    def refused(h: Semantics) -> Value:
        from_supervisor = h.mode.ne(MACHINE) & ~h.mcounteren.bit(bit)
        return from_supervisor | (h.mode.eq(USER) & ~h.scounteren.bit(bit))

    return refused


def _cycle(h: Semantics) -> Value:
    return h.mcountinhibit.bit(0).select(h.cycle_held, h.retired() + h.cycle_offset)


def _instret(h: Semantics) -> Value:
    return h.mcountinhibit.bit(2).select(h.instret_held, h.retired() + h.instret_offset)


def _set_cycle(h: Semantics, value: Value) -> None:
    h.cycle_held = value
    h.cycle_offset = value - h.retired() - 1  # the writing instruction itself is not counted


def _set_instret(h: Semantics, value: Value) -> None:
    h.instret_held = value
    h.instret_offset = value - h.retired() - 1


def _inhibit(h: Semantics, value: Value) -> None:
    cycle, instret = _cycle(h), _instret(h)
    h.mcountinhibit = value & 5
    h.cycle_held = cycle
    h.instret_held = instret
    h.cycle_offset = cycle - h.retired()
    h.instret_offset = instret - h.retired()


def _low_half(write: Writer, read: Reader) -> Writer:
    def on_32(h: Semantics, value: Value) -> None:
        write(h, (read(h) & ~0xFFFFFFFF) | (value & 0xFFFFFFFF) if h.xlen == 32 else value)

    return on_32


def _high_half(write: Writer, read: Reader) -> Writer:
    return lambda h, value: write(h, (read(h) & 0xFFFFFFFF) | (value << 32))


def _with_high(
    low_number: int, high_number: int, name: str, read: Reader, write: Writer | None, refused: Condition | None = None
) -> None:
    """A 64-bit register, in two halves where registers have 32 bits."""
    low = _low_half(write, read) if write else None
    high = _high_half(write, read) if write else None
    _add(low_number, name, read, low, refused=refused)
    _add(high_number, f"{name}h", lambda h: read(h) >> 32, high, refused=refused, xlens=(32,))


_with_high(0xC00, 0xC80, "cycle", _cycle, None, _counter_hidden(0))
_with_high(0xC01, 0xC81, "time", lambda h: h.clock(), None, _counter_hidden(1))
_with_high(0xC02, 0xC82, "instret", _instret, None, _counter_hidden(2))
_with_high(0xB00, 0xB80, "mcycle", _cycle, _set_cycle)
_with_high(0xB02, 0xB82, "minstret", _instret, _set_instret)
for _index in range(3, 32):
    _constant(0xC00 + _index, f"hpmcounter{_index}", writable=False, refused=_counter_hidden(_index))
    _constant(0xC80 + _index, f"hpmcounter{_index}h", writable=False, refused=_counter_hidden(_index), xlens=(32,))
    _constant(0xB00 + _index, f"mhpmcounter{_index}")
    _constant(0xB80 + _index, f"mhpmcounter{_index}h", xlens=(32,))
    _constant(0x320 + _index, f"mhpmevent{_index}")
_field(0x306, "mcounteren", 0xFFFFFFFF)
_field(0x106, "scounteren", 0xFFFFFFFF)
_add(0x320, "mcountinhibit", lambda h: h.mcountinhibit, _inhibit)

# ---- status (3.1.6, 10.1.1)

XLEN_BITS = UXL_64 | SXL_64


def _status(h: Semantics) -> Value:
    status = h.mstatus | (h.fs.zext(64) << FS_BIT)
    dirty = h.fs.eq(3).select(1 << (h.xlen - 1), 0, 64)
    return status | dirty | (XLEN_BITS if h.xlen == 64 else 0)


def _set_float_status(h: Semantics, value: Value) -> None:
    before = h.fs
    h.fs = value
    with h.when(value.ne(before)):
        h.rounding_changed()


def _set_status(h: Semantics, value: Value) -> None:
    mode_is_reserved = ((value >> MPP_BIT) & 3).eq(2)
    old = h.mstatus
    wanted = mode_is_reserved.select((value & ~MPP) | (old & MPP), value)
    h.mstatus = (old & ~MSTATUS_WRITABLE) | (wanted & MSTATUS_WRITABLE)
    _set_float_status(h, (value >> FS_BIT).trunc(8) & 3)
    h.translation_changed()


SSTATUS_VISIBLE = SSTATUS_WRITABLE | 3 << FS_BIT | UXL_64 | 1 << 63


def _supervisor_status(h: Semantics) -> Value:
    visible = SSTATUS_VISIBLE if h.xlen == 64 else (SSTATUS_WRITABLE | 3 << FS_BIT | 1 << 31)
    return _status(h) & visible


def _set_supervisor_status(h: Semantics, value: Value) -> None:
    h.mstatus = (h.mstatus & ~SSTATUS_WRITABLE) | (value & SSTATUS_WRITABLE)
    _set_float_status(h, (value >> FS_BIT).trunc(8) & 3)
    h.translation_changed()


_add(0x300, "mstatus", _status, _set_status)
_constant(0x310, "mstatush", xlens=(32,))
_add(SSTATUS, "sstatus", _supervisor_status, _set_supervisor_status)


def is_interrupt_enable(h: Semantics, operand: Value, clears: bool) -> Value:
    """Whether setting (or clearing) the bits `operand` of sstatus changes at most SIE and lets no interrupt in: what a
    kernel does around each of its critical sections."""
    alone = (operand & ~SIE).eq(0) & h.mode.ne(USER)
    return alone if clears else alone & (h.pending & h.mie).eq(0)


def change_interrupt_enable(h: Semantics, operand: Value, clears: bool) -> Value:
    """What `csr_access` does to sstatus where `is_interrupt_enable` holds; what it read before."""
    before = _supervisor_status(h)
    h.mstatus = h.mstatus & ~operand if clears else h.mstatus | operand
    return before


MISA_EXTENSIONS = sum(1 << (ord(letter) - ord("A")) for letter in "IMAFDCSU")


def _misa(h: Semantics) -> Value:
    return h.constant(MISA_EXTENSIONS | ((2 << 62) if h.xlen == 64 else (1 << 30)), 64)


_add(0x301, "misa", _misa, lambda h, value: None)

# ---- identity (3.1.2 to 3.1.5)

_constant(0xF11, "mvendorid", writable=False)
_constant(0xF12, "marchid", writable=False)
_constant(0xF13, "mimpid", writable=False)
_add(0xF14, "mhartid", lambda h: h.mhartid)
_constant(0xF15, "mconfigptr", writable=False)

# ---- triggers (Debug Specification 1.0, 5.6): the registers are there, and say that no trigger is. A program that
# looks for one finds type 0, instead of an exception for which not all are prepared.

for _number, _name in ((0x7A0, "tselect"), (0x7A1, "tdata1"), (0x7A2, "tdata2"), (0x7A3, "tdata3")):
    _constant(_number, _name)
_constant(0x7A4, "tinfo", 1)  # the only type at this index is 0, none

# ---- delegation and interrupts (3.1.8, 3.1.9, 10.1.3)


def _interrupts(write: Writer) -> Writer:
    """A write after which an interrupt may be due."""

    def and_update(h: Semantics, value: Value) -> None:
        write(h, value)
        h.call(update_pending)

    return and_update


def _pending(h: Semantics) -> Value:
    h.call(update_pending)
    return h.pending


def _set_pending(h: Semantics, value: Value) -> None:
    timer_is_hardware = (h.menvcfg & STCE).ne(0)
    writable = timer_is_hardware.select(1 << SSI | 1 << SEI, 1 << SSI | 1 << SEI | 1 << STI, 64)
    h.mip = (h.mip & ~writable) | (value & writable)


def _set_supervisor_pending(h: Semantics, value: Value) -> None:
    writable = h.mideleg & (1 << SSI)
    h.mip = (h.mip & ~writable) | (value & writable)


def _set_supervisor_enables(h: Semantics, value: Value) -> None:
    h.mie = (h.mie & ~h.mideleg) | (value & h.mideleg)


_field(0x302, "medeleg", DELEGABLE_EXCEPTIONS)
_field(0x303, "mideleg", DELEGABLE_INTERRUPTS)
_constant(0x312, "medelegh", xlens=(32,))
_field(0x304, "mie", INTERRUPTS)
_add(0x344, "mip", _pending, _interrupts(_set_pending), modified=lambda h: h.mip)
_add(0x104, "sie", lambda h: h.mie & h.mideleg, _set_supervisor_enables)
_add(
    0x144,
    "sip",
    lambda h: _pending(h) & h.mideleg,
    _interrupts(_set_supervisor_pending),
    modified=lambda h: h.mip & h.mideleg,
)

# ---- trap handling (3.1.7, 3.1.13 to 3.1.16, 10.1.2, 10.1.6 to 10.1.9)


def _set_vector(name: str) -> Writer:
    def write(h: Semantics, value: Value) -> None:
        with h.when(value.bit(1).eq(0)):  # modes 2 and 3 are reserved: the write is ignored
            h.write(name, value)

    return write


def _set_return_address(name: str) -> Writer:
    return lambda h, value: h.write(name, value & ~1)


for _number, _letter in ((0x300, "m"), (0x100, "s")):
    _name = f"{_letter}tvec"
    _add(_number + 5, _name, (lambda name: lambda h: h.read(name))(_name), _set_vector(_name))
    _field(_number + 0x40, f"{_letter}scratch")
    _name = f"{_letter}epc"
    _add(_number + 0x41, _name, (lambda name: lambda h: h.read(name))(_name), _set_return_address(_name))
    _field(_number + 0x42, f"{_letter}cause")
    _field(_number + 0x43, f"{_letter}tval")

# ---- environment configuration (3.1.18, 10.1.10)


def _environment(h: Semantics, value: Value, allowed: int) -> Value:
    """CBIE's value 2 is reserved and reads back as 0."""
    kept = value & allowed
    return ((kept & CBIE).eq(2 << 4)).select(kept & ~CBIE, kept)


def _set_machine_environment(h: Semantics, value: Value) -> None:
    h.menvcfg = _environment(h, value, FIOM | CBIE | CBCFE | CBZE | STCE)
    h.call(update_pending)


def _set_supervisor_environment(h: Semantics, value: Value) -> None:
    h.senvcfg = _environment(h, value, FIOM | CBIE | CBCFE | CBZE)


_with_high(0x30A, 0x31A, "menvcfg", lambda h: h.menvcfg, _set_machine_environment)
_add(0x10A, "senvcfg", lambda h: h.senvcfg, _set_supervisor_environment)


def _timer_hidden(h: Semantics) -> Value:
    """Sstc: stimecmp is there for supervisor mode only when menvcfg.STCE and mcounteren.TM are set."""
    return h.mode.ne(MACHINE) & ((h.menvcfg & STCE).eq(0) | ~h.mcounteren.bit(1))


def _set_supervisor_timer(h: Semantics, value: Value) -> None:
    h.stimecmp = value
    h.call(update_pending)


_with_high(0x14D, 0x15D, "stimecmp", lambda h: h.stimecmp, _set_supervisor_timer, _timer_hidden)

# ---- translation and protection (10.1.11, 3.7)


def _translation_trapped(h: Semantics) -> Value:
    return h.mode.eq(SUPERVISOR) & (h.mstatus & TVM).ne(0)


def _set_translation(h: Semantics, value: Value) -> None:
    if h.xlen == 32:
        h.satp = value
        h.translation_root_changed()
        return
    scheme = value >> 60
    with h.when(scheme.eq(0) | (scheme.at_least(8) & scheme.at_most(10))):  # others are reserved: write ignored
        same_scheme = (h.satp >> 60).eq(scheme)
        h.satp = value
        with h.when(same_scheme):
            h.translation_root_changed()
        with h.otherwise():  # a change of scheme counts at once, without a fence, for global pages too (10.1.11)
            h.flush_translations(h.word(0), h.constant(1, 1))


_add(0x180, "satp", lambda h: h.satp, _set_translation, refused=_translation_trapped)


def _set_pmp_config(first: int, count: int) -> Writer:
    def write(h: Semantics, value: Value) -> None:
        for index in range(count):
            old = h.read("pmpcfg", first + index)
            asked = (value >> (8 * index)).trunc(8) & 0x9F
            reserved = (asked & (PMP_READ | PMP_WRITE)).eq(PMP_WRITE)
            keep = (old & LOCKED).ne(0) | reserved
            h.write("pmpcfg", keep.select(old, asked), first + index)
        _protection_changed(h)

    return write


def _protection_changed(h: Semantics) -> None:
    active = h.constant(0, 8)
    for index in range(PMP_ENTRIES):
        active = (h.read("pmpcfg", index) & 0x18).ne(0).select(index + 1, active)
    h.pmp_active = active
    h.flush_translations(h.constant(0, h.xlen), h.constant(1, 1))


def _pmp_config(first: int, count: int) -> Reader:
    def read(h: Semantics) -> Value:
        value = h.constant(0, 64)
        for index in range(count):
            value = value | (h.read("pmpcfg", first + index).zext(64) << (8 * index))
        return value

    return read


def _set_pmp_address(index: int) -> Writer:
    def write(h: Semantics, value: Value) -> None:
        locked = (h.read("pmpcfg", index) & LOCKED).ne(0)
        if index + 1 < PMP_ENTRIES:
            after = h.read("pmpcfg", index + 1)
            locked = locked | (after & (LOCKED | 0x18)).eq(LOCKED | 0x08)  # the base of a locked top-of-range entry
        kept = value & ((1 << 54) - 1 if h.xlen == 64 else 0xFFFFFFFF)
        h.write("pmpaddr", locked.select(h.read("pmpaddr", index), kept), index)
        _protection_changed(h)

    return write


def _pmp_address(index: int) -> Reader:
    return lambda h: h.read("pmpaddr", index)


for _index in range(64):
    if _index < PMP_ENTRIES:
        _add(0x3B0 + _index, f"pmpaddr{_index}", _pmp_address(_index), _set_pmp_address(_index))
    else:
        _constant(0x3B0 + _index, f"pmpaddr{_index}")
for _index in range(16):
    _name = f"pmpcfg{_index}"
    if _index % 2:
        _first = 4 * _index
        if _first < PMP_ENTRIES:
            _add(0x3A0 + _index, _name, _pmp_config(_first, 4), _set_pmp_config(_first, 4), xlens=(32,))
        else:
            _constant(0x3A0 + _index, _name, xlens=(32,))
    elif 4 * _index < PMP_ENTRIES:
        # eight entries a register at 64 bits, four at 32; what lies above 32 bits is cut off there

        def _config_read(h: Semantics, first: int = 4 * _index) -> Value:
            return _pmp_config(first, h.xlen // 8)(h)

        def _config_write(h: Semantics, value: Value, first: int = 4 * _index) -> None:
            _set_pmp_config(first, h.xlen // 8)(h, value)

        _add(0x3A0 + _index, _name, _config_read, _config_write)
    else:
        _constant(0x3A0 + _index, _name)


@routine(parameters=(16, 8, 64), results=(64, 1))
def csr_access(h: Semantics, number: Value, operation: Value, operand: Value) -> None:
    """(what the register read before, whether the access is an illegal instruction) after doing `operation` on it."""
    mode_needed = (number >> 8).trunc(8) & 3
    read_only = (number >> 10).eq(3)
    with h.when(mode_needed.above(h.mode) | (read_only & operation.ne(READ))):
        h.give(0, 1)
    for register in REGISTERS.values():
        if h.xlen not in register.xlens:
            continue
        with h.when(number.eq(register.number)):
            if register.refused is not None:
                with h.when(register.refused(h)):
                    h.give(0, 1)
            old = register.read(h)
            if register.write is not None:
                with h.when(operation.ne(READ)):
                    start = register.modified(h) if register.modified is not None else old
                    changed = operation.eq(SET).select(start | operand, start & ~operand)
                    new = operation.eq(WRITE).select(operand, changed)
                    register.write(h, new if h.xlen == 64 else new & 0xFFFFFFFF)
            h.give(old, 0)
    h.give(0, 1)


NUMBERS = {register.name: register.number for register in REGISTERS.values()}
