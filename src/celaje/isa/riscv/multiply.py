"""M: multiplication and division (Unprivileged ISA, 13). Nothing traps: division by zero and overflow have results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celaje.isa.riscv.formats import RISCV, R
from celaje.isa.semantics import Value

Operation = Callable[[Value, Value], Value]


def _high(a: Value, b: Value) -> Value:
    return ((a * b) >> (a.width // 2)).trunc(a.width // 2)


def _mulh(a: Value, b: Value) -> Value:
    return _high(a.sext(2 * a.width), b.sext(2 * a.width))


def _mulhsu(a: Value, b: Value) -> Value:
    return _high(a.sext(2 * a.width), b.zext(2 * a.width))


def _mulhu(a: Value, b: Value) -> Value:
    return _high(a.zext(2 * a.width), b.zext(2 * a.width))


def _overflows(a: Value, b: Value) -> Value:
    return a.eq(1 << (a.width - 1)) & b.eq(-1)


def _div(a: Value, b: Value) -> Value:
    zero = b.eq(0)
    quotient = a.divided_signed((zero | _overflows(a, b)).select(1, b))  # overflow: the dividend itself, as by 1
    return zero.select(-1, quotient)


def _divu(a: Value, b: Value) -> Value:
    zero = b.eq(0)
    return zero.select(-1, a.divided_unsigned(zero.select(1, b)))


def _rem(a: Value, b: Value) -> Value:
    zero = b.eq(0)
    return zero.select(a, a.remainder_signed((zero | _overflows(a, b)).select(1, b)))


def _remu(a: Value, b: Value) -> Value:
    zero = b.eq(0)
    return zero.select(a, a.remainder_unsigned(zero.select(1, b)))


OPERATIONS: tuple[tuple[str, str, Operation, bool], ...] = (
    ("mul", "000", lambda a, b: a * b, True),
    ("mulh", "001", _mulh, False),
    ("mulhsu", "010", _mulhsu, False),
    ("mulhu", "011", _mulhu, False),
    ("div", "100", _div, True),
    ("divu", "101", _divu, True),
    ("rem", "110", _rem, True),
    ("remu", "111", _remu, True),
)


def _add(name: str, funct3: str, operation: Operation, has_word_form: bool) -> None:
    def semantics(h: Any) -> None:
        h.rd = operation(h.rs1, h.rs2)

    RISCV.add(f"{name} rd, rs1, rs2", f"0000001 xxxxx xxxxx {funct3} xxxxx 0110011", R, "M", semantics)

    def word(h: Any) -> None:
        h.rd = operation(h.rs1.trunc(32), h.rs2.trunc(32)).sext(64)

    if has_word_form:
        short = name.removesuffix("u") + "uw" if name.endswith("u") else name + "w"
        encoding = f"0000001 xxxxx xxxxx {funct3} xxxxx 0111011"
        RISCV.add(f"{short} rd, rs1, rs2", encoding, R, "M", word, xlens=(64,))


for _operation in OPERATIONS:
    _add(*_operation)
