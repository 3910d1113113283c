"""Zba, Zbb and Zbs: addresses, counts, rotations, single bits (Unprivileged ISA, 28)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celaje.isa.riscv.formats import RISCV, SHIFT, SHIFT_W, UNARY, R
from celaje.isa.riscv.integer import amount
from celaje.isa.semantics import Value

Operation = Callable[[Value, Value], Value]
UnaryOperation = Callable[[Value], Value]

BOTH, ONLY_64 = (32, 64), (64,)


def _register(
    extension: str, name: str, encoding: str, operation: Operation, xlens: tuple[int, ...] = BOTH
) -> None:
    def semantics(h: Any) -> None:
        h.rd = operation(h.rs1, h.rs2)

    RISCV.add(f"{name} rd, rs1, rs2", encoding, R, extension, semantics, xlens=xlens)


def _unary(
    extension: str, name: str, encoding: str, operation: UnaryOperation, xlens: tuple[int, ...] = BOTH
) -> None:
    def semantics(h: Any) -> None:
        h.rd = operation(h.rs1)

    RISCV.add(f"{name} rd, rs1", encoding, UNARY, extension, semantics, xlens=xlens)


def _immediate(extension: str, name: str, encoding: str, operation: Operation) -> None:
    """A shift amount of five bits on RV32 and of six on RV64, where it takes one bit of funct7."""

    def semantics(h: Any) -> None:
        h.rd = operation(h.rs1, h.shamt)

    RISCV.add(f"{name} rd, rs1, shamt", encoding, SHIFT_W, extension, semantics, xlens=(32,))
    wide = encoding[:6] + "x" + encoding[7:]
    RISCV.add(f"{name} rd, rs1, shamt", wide, SHIFT, extension, semantics, xlens=ONLY_64)


def _low_word(value: Value) -> Value:
    return value.trunc(32).zext(64)


def rotate_left(value: Value, by: Value) -> Value:
    """By `by` modulo the width; both directions' amounts are masked, since a shift by the width has no meaning."""
    return value << amount(by) | value >> amount(-by)


def rotate_right(value: Value, by: Value) -> Value:
    """By `by` modulo the width."""
    return value >> amount(by) | value << amount(-by)


def single(position: Value) -> Value:
    """One bit set, at `position` modulo the width."""
    return position.semantics.constant(1, position.width) << amount(position)


def bytes_set(value: Value) -> Value:
    """All ones in each byte of which any bit is set (orc.b)."""
    ones = int.from_bytes(b"\x01" * (value.width // 8), "little")
    for shift in (4, 2, 1):
        # The bits that would fall into the byte below are left out.
        value = value | (value & ~(ones * ((1 << shift) - 1))) >> shift
    return (value & ones) * 0xFF


def _shifted_add(shift: int) -> Operation:
    return lambda a, b: (a << shift) + b


def _shifted_add_word(shift: int) -> Operation:
    return lambda a, b: (_low_word(a) << shift) + b


# Zba: an index times 2, 4 or 8 plus a base; .uw takes the index's low word without its sign.
for _shift, _funct3 in ((1, "010"), (2, "100"), (3, "110")):
    _register("Zba", f"sh{_shift}add", f"0010000 xxxxx xxxxx {_funct3} xxxxx 0110011", _shifted_add(_shift))
    _register(
        "Zba",
        f"sh{_shift}add.uw",
        f"0010000 xxxxx xxxxx {_funct3} xxxxx 0111011",
        _shifted_add_word(_shift),
        ONLY_64,
    )
_register("Zba", "add.uw", "0000100 xxxxx xxxxx 000 xxxxx 0111011", lambda a, b: _low_word(a) + b, ONLY_64)


@RISCV.instruction("slli.uw rd, rs1, shamt", "000010x xxxxx xxxxx 001 xxxxx 0011011", SHIFT, "Zba", xlens=ONLY_64)
def slli_uw(h: Any) -> None:
    h.rd = _low_word(h.rs1) << h.shamt


# Zbb: logic with a complement, counts, least and greatest, extensions, rotations, bytes.
_register("Zbb", "andn", "0100000 xxxxx xxxxx 111 xxxxx 0110011", lambda a, b: a & ~b)
_register("Zbb", "orn", "0100000 xxxxx xxxxx 110 xxxxx 0110011", lambda a, b: a | ~b)
_register("Zbb", "xnor", "0100000 xxxxx xxxxx 100 xxxxx 0110011", lambda a, b: ~(a ^ b))

_unary("Zbb", "clz", "0110000 00000 xxxxx 001 xxxxx 0010011", lambda a: a.leading_zeros())
_unary("Zbb", "ctz", "0110000 00001 xxxxx 001 xxxxx 0010011", lambda a: a.trailing_zeros())
_unary("Zbb", "cpop", "0110000 00010 xxxxx 001 xxxxx 0010011", lambda a: a.population())
_unary(
    "Zbb", "clzw", "0110000 00000 xxxxx 001 xxxxx 0011011", lambda a: a.trunc(32).leading_zeros().zext(64), ONLY_64
)
_unary(
    "Zbb", "ctzw", "0110000 00001 xxxxx 001 xxxxx 0011011", lambda a: a.trunc(32).trailing_zeros().zext(64), ONLY_64
)
_unary("Zbb", "cpopw", "0110000 00010 xxxxx 001 xxxxx 0011011", lambda a: a.trunc(32).population().zext(64), ONLY_64)

_register("Zbb", "max", "0000101 xxxxx xxxxx 110 xxxxx 0110011", lambda a, b: a.less(b).select(b, a))
_register("Zbb", "maxu", "0000101 xxxxx xxxxx 111 xxxxx 0110011", lambda a, b: a.below(b).select(b, a))
_register("Zbb", "min", "0000101 xxxxx xxxxx 100 xxxxx 0110011", lambda a, b: a.less(b).select(a, b))
_register("Zbb", "minu", "0000101 xxxxx xxxxx 101 xxxxx 0110011", lambda a, b: a.below(b).select(a, b))

_unary("Zbb", "sext.b", "0110000 00100 xxxxx 001 xxxxx 0010011", lambda a: a.trunc(8).sext(a.width))
_unary("Zbb", "sext.h", "0110000 00101 xxxxx 001 xxxxx 0010011", lambda a: a.trunc(16).sext(a.width))
_unary("Zbb", "zext.h", "0000100 00000 xxxxx 100 xxxxx 0110011", lambda a: a.trunc(16).zext(a.width), (32,))
_unary("Zbb", "zext.h", "0000100 00000 xxxxx 100 xxxxx 0111011", lambda a: a.trunc(16).zext(a.width), ONLY_64)

_register("Zbb", "rol", "0110000 xxxxx xxxxx 001 xxxxx 0110011", rotate_left)
_register("Zbb", "ror", "0110000 xxxxx xxxxx 101 xxxxx 0110011", rotate_right)
_immediate("Zbb", "rori", "0110000 xxxxx xxxxx 101 xxxxx 0010011", rotate_right)
_register(
    "Zbb",
    "rolw",
    "0110000 xxxxx xxxxx 001 xxxxx 0111011",
    lambda a, b: rotate_left(a.trunc(32), b.trunc(32)).sext(64),
    ONLY_64,
)
_register(
    "Zbb",
    "rorw",
    "0110000 xxxxx xxxxx 101 xxxxx 0111011",
    lambda a, b: rotate_right(a.trunc(32), b.trunc(32)).sext(64),
    ONLY_64,
)


@RISCV.instruction("roriw rd, rs1, shamt", "0110000 xxxxx xxxxx 101 xxxxx 0011011", SHIFT_W, "Zbb", xlens=ONLY_64)
def roriw(h: Any) -> None:
    h.rd = rotate_right(h.rs1.trunc(32), h.shamt.trunc(32)).sext(64)


_unary("Zbb", "orc.b", "0010100 00111 xxxxx 101 xxxxx 0010011", bytes_set)
_unary("Zbb", "rev8", "0110100 11000 xxxxx 101 xxxxx 0010011", lambda a: a.bytes_reversed(), (32,))
_unary("Zbb", "rev8", "0110101 11000 xxxxx 101 xxxxx 0010011", lambda a: a.bytes_reversed(), ONLY_64)

# Zbs: one bit cleared, extracted, inverted, set.
SINGLE_BIT: tuple[tuple[str, str, str, Operation], ...] = (
    ("bclr", "0100100", "001", lambda a, b: a & ~single(b)),
    ("bext", "0100100", "101", lambda a, b: a >> amount(b) & 1),
    ("binv", "0110100", "001", lambda a, b: a ^ single(b)),
    ("bset", "0010100", "001", lambda a, b: a | single(b)),
)
for _name, _funct7, _funct3, _operation in SINGLE_BIT:
    _register("Zbs", _name, f"{_funct7} xxxxx xxxxx {_funct3} xxxxx 0110011", _operation)
    _immediate("Zbs", f"{_name}i", f"{_funct7} xxxxx xxxxx {_funct3} xxxxx 0010011", _operation)
