"""The F and D extensions: single and double precision (Unprivileged ISA, 20 and 21), with 64-bit f registers.

An f register holds 64 bits. A 32-bit value in it is NaN-boxed: its upper half is all ones, and where that is not so,
an instruction that wants a 32-bit value sees the canonical NaN. Moves and stores take the low bits as they are.

`float_rounding`, `float_enabled` and `float_operation` are the definitions of the primitives of those names; a reading
that has something faster must agree with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from celaje.isa.riscv.formats import (
    FLOAT_COMPARE,
    FLOAT_FROM_INTEGER,
    FLOAT_LOAD,
    FLOAT_STORE,
    FLOAT_TO_INTEGER,
    FLOAT_UNARY_ROUNDED,
    MOVE_FROM_FLOAT,
    MOVE_TO_FLOAT,
    R4_FLOAT,
    R_FLOAT,
    R_FLOAT_ROUNDED,
    RISCV,
)
from celaje.isa.semantics import Value
from celaje.isa.softfloat import FORMATS, NV, RNE, routine_for

DYNAMIC = 7
ROUNDING_MODES = 5
OFF = 0

# (width of the format, its letter in names, extension, its fmt field in encodings)
PRECISIONS = ((32, "s", "F", "00"), (64, "d", "D", "01"))


# ---- the primitives' meaning


def float_enabled(h: Any) -> None:
    """Illegal instruction where mstatus.FS is off."""
    with h.when(h.fs.eq(OFF)):
        h.illegal()


def float_rounding(h: Any) -> Value:
    """The instruction's rounding mode, 3 bits, 0 to 4; illegal instruction where that is reserved or FS is off."""
    float_enabled(h)
    static = h.rm.trunc(3)
    mode: Value = static.eq(DYNAMIC).select(h.frm.trunc(3), static)
    with h.when(mode.at_least(ROUNDING_MODES)):
        h.illegal()
    return mode


def float_operation(h: Any, operation: str, *operands: Value, rounding: Value | None = None) -> Value:
    """`Semantics.float_operation` in integers. Without a rounding mode the operation is one that never rounds."""
    value, flags = h.call(
        routine_for(operation, operands[0].width), *operands, h.constant(RNE, 3) if rounding is None else rounding
    )
    h.accrue(flags)
    return cast(Value, value)


# ---- values in registers


def unboxed(value: Value, width: int) -> Value:
    """What an f register's 64 bits are as a number of `width` bits."""
    if width == value.width:
        return value
    return value.bits(63, width).eq(-1).select(value.trunc(width), FORMATS[width].nan)


def boxed(value: Value) -> Value:
    """A number as an f register holds it."""
    return value.zext(64) if value.width == 64 else value.zext(64) | (-1 << value.width)


def is_nan(a: Value) -> Value:
    """Either kind of NaN."""
    form = FORMATS[a.width]
    return (a & ~form.sign).above(form.infinity)


def is_signalling(a: Value) -> Value:
    """A NaN whose quiet bit is clear."""
    form = FORMATS[a.width]
    # The quiet bit flipped, signalling NaNs are all that is left above the canonical one.
    return ((a ^ form.quiet) & ~form.sign).above(form.nan)


# ---- loads, stores and moves


def _memory(width: int, letter: str, extension: str, funct3: str) -> None:
    def load(h: Any) -> None:
        h.float_enabled()
        h.frd = boxed(h.load(h.rs1 + h.imm, width // 8))

    def store(h: Any) -> None:
        h.float_enabled()
        h.store(h.rs1 + h.imm, h.frs2.trunc(width))

    RISCV.add(f"fl{letter} frd, imm(rs1)", f"xxxxxxxxxxxx xxxxx {funct3} xxxxx 0000111", FLOAT_LOAD, extension, load)
    RISCV.add(
        f"fs{letter} frs2, imm(rs1)", f"xxxxxxx xxxxx xxxxx {funct3} xxxxx 0100111", FLOAT_STORE, extension, store
    )


_memory(32, "w", "F", "010")
_memory(64, "d", "D", "011")


def _moves(width: int, letter: str, extension: str, fmt: str, xlens: tuple[int, ...]) -> None:
    def to_integer(h: Any) -> None:
        h.float_enabled()
        h.rd = h.frs1.trunc(width).sext(h.xlen)

    def from_integer(h: Any) -> None:
        h.float_enabled()
        h.frd = boxed(h.rs1.trunc(width))

    RISCV.add(
        f"fmv.x.{letter} rd, frs1",
        f"11100{fmt} 00000 xxxxx 000 xxxxx 1010011",
        MOVE_FROM_FLOAT,
        extension,
        to_integer,
        xlens=xlens,
    )
    RISCV.add(
        f"fmv.{letter}.x frd, rs1",
        f"11110{fmt} 00000 xxxxx 000 xxxxx 1010011",
        MOVE_TO_FLOAT,
        extension,
        from_integer,
        xlens=xlens,
    )


_moves(32, "w", "F", "00", (32, 64))
_moves(64, "d", "D", "01", (64,))


# ---- arithmetic


def _arithmetic(name: str, funct5: str, operation: str) -> None:
    """Two operands, for both formats."""
    for width, letter, extension, fmt in PRECISIONS:

        def semantics(h: Any, width: int = width) -> None:
            rounding = h.float_rounding()
            a, b = unboxed(h.frs1, width), unboxed(h.frs2, width)
            h.frd = boxed(h.float_operation(operation, a, b, rounding=rounding))

        RISCV.add(
            f"{name}.{letter} frd, frs1, frs2, rm",
            f"{funct5}{fmt} xxxxx xxxxx xxx xxxxx 1010011",
            R_FLOAT_ROUNDED,
            extension,
            semantics,
        )


_arithmetic("fadd", "00000", "add")
_arithmetic("fsub", "00001", "subtract")
_arithmetic("fmul", "00010", "multiply")
_arithmetic("fdiv", "00011", "divide")


def _fused(name: str, opcode: str, negate_product: bool, negate_addend: bool) -> None:
    """The sum is rounded once, so negated operands give what a negated product or addend would."""
    for width, letter, extension, fmt in PRECISIONS:

        def semantics(h: Any, width: int = width) -> None:
            rounding = h.float_rounding()
            a, b, c = unboxed(h.frs1, width), unboxed(h.frs2, width), unboxed(h.frs3, width)
            if negate_product:
                a = a ^ FORMATS[width].sign
            if negate_addend:
                c = c ^ FORMATS[width].sign
            h.frd = boxed(h.float_operation("fused", a, b, c, rounding=rounding))

        RISCV.add(
            f"{name}.{letter} frd, frs1, frs2, frs3, rm",
            f"xxxxx {fmt} xxxxx xxxxx xxx xxxxx {opcode}",
            R4_FLOAT,
            extension,
            semantics,
        )


_fused("fmadd", "1000011", negate_product=False, negate_addend=False)
_fused("fmsub", "1000111", negate_product=False, negate_addend=True)
_fused("fnmsub", "1001011", negate_product=True, negate_addend=False)
_fused("fnmadd", "1001111", negate_product=True, negate_addend=True)


def _square_root(width: int, letter: str, extension: str, fmt: str) -> None:
    def semantics(h: Any) -> None:
        rounding = h.float_rounding()
        h.frd = boxed(h.float_operation("square_root", unboxed(h.frs1, width), rounding=rounding))

    RISCV.add(
        f"fsqrt.{letter} frd, frs1, rm",
        f"01011{fmt} 00000 xxxxx xxx xxxxx 1010011",
        FLOAT_UNARY_ROUNDED,
        extension,
        semantics,
    )


for _precision in PRECISIONS:
    _square_root(*_precision)


# ---- signs, order, classes


def _quiet_operation(name: str, encoding: str, operation: Callable[[Any, Value, Value], Value]) -> None:
    """Two numbers give a third without rounding; `encoding` is funct5 and funct3."""
    funct5, funct3 = encoding.split()
    for width, letter, extension, fmt in PRECISIONS:

        def semantics(h: Any, width: int = width) -> None:
            h.float_enabled()
            h.frd = boxed(operation(h, unboxed(h.frs1, width), unboxed(h.frs2, width)))

        RISCV.add(
            f"{name}.{letter} frd, frs1, frs2",
            f"{funct5}{fmt} xxxxx xxxxx {funct3} xxxxx 1010011",
            R_FLOAT,
            extension,
            semantics,
        )


def _signed_as(magnitude: Value, sign: Value) -> Value:
    mask = FORMATS[sign.width].sign
    return (magnitude & ~mask) | (sign & mask)


_quiet_operation("fsgnj", "00100 000", lambda h, a, b: _signed_as(a, b))
_quiet_operation("fsgnjn", "00100 001", lambda h, a, b: _signed_as(a, ~b))
_quiet_operation("fsgnjx", "00100 010", lambda h, a, b: a ^ (b & FORMATS[b.width].sign))


def _precedes(a: Value, b: Value) -> Value:
    """a < b among numbers, with -0 before +0: two's complement order, reversed where both are negative."""
    return (a & b).less(0).select(b.less(a), a.less(b))


def _choice(h: Any, a: Value, b: Value, a_wins: Value) -> Value:
    """`a` or `b`; a NaN loses to a number, and two give the canonical one."""
    with h.when(is_signalling(a) | is_signalling(b)):
        h.accrue(NV)
    a_nan, b_nan = is_nan(a), is_nan(b)
    chosen = ((a_wins & ~a_nan) | b_nan).select(a, b)
    return (a_nan & b_nan).select(FORMATS[a.width].nan, chosen)


_quiet_operation("fmin", "00101 000", lambda h, a, b: _choice(h, a, b, _precedes(a, b)))
_quiet_operation("fmax", "00101 001", lambda h, a, b: _choice(h, a, b, _precedes(b, a)))


def _comparison(
    name: str, funct3: str, holds: Callable[[Value, Value], Value], invalid: Callable[[Value], Value]
) -> None:
    """Numbers compare by `holds`, which need not know NaNs; `invalid` says which operands raise NV."""
    for width, letter, extension, fmt in PRECISIONS:

        def semantics(h: Any, width: int = width) -> None:
            h.float_enabled()
            a, b = unboxed(h.frs1, width), unboxed(h.frs2, width)
            with h.when(invalid(a) | invalid(b)):
                h.accrue(NV)
            h.rd = (holds(a, b) & ~is_nan(a) & ~is_nan(b)).zext(h.xlen)

        RISCV.add(
            f"{name}.{letter} rd, frs1, frs2",
            f"10100{fmt} xxxxx xxxxx {funct3} xxxxx 1010011",
            FLOAT_COMPARE,
            extension,
            semantics,
        )


def _both_zero(a: Value, b: Value) -> Value:
    return ((a | b) & ~FORMATS[a.width].sign).eq(0)


_comparison("feq", "010", lambda a, b: a.eq(b) | _both_zero(a, b), is_signalling)
_comparison("flt", "001", lambda a, b: _precedes(a, b) & ~_both_zero(a, b), is_nan)
_comparison("fle", "000", lambda a, b: ~_precedes(b, a) | _both_zero(a, b), is_nan)


def _class(width: int, letter: str, extension: str, fmt: str) -> None:
    form = FORMATS[width]

    def semantics(h: Any) -> None:
        h.float_enabled()
        a = unboxed(h.frs1, width)
        magnitude = a & ~form.sign
        # From zero outwards the classes are bits 4 to 7 on the positive side and 3 to 0 on the negative one.
        positive = h.word(1 << 4)
        negative = h.word(1 << 3)
        for distance, least in enumerate((1, form.smallest_normal, form.infinity), start=1):
            reached = magnitude.at_least(least)
            positive = reached.select(1 << (4 + distance), positive)
            negative = reached.select(1 << (3 - distance), negative)
        number = a.less(0).select(negative, positive)
        nan = is_signalling(a).select(1 << 8, 1 << 9, width=h.xlen)
        h.rd = is_nan(a).select(nan, number)

    RISCV.add(
        f"fclass.{letter} rd, frs1",
        f"11100{fmt} 00000 xxxxx 001 xxxxx 1010011",
        MOVE_FROM_FLOAT,
        extension,
        semantics,
    )


for _precision in PRECISIONS:
    _class(*_precision)


# ---- conversions


def _between_formats(syntax: str, encoding: str, source: int, target: int) -> None:
    def semantics(h: Any) -> None:
        rounding = h.float_rounding()
        h.frd = boxed(h.float_operation(f"to_{target}", unboxed(h.frs1, source), rounding=rounding))

    RISCV.add(syntax, f"{encoding} xxxxx xxx xxxxx 1010011", FLOAT_UNARY_ROUNDED, "D", semantics)


# Assemblers take no rounding mode where the result is always exact, though the field is there and may be illegal.
_between_formats("fcvt.s.d frd, frs1, rm", "0100000 00001", 64, 32)
_between_formats("fcvt.d.s frd, frs1", "0100001 00000", 32, 64)


def _integers(kind: str, which: str, signedness: str, bits: int, xlens: tuple[int, ...]) -> None:
    """To and from one kind of integer; 32-bit ones are sign-extended in x registers, unsigned ones too."""
    for width, letter, extension, fmt in PRECISIONS:

        def to_integer(h: Any, width: int = width) -> None:
            rounding = h.float_rounding()
            value = h.float_operation(f"to_{signedness}_{bits}", unboxed(h.frs1, width), rounding=rounding)
            h.rd = value.sext(h.xlen)

        def from_integer(h: Any, width: int = width) -> None:
            rounding = h.float_rounding()
            value = h.float_operation(f"from_{signedness}_{width}", h.rs1.trunc(bits), rounding=rounding)
            h.frd = boxed(value)

        RISCV.add(
            f"fcvt.{kind}.{letter} rd, frs1, rm",
            f"11000{fmt} {which} xxxxx xxx xxxxx 1010011",
            FLOAT_TO_INTEGER,
            extension,
            to_integer,
            xlens=xlens,
        )
        RISCV.add(
            f"fcvt.{letter}.{kind} frd, rs1{'' if bits < width else ', rm'}",
            f"11010{fmt} {which} xxxxx xxx xxxxx 1010011",
            FLOAT_FROM_INTEGER,
            extension,
            from_integer,
            xlens=xlens,
        )


_integers("w", "00000", "signed", 32, (32, 64))
_integers("wu", "00001", "unsigned", 32, (32, 64))
_integers("l", "00010", "signed", 64, (64,))
_integers("lu", "00011", "unsigned", 64, (64,))
